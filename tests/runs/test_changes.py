"""Runs that go on with something changed, and runs that are deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_line import done, refused, run
from paper_runs import paper_run

import llmopt
from llmopt.errors import ConfigError, ServiceError
from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig

pytestmark = pytest.mark.usefixtures("shared_cache")

SMALL = {"probes": 0, "restarts": 1, "iterations": 4, "proposals": 2}


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A run whose language model is not there."""
    with pytest.raises(ServiceError):
        llmopt.run(
            llm="gone",
            llm_base_url="http://127.0.0.1:9/v1",
            llm_settings={"attempts": 1},
            settings=SMALL,
            runs=tmp_path / "runs",
            progress=False,
        )
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_a_run_goes_on_with_another_model_and_cap(stopped: Path) -> None:
    found = done(
        "resume", stopped, "--llm", "builtin", "--llm-base-url", "", "--max-llm-calls", 1, "--json"
    ).json
    assert found["status"] == "complete"
    assert found["optimizer"]["llm"] == "builtin"
    assert found["stop_reason"] == "budget: llm_calls"
    kept = run_folder.read_run_config(stopped)
    assert (kept.llm, kept.llm_base_url, kept.max_llm_calls) == ("builtin", "", 1)
    journal = (stopped / "journal.jsonl").read_text()
    assert '"kind": "changed"' in journal
    # It is what it is: other caps come too late.
    said = done("resume", stopped, "--max-llm-calls", 9).err
    assert "its test images were measured" in said
    assert run_folder.read_run_config(stopped) == kept


def test_another_model_finds_what_an_undisturbed_run_finds(stopped: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"progress": False}
    after = llmopt.resume(stopped, llm="builtin", llm_base_url="", **options)
    whole = llmopt.run(llm="builtin", settings=SMALL, runs=tmp_path / "whole", **options)
    assert after.result["best"] == whole.result["best"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"seed": 2}, "--seed decides where a search goes"),
        ({"dataset": "shapes-red", "seed": 2}, "--dataset, --seed decide"),
        ({"max_llm_calls": -1}, "--max-llm-calls must be"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_decides_the_search_stays(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        run_folder.changed(RunConfig(), changes)


def test_runs_are_deleted_when_that_is_confirmed(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    folders = [paper_run(root, seed=seed) for seed in (1, 2, 3)]
    assert "say --yes" in refused("runs", "--runs", root, "--delete", "--filter", "seed=2")
    assert "wants to know which" in refused("runs", "--runs", root, "--delete", "--yes")
    done("runs", "--runs", root, "--delete", "--filter", "seed=2", "--yes")
    assert [folder.is_dir() for folder in folders] == [True, False, True]
    done("runs", folders[0], "--delete", "--yes")
    assert [folder.is_dir() for folder in folders] == [False, False, True]
    assert (
        "nothing was deleted"
        in done("runs", "--runs", root, "--delete", "--filter", "seed=9", "--yes").err
    )


def test_nothing_but_an_idle_run_folder_is_deleted(tmp_path: Path) -> None:
    folder = paper_run(tmp_path / "runs")
    other = tmp_path / "precious"
    other.mkdir()
    (other / "config.toml").write_text("")
    (tmp_path / "link").symlink_to(folder)
    for path in (other, tmp_path / "link", tmp_path / "none"):
        assert "is not a run folder" in refused("runs", path, "--delete", "--yes")
    with run_folder.locked(folder):
        assert "in use by another process" in refused("runs", folder, "--delete", "--yes")
    # One that cannot be deleted keeps the others.
    assert run("runs", folder, other, "--delete", "--yes").code == 2
    assert folder.is_dir()
    assert other.is_dir()
