"""kill -9 at any moment: ``llmopt resume`` ends like an undisturbed run and repeats no paid call.

The real command line and the real OpenAI client talk to a local server that counts requests.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hostile_server import HostileServer

pytestmark = pytest.mark.usefixtures("shared_cache")

LATENCY = 0.05
OPTIONS = (
    # Four conversations at the same time, of three turns each.
    "--shots=4", "--set=probes=0", "--set=restarts=4", "--set=pool=6", "--set=proposals=1",
    "--llm=openai:scripted", "--llm-set=cache=false", "--quiet",
)  # fmt: skip
LOST = ("llm_calls_lost", "llm_tokens_lost", "llm_usd_lost")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from llmopt.cli.app import main; main()", *arguments]


def begin(url: str, runs: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command("run", *OPTIONS, f"--llm-base-url={url}", f"--runs={runs}"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def result_of(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """A result without what may differ, and what was lost in flight."""
    result = json.loads((folder / "result.json").read_text())
    lost = {name: result["ledger"].pop(name) for name in LOST}
    for part in ("run", "seconds"):
        result.pop(part)
    return result, lost


def folder_in(runs: Path) -> Path:
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """The result of a run nobody disturbs, and how many requests it makes."""
    runs = tmp_path_factory.mktemp("undisturbed") / "runs"
    with HostileServer(latency=LATENCY) as server:
        assert begin(server.url, runs).wait(timeout=120) == 0
        asked = server.requests
    result, lost = result_of(folder_in(runs))
    assert result["ledger"]["llm_calls"] == asked > 8
    assert not any(lost.values())
    return result, asked


def kill_and_resume(
    requests: int, after: float, tmp_path: Path, undisturbed: tuple[dict[str, Any], int]
) -> None:
    """Kill a run some time after the server has seen so many requests, and go on."""
    expected, asked = undisturbed
    runs = tmp_path / "runs"
    with HostileServer(latency=LATENCY) as server:
        process = begin(server.url, runs)
        while server.requests < requests and process.poll() is None:
            time.sleep(0.002)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.wait()
        resumed = subprocess.run(
            command("resume", str(folder_in(runs)), "--quiet"),
            capture_output=True,
            timeout=120,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert resumed.returncode == 0, resumed.stderr.decode()
        result, lost = result_of(folder_in(runs))
        assert result == expected
        # No call was repeated but those that were in flight, and those are in the ledger.
        assert lost["llm_calls_lost"] <= 4
        assert asked <= server.requests <= asked + lost["llm_calls_lost"]


@pytest.mark.parametrize(
    ("requests", "after"), [pytest.param(1, 0.0, marks=pytest.mark.long), (8, 0.2)]
)
def test_a_killed_run_ends_like_an_undisturbed_one(
    requests: int, after: float, tmp_path: Path, undisturbed: tuple[dict[str, Any], int]
) -> None:
    kill_and_resume(requests, after, tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("point", range(40))
def test_forty_random_moments(
    point: int, tmp_path: Path, undisturbed: tuple[dict[str, Any], int]
) -> None:
    dice = random.Random(point)
    requests = dice.randint(1, undisturbed[1])
    kill_and_resume(requests, dice.uniform(0, 2 * LATENCY), tmp_path, undisturbed)
