"""What every test may rely on: no keys, no settings of ours, no network hub, a cache of its own."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

collect_ignore = ["plugin"]  # a package of its own, which test_plugin.py installs

_UNSET = ("FORCE_COLOR", "GITHUB_ACTIONS", "HF_TOKEN", "OPENAI_BASE_URL", "PY_COLORS")
_UNSET_PREFIXES = ("LLMOPT_", "LANGCHAIN_", "LANGSMITH_")
_SET = {
    "COLUMNS": "100",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "NO_COLOR": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    # Under xdist each worker has a core for itself; more threads would fight for the same ones.
    "OMP_NUM_THREADS": "1" if "PYTEST_XDIST_WORKER" in os.environ else "2",
    # Nothing is reached by TLS here, and reading this machine's certificates takes 20 ms a client.
    "SSL_CERT_DIR": str(Path(__file__).parent),
    "TERM": "dumb",
}

# At import, not in a fixture: several libraries read these once, when they are imported.
for _name in list(os.environ):
    if _name == "LLMOPT_DATA":  # real images, for the tests that want some
        continue
    if _name.endswith("_API_KEY") or _name.startswith(_UNSET_PREFIXES) or _name in _UNSET:
        del os.environ[_name]
os.environ.update(_SET)
# A shell starts what runs in the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# How long an example takes says more of the machine than of the code.
# The fast tests ask the same every time; the slow ones (fuzz.py) look for what is new.
settings.register_profile("llmopt", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("llmopt")


@pytest.fixture(scope="session", autouse=True)
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache from test to test, for ``shared_cache`` and for what is set up once for many tests.

    Set before anything else is, so that the cache of whoever runs the tests is never touched.
    """
    folder = tmp_path_factory.mktemp("encoded")
    os.environ["LLMOPT_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own empty ``$LLMOPT_CACHE``, also for programs it starts."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LLMOPT_CACHE", str(folder))
    return folder


@pytest.fixture
def shared_cache(encoded: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use :func:`encoded` in place of the test's own empty cache."""
    monkeypatch.setenv("LLMOPT_CACHE", str(encoded))
    return encoded


@pytest.fixture(scope="session")
def open_clip() -> ModuleType:
    """The open_clip package, for tests that need it before llmopt has imported it."""
    from llmopt._torchvision import ensure_operators

    ensure_operators()
    return importlib.import_module("open_clip")


@pytest.fixture
def install_package(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Mapping[str, Mapping[str, str]], Mapping[str, str]], None]:
    """Puts a package where Python looks for some: name, entry points by group, modules by name."""
    site = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(str(site))

    def install(
        package: str, points: Mapping[str, Mapping[str, str]], modules: Mapping[str, str]
    ) -> None:
        info = site / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        text = ""
        for group, entries in points.items():
            lines = [f"{name} = {where}" for name, where in entries.items()]
            text += "\n".join([f"[llmopt.{group}]", *lines, ""])
        (info / "entry_points.txt").write_text(text)
        for name, code in modules.items():
            (site / f"{name}.py").write_text(code)
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()

    return install
