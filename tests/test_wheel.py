"""The wheel alone, without the checkout beside it, does the main job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent


def call(*command: str | Path, cwd: Path) -> str:
    """The standard output of a program; its standard error is in the message when it fails."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive by the pinned backend, without network."""
    out = tmp_path_factory.mktemp("wheel")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it; only the dependencies are borrowed from ours."""
    root = tmp_path_factory.mktemp("fresh").resolve()
    venv.create(root, with_pip=False, symlinks=True)
    python = root / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    call(*pip, "install", "--no-index", "--no-deps", wheel, cwd=root)
    # Path files in a folder that a path file adds aren't read, so our editable llmopt stays out.
    (site_packages,) = root.glob("lib/python*/site-packages")
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(ours)) + "\n")
    return root


def test_package_index_would_take_wheel_and_sources(wheel: Path) -> None:
    built = sorted(wheel.parent.iterdir())
    assert [path.suffix for path in built] == [".whl", ".gz"]
    told = call(sys.executable, "-m", "twine", "--no-color", "check", *built, cwd=wheel.parent)
    assert told.count("PASSED") == 2


def test_wheel_holds_package_prompts_pages_and_weights_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, kind in (("prompts", "*.txt"), ("docs", "*.md")):
        for path in (CHECKOUT / folder).rglob(kind):
            inside = path.relative_to(CHECKOUT / folder).as_posix()
            assert f"llmopt/_{folder}/{inside}" in names
    assert "llmopt/py.typed" in names
    assert [n for n in names if n.startswith("llmopt/assets/") and n.endswith(".safetensors")]
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"llmopt"}
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.long
def test_main_job_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = (
        "import sys, llmopt; from llmopt.resources import prompts_root;"
        "print(llmopt.__file__, prompts_root(), *sys.path, sep='\\n')"
    )
    told = call(installed / "bin" / "python", "-c", where, cwd=tmp_path)
    package, prompts, *path = told.splitlines()
    assert Path(package).is_relative_to(installed)
    assert Path(prompts).is_relative_to(installed)
    assert str(CHECKOUT) not in path

    command = [installed / "bin" / "llmopt", "run", "--llm", "builtin", "--json"]
    result = json.loads(call(*command, cwd=tmp_path))

    assert result["schema"] == 2
    assert result["status"] == "complete"
    assert result["task"]["dataset"] == "shapes-small"
    assert result["model"]["name"] == "shapes-tiny"
    assert all("{}" in template["text"] for template in result["best"]["templates"])
    assert result["best"]["test_accuracy"] > result["baseline"]["test_accuracy"]
    run = tmp_path / result["run"]
    assert json.loads((run / "result.json").read_text(encoding="utf-8")) == result
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]
