from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets, where there is one."""
    folder = os.environ.get("LLMOPT_DATA")
    if not folder:
        pytest.skip("needs real data sets: set LLMOPT_DATA to their folder")
    if not Path(folder, "caltech-101").is_dir():
        pytest.skip(f"needs Caltech-101, but {folder} (LLMOPT_DATA) has no caltech-101")
    return Path(folder)
