"""What a sweep is made of: cells, their folders, a cap over all of them, and where it stands."""

from __future__ import annotations

import dataclasses
import json
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from fuzz import fuzz
from paper_runs import paper_run
from typer.testing import CliRunner
from written import SPENT, Runs, written_runs

import llmopt
from llmopt.cli.app import app
from llmopt.comparison.execute import execute, standing
from llmopt.comparison.grid import Cell, hold_equal, make_grid, parse_arm
from llmopt.errors import (
    UNFINISHED,
    BudgetTooSmall,
    ConfigError,
    LlmoptError,
    ServiceError,
)
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import compose
from llmopt.runs.config import RunConfig
from llmopt.runs.same import key
from llmopt.spend.events import Watch
from llmopt.sweep.attempt import Ended
from llmopt.sweep.engine import Queue, Report
from llmopt.sweep.engines import Workers, choose_engine, parse_jobs
from llmopt.sweep.local import LocalEngine
from llmopt.sweep.purse import Purse, total_caps
from llmopt.sweep.room import CELLS, Room
from llmopt.sweep.work import Job, Known, grouped

runs = written_runs


def cells(root: Path, seeds: Sequence[int] = (1, 2, 3), *arms: str, **options: Any) -> list[Cell]:
    base = RunConfig(runs=str(root), llm="builtin", **options)
    wanted = [parse_arm(arm) for arm in arms or ("random",)]
    return make_grid(base, wanted, ["shapes-small"], [1], seeds)


def job(seed: int = 1, **changes: Any) -> Job:
    return Job(f"seed {seed}", RunConfig(seed=seed, optimizer="random", **changes).resolved())


def test_what_failed_is_told_with_the_command_that_repeats_it(runs: Runs, tmp_path: Path) -> None:
    runs.fails = {2, 3}
    grid = cells(tmp_path)
    done, status = execute(grid, tmp_path, LocalEngine(), Watch())
    assert [bool(one.folder) for one in done] == [True, False, False]
    assert status.counts == {"done": 1, "running": 0, "failed": 2, "waiting": 0}
    _, later = standing(grid, tmp_path)  # another process, which reads it in the folders
    assert later.counts == status.counts
    (said,) = later.failures()
    assert said == status.failures()[0]
    head, _, command = said.partition("; again: llmopt ")
    assert head.endswith("seed 3 failed: the service is gone")
    runs.fails = set()
    assert CliRunner().invoke(app, [*shlex.split(command), "-q"]).exit_code == 0
    done, status = execute(grid, tmp_path, LocalEngine(), Watch())
    assert [one.reused for one in done] == [True, True, False]
    assert status.whole
    assert standing(grid, tmp_path)[1].failures() == []


def test_a_cell_in_progress_is_seen_and_left_alone(runs: Runs, tmp_path: Path) -> None:
    grid = cells(tmp_path)
    execute(grid[:1], tmp_path, LocalEngine(), Watch())
    first, *_ = standing(grid, tmp_path)[1].cells
    assert first.state == "done"
    room = Room(tmp_path, Job("", compose(grid[1].config).config).key)
    with room.locked():
        room.begin("node-7")
        status = standing(grid, tmp_path)[1]
        assert [one.state for one in status.cells] == ["done", "running", "waiting"]
        assert status.seconds_left == pytest.approx(24, abs=2)  # 12 s each, as the first took
        told = "\n".join(status.told())
        assert "3 cells: 1 done, 1 running, 0 failed, 1 waiting; about 0:00:2" in told
        assert f"{SPENT} queries (prompts encoded)" in told
        assert "on node-7: random on shapes-small, 1-shot, seed 2" in told
        assert status.to_json()["running"][0]["host"] == "node-7"
    assert standing(grid, tmp_path)[1].counts["waiting"] == 2  # its process is gone


def test_a_cap_over_the_grid_is_never_passed(runs: Runs, tmp_path: Path) -> None:
    grid = cells(tmp_path, range(1, 9), max_queries=150)
    totals = total_caps({"queries": 460})
    done, status = execute(grid, tmp_path, LocalEngine(), Watch(), totals)
    # 100 each, but 150 may be: a fifth one is not begun with 60 left.
    assert [one.folder is not None for one in done] == [True] * 4 + [False] * 4
    assert {type(one.error) for one in done[4:]} == {BudgetTooSmall}
    (said,) = status.failures()
    assert "what is left of 460 queries (prompts encoded) for the whole grid does not" in said
    assert "400 of 460 for the whole grid are spent" in " ".join(status.told())
    assert standing(grid, tmp_path, totals)[1].counts["waiting"] == 4
    again, _ = execute(grid, tmp_path, LocalEngine(), Watch(), {"queries": 551})
    assert sum(one.folder is not None for one in again) == 5


def test_what_others_began_counts_until_it_is_done(runs: Runs, tmp_path: Path) -> None:
    one, two = (dataclasses.replace(job(seed), most={"queries": 60}) for seed in (1, 2))
    purse = Purse(tmp_path, {"queries": 100}, {each.key: each.most for each in (one, two)})
    known = Known(tmp_path)
    purse.admit(one, known)
    purse.admit(one, known)  # it was
    with pytest.raises(BudgetTooSmall):
        purse.admit(two, known)
    assert purse.spent(known) == {"queries": 60}
    with Room(tmp_path, one.key).locked():
        Room(tmp_path, one.key).begin()
        assert not purse.admit(two, known)  # it may come to less
    purse.give_back(one)
    assert purse.admit(two, known)
    with (tmp_path / CELLS / "begun").open("a") as file:
        file.write("+torn")
    assert purse.spent(known) == {"queries": 60}


def test_a_bound_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--max-total on seconds needs --max-seconds"):
        standing(cells(tmp_path), tmp_path, {"seconds": 9.0})
    standing(cells(tmp_path, max_seconds=3.0), tmp_path, {"seconds": 9.0})
    standing(cells(tmp_path), tmp_path, {"llm_usd": 1.0, "queries": 9.0})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("usdd=5", "'usdd' is no cap; did you mean 'usd'"),
        ("usd=five", "is no amount, such as usd=5"),
        ("usd=-1", "is no amount"),
        ("usd=inf", "is no amount"),
        ("usd", "not of the form KEY=VALUE"),
        ("seconds=9", "needs --max-seconds"),
    ],
)
def test_wrong_caps_over_the_grid_are_refused(given: str, said: str, tmp_path: Path) -> None:
    words = ["compare", "--optimizer", "random", "--runs", str(tmp_path), "--max-total", given]
    found = CliRunner().invoke(app, words).exception
    assert isinstance(found, ConfigError)
    assert said in str(found)


@fuzz(text=st.text(), amount=st.text() | st.floats())
def test_any_cap_is_one_or_is_refused(text: str, amount: Any) -> None:
    try:
        (found,) = total_caps({text: amount}).values()
    except ConfigError:
        return
    assert 0 <= found < float("inf")


@fuzz(
    content=st.binary(max_size=200)
    | st.fixed_dictionaries(
        {},
        optional={
            "error": st.none() | st.text(),
            "code": st.none() | st.integers() | st.text(),
            "host": st.text(),
            "since": st.floats() | st.text(),
        },
    ).map(lambda found: json.dumps(found).encode())
)
def test_whatever_stands_in_a_room_is_read(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        read_room(Path(folder), content)


def read_room(root: Path, content: bytes) -> None:
    room = Room(root, "0" * 64)
    with room.locked():
        for name in ("failed.json", "worker.json", "../begun"):
            (room.path / name).write_bytes(content)
        error, worker = room.error(), room.worker()
        assert error is None or 0 < error.exit_code < 126
        assert worker is None or worker.seconds >= 0
    Purse(root, {"queries": 1}, {}).spent(Known(root))


def test_models_and_data_sets_are_opened_one_after_the_other() -> None:
    made = [
        job(seed, model=model, dataset=dataset)
        for seed in (1, 2)
        for dataset in ("shapes-small", "shapes-blue")
        for model in ("RN50", "ViT-B-32")
    ]
    ordered = grouped(made)
    models = [one.config.model for one in ordered]
    assert models == ["RN50"] * 4 + ["ViT-B-32"] * 4
    assert [one.config.dataset for one in ordered[:4]] == ["shapes-small"] * 2 + ["shapes-blue"] * 2
    queue = Queue(ordered)
    assert queue.take({ordered[7].model}) is ordered[4]
    assert queue.take(()) is ordered[0]
    assert len(queue) == 6


def test_runs_that_came_since_are_known(tmp_path: Path) -> None:
    known = Known(tmp_path / "none yet")
    assert known.find("x") is None
    known = Known(tmp_path)
    first = paper_run(tmp_path)
    (tmp_path / "half").mkdir()  # being created: its config is written last
    found = key(run_folder.read_run_config(first))
    assert known.find(found) == first
    assert known.spent(first)["seconds"] == 12.0
    (first / "config.toml").unlink()
    assert known.find(found) is None


def test_engines_and_numbers_of_jobs_are_told_apart() -> None:
    assert parse_jobs("auto") == "auto"
    assert choose_engine("local", Workers(parse_jobs("3"))) == LocalEngine(3)
    for text in ("0", "-1", "many", "1.5", "٣"):
        with pytest.raises(ConfigError, match="or auto"):
            parse_jobs(text)
    with pytest.raises(ConfigError, match="did you mean 'local'"):
        choose_engine("locally", Workers())


def test_any_object_can_be_an_engine(runs: Runs, tmp_path: Path) -> None:
    class Backwards:
        def run(
            self, jobs: Sequence[Job], known: Known, purse: Purse, watch: Watch, report: Report
        ) -> None:
            for one in reversed(jobs):
                report(Ended(one, error=LlmoptError("no")))

    found = llmopt.compare(
        ["random"], seeds=[1], config=RunConfig(runs=str(tmp_path)), engine=LocalEngine("auto")
    )
    assert found.status is not None
    assert found.status.whole
    found = llmopt.compare(
        ["random"], seeds=[1, 2], config=RunConfig(runs=str(tmp_path)), engine=Backwards()
    )
    assert [one.error is None for one in found.done] == [True, False]


def test_the_command_line_shows_where_it_stands(runs: Runs, tmp_path: Path) -> None:
    asked = ["compare", "--optimizer", "random", "--seed", "1-3", "--runs", str(tmp_path), "-q"]
    runs.fails = {3}
    before = CliRunner().invoke(app, [*asked, "--status"])
    assert before.exit_code == UNFINISHED
    assert "3 cells: 0 done, 0 running, 0 failed, 3 waiting." in before.output
    assert not runs.started
    assert isinstance(CliRunner().invoke(app, asked).exception, ServiceError)
    half = CliRunner().invoke(app, [*asked, "--status", "--json"])
    assert half.exit_code == UNFINISHED
    status = json.loads(half.output)["status"]
    assert status["cells"] == {"done": 2, "running": 0, "failed": 1, "waiting": 0}
    assert status["spent"]["queries"] == 2 * SPENT
    assert not status["whole"]
    (failed,) = status["failed"]
    assert failed["error"] == "the service is gone"
    runs.fails = set()
    assert CliRunner().invoke(app, asked).exit_code == 0
    whole = CliRunner().invoke(app, [*asked, "--status", "--follow"])
    assert whole.exit_code == 0
    assert "random" in whole.output
    wrong = CliRunner().invoke(app, [*asked, "--follow"]).exception
    assert isinstance(wrong, ConfigError)


def test_an_arm_that_starts_from_another_is_planned_once_that_is_done(
    runs: Runs, tmp_path: Path
) -> None:
    grid, _ = hold_equal(
        cells(tmp_path, [1], "random", "both=chat,after=random", max_queries=500), "queries"
    )
    assert [one.state for one in standing(grid, tmp_path)[1].cells] == ["waiting"] * 2
    execute(grid[:1], tmp_path, LocalEngine(), Watch())
    status = standing(grid, tmp_path)[1]
    assert [one.state for one in status.cells] == ["done", "waiting"]
    execute(grid, tmp_path, LocalEngine(), Watch())
    assert standing(grid, tmp_path)[1].whole
    assert runs.started[-1].max_queries == 500 - SPENT
