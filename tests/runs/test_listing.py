"""The list of runs and its index, which is only ever a cache."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from paper_runs import paper_run

from llmopt.runs import listing
from llmopt.runs.config import RunConfig
from llmopt.runs.listing import list_runs
from llmopt.runs.load import RunSummary, look, summarize


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed in (1, 2, 3):
        paper_run(tmp_path / "runs", seed=seed)
    return tmp_path / "runs"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders that were read."""
    names: list[str] = []

    def reading(folder: Path) -> tuple[RunSummary, RunConfig | None, float]:
        names.append(folder.name)
        return look(folder)

    monkeypatch.setattr(listing, "look", reading)
    return names


def index_of(cache_dir: Path) -> Path:
    (path,) = (cache_dir / "runs").iterdir()
    return path


def changed(folder: Path, **changes: Any) -> None:
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_has_not_changed_is_not_read_again(root: Path, read: list[str]) -> None:
    first = list_runs(root)
    assert len(read) == len(first) == 3
    assert list_runs(root) == first == [summarize(one.folder) for one in first]
    assert len(read) == 3


def test_whatever_changes_is_read(root: Path, read: list[str]) -> None:
    one, two, three = (summary.folder for summary in list_runs(root))
    read.clear()
    changed(one, status="interrupted")
    (two / "result.json").unlink()
    (three / "config.toml").write_text("optimizer = 1")
    new = paper_run(root, seed=4)
    found = {summary.folder: summary.status for summary in list_runs(root)}
    assert found == {one: "interrupted", two: "unfinished", three: "damaged", new: "complete"}
    assert sorted(read) == sorted(folder.name for folder in found)


def test_a_file_of_the_same_size_and_time_is_read(root: Path, read: list[str]) -> None:
    folder = list_runs(root)[0].folder
    read.clear()
    path, other = folder / "result.json", folder / "other"
    before = path.stat()
    other.write_text(path.read_text().replace('"complete"', '"finished"'))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_size == before.st_size
    list_runs(root)
    assert read == [folder.name]


def test_a_damaged_folder_is_looked_at_each_time(root: Path, read: list[str]) -> None:
    folder = list_runs(root)[0].folder
    (folder / "config.toml").write_text("optimizer = 'of a package that is not installed'")
    list_runs(root)
    read.clear()
    list_runs(root)
    assert read == [folder.name]


def test_a_damaged_index_is_made_again(root: Path, read: list[str], cache_dir: Path) -> None:
    first = list_runs(root)
    index = index_of(cache_dir)
    whole = index.read_bytes()
    for damaged in (
        b"", b"{}", b"\xff\n[]", whole[:-9], whole.replace(b"complete", b"deleted!"),
        whole.split(b"\n")[1], whole.replace(b"0", b"1", 1), b"0" * 64 + b"\n[[]]",
    ):  # fmt: skip
        index.write_bytes(damaged)
        read.clear()
        assert list_runs(root) == first
        assert len(read) == 3
        assert index.read_bytes() == whole


def test_another_version_reads_for_itself(
    root: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_runs(root)
    monkeypatch.setattr(listing, "__version__", "99")
    list_runs(root)
    assert len(read) == 6


def test_a_cache_that_cannot_be_written_is_no_matter(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMOPT_CACHE", str(tmp_path / "file"))
    assert len(list_runs(root)) == 3
    assert list_runs(tmp_path / "nowhere") == []
