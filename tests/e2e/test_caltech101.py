"""Caltech-101 through the command line: a miniature, and the real one where LLMOPT_DATA has it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import done, refused
from miniatures import TEST, build

pytestmark = pytest.mark.usefixtures("shared_cache")

SMALL = ("--set", "probes=0", "--set", "restarts=1", "--set", "iterations=2", "--llm", "builtin")


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("data")
    build("caltech101", root)
    return root


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets, where there is one."""
    folder = os.environ.get("LLMOPT_DATA")
    if not folder:
        pytest.skip("needs real data sets: set LLMOPT_DATA to their folder")
    if not Path(folder, "caltech-101").is_dir():
        pytest.skip(f"needs Caltech-101, but {folder} (LLMOPT_DATA) has no caltech-101")
    return Path(folder).resolve()


def test_a_run_on_the_miniature(
    miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMOPT_DATA", str(miniature))
    arguments = ("run", "--dataset", "caltech101", "--model", "shapes-tiny", *SMALL)
    ended = done(*arguments, "--json", cwd=tmp_path)
    result = ended.json
    task = result["task"]
    assert task["dataset"] == "caltech101"
    assert task["train_images"] == task["val_images"] == task["classes"]
    assert task["test_images"] == TEST * task["classes"]
    assert 0 <= result["best"]["test_accuracy"] <= 1
    assert done("datasets", "show", "caltech101", "--json").json["classes"] == task["classes"]
    text = done(*arguments, "--shots", 2, cwd=tmp_path).out
    if result["at_chance"]:
        assert "This accuracy is at chance" in " ".join(text.split())


def test_without_a_model_it_asks_for_the_papers(miniature: Path, tmp_path: Path) -> None:
    message = refused(
        "run", "--dataset", "caltech101", "--data-root", miniature, "--json", cwd=tmp_path
    )
    assert "'RN50-quickgelu' with weights 'openai' are not on this machine" in message
    assert "--model local-dir:PATH" in message
    assert list(tmp_path.iterdir()) == []


def test_a_missing_part_is_named(miniature: Path, tmp_path: Path) -> None:
    message = refused(
        "run", "--dataset", "caltech101", "--data-root", tmp_path, "--json", cwd=tmp_path
    )
    assert "'caltech101' not found under" in message
    assert "caltech-101" in message
    assert "llmopt datasets download caltech101" in message


@pytest.mark.slow
def test_the_real_one(real_data: Path, tmp_path: Path) -> None:
    ended = done(
        "run", "--dataset", "caltech101", "--data-root", real_data, "--shots", 1,
        "--model", "shapes-tiny", *SMALL, cwd=tmp_path,
    )  # fmt: skip
    (folder,) = (tmp_path / "runs").iterdir()
    task = done("resume", folder, "--json").json["task"]
    sizes = (task["train_images"], task["val_images"], task["test_images"])
    assert sizes == (100, 100, 2465)
    assert "This accuracy is at chance for 100 classes" in " ".join(ended.out.split())
    assert "Use another --model" in " ".join(ended.out.split())
