"""However ``compare --jobs`` ends, its workers end too, and no cell is run twice.

The real command talks to a local server that counts requests. The second comparison, started at
once, has another key, so that the server knows whose request it is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_server import HostileServer
from worlds import COMMAND

from llmopt.runs.folder import find

pytestmark = pytest.mark.usefixtures("shared_cache")

FIRST, SECOND = "sk-first-first-first", "sk-second-second"
OPTIONS = (
    "--optimizer=chat,probes=0,restarts=2,iterations=4,pool=6,proposals=3",
    "--llm=openai:scripted", "--llm-set=cache=false",
)  # fmt: skip


class Counting(HostileServer):
    """Remembers when who asked."""

    def __init__(self) -> None:
        super().__init__(latency=0.1)
        self.asked: list[tuple[float, str]] = []

    def next_act(self, body: dict[str, Any], authorization: str) -> str:
        self.asked.append((time.monotonic(), authorization.removeprefix("Bearer ")))
        return super().next_act(body, authorization)


def begin(server: Counting, runs: Path, jobs: int, cells: int, key: str) -> subprocess.Popen[str]:
    """A comparison in a process group of its own, as a terminal starts it."""
    options = ["compare", *OPTIONS, f"--jobs={jobs}", f"--seed=1-{cells}"]
    options += [f"--llm-base-url={server.url}", f"--runs={runs}"]
    return subprocess.Popen(
        [*COMMAND, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENAI_API_KEY": key},
        start_new_session=True,
    )


def kill_and_repeat(
    end: Callable[[int], None], requests: int, jobs: int, cells: int, runs: Path
) -> str:
    """End a comparison after so many requests, start the same at once; what the first said."""
    with Counting() as server:
        first = begin(server, runs, jobs, cells, FIRST)
        while server.requests < requests and first.poll() is None:
            time.sleep(0.002)
        end(first.pid)
        ended = time.monotonic()
        second = begin(server, runs, jobs, cells, SECOND)
        said = "\n".join(first.communicate(timeout=60))
        out, err = second.communicate(timeout=240)
        assert second.returncode == 0, err
        assert "Traceback" not in said + out + err
        late = [at - ended for at, key in server.asked if key == FIRST and at > ended + 2]
        assert late == []
    folders = find(runs)
    assert len(folders) == cells
    ledgers = [json.loads((folder / "result.json").read_text())["ledger"] for folder in folders]
    paid = sum(ledger["llm_calls"] for ledger in ledgers)
    lost = sum(ledger["llm_calls_lost"] for ledger in ledgers)
    assert lost <= jobs * 2  # as many as were in flight: each search has two conversations
    assert paid <= server.requests <= paid + lost
    return said


ENDS: dict[str, Callable[[int], None]] = {
    "kill -9": lambda pid: os.kill(pid, signal.SIGKILL),
    "SIGTERM": lambda pid: os.kill(pid, signal.SIGTERM),
    "Ctrl-C": lambda pid: os.killpg(pid, signal.SIGINT),
    "terminal closed": lambda pid: os.killpg(pid, signal.SIGHUP),
    "SIGINT": lambda pid: os.kill(pid, signal.SIGINT),
}


@pytest.mark.long
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    kill_and_repeat(ENDS["kill -9"], requests=3, jobs=2, cells=2, runs=tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("point", range(20))
def test_twenty_moments(point: int, tmp_path: Path) -> None:
    dice = random.Random(point)
    name = sorted(ENDS)[point % len(ENDS)]
    said = kill_and_repeat(ENDS[name], dice.randint(0, 44), 4, 6, tmp_path / "runs")
    if name in ("SIGINT", "SIGTERM", "Ctrl-C") and "[6/6]" not in said:
        assert "interrupted" in said


@pytest.mark.slow
def test_a_worker_that_dies_is_one_failed_run(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Counting() as server:
        first = begin(server, runs, 2, 4, FIRST)
        while server.requests < 3 and first.poll() is None:
            time.sleep(0.002)
        listed = subprocess.run(
            ["ps", "-o", "pid=,args=", "--ppid", str(first.pid)], capture_output=True, text=True
        )
        workers = [line.split()[0] for line in listed.stdout.splitlines() if "spawn_main" in line]
        os.kill(int(workers[0]), signal.SIGKILL)
        _, said = first.communicate(timeout=240)
        assert first.returncode == 4, said
        assert "a process of --jobs ended with exit code -9" in said
        assert "Traceback" not in said
        finished = [folder for folder in find(runs) if (folder / "result.json").exists()]
        assert len(finished) == 3
        second = begin(server, runs, 2, 4, SECOND)
        assert second.communicate(timeout=240)
        assert second.returncode == 0
    assert len(find(runs)) == 4
