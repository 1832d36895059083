from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that keeps the features of the shapes world from test to test."""
    return tmp_path_factory.mktemp("encoded")


@pytest.fixture
def shared_cache(encoded: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use it, in place of the test's own empty one."""
    monkeypatch.setenv("LLMOPT_CACHE", str(encoded))
    return encoded
