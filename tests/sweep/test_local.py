"""Workers of this machine: whenever their parent is killed, nothing is lost and none of them stays.

Other ways to end it are tried in ``tests/e2e/test_kill_compare.py``.
"""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

import grids
import pytest
from hostile_server import HostileServer

from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch
from llmopt.sweep.local import _Worker
from llmopt.sweep.purse import Purse
from llmopt.sweep.room import Room
from llmopt.sweep.work import Job, Known


@pytest.mark.slow
@pytest.mark.usefixtures("shared_cache")
@pytest.mark.parametrize("point", range(20))
def test_the_parent_is_killed(point: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPT_TEST", uuid.uuid4().hex)
    wanted, requests = grids.serial(4)
    with HostileServer(latency=grids.LATENCY) as server:
        words = [*grids.options(server, tmp_path / "runs", 4), "--jobs=3"]
        first = grids.begin(*words)
        grids.at_a_random_moment(server, first, point, requests)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate()
        assert grids.table(grids.begin(*words)) == wanted
        grids.nothing_paid_twice(server, tmp_path / "runs", 4, in_flight=6)
    grids.wait_for(lambda: not grids.named(os.environ["LLMOPT_TEST"]), 5)


def test_why_a_worker_died_stands_in_its_cell(tmp_path: Path) -> None:
    """So that another process that looks at the sweep is told, too."""
    job = Job("a cell", RunConfig(runs=str(tmp_path)))
    worker = _Worker(Known(tmp_path), Purse(tmp_path), 1, "")
    worker.give(job)
    worker._process.kill()
    ended = worker.hear(Watch())
    assert ended is not None
    assert "exit code -9" in str(ended.error)
    assert str(Room(tmp_path, job.key).error()) == str(ended.error)
