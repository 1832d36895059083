"""kill -9 in a continuous search: ``llmopt resume`` ends like an undisturbed run, to the bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.usefixtures("shared_cache")

SEARCHES = {
    "craft": ("budget=200", "population=8"),
    "craft released": ("profile=released", "budget=400"),
    "bbt": ("budget=200", "population=8"),
    "bptvlm": ("budget=200", "population=8"),
    "cbbt": ("budget=200", "directions=4"),
    "cbbt released": ("profile=released", "epochs=15", "directions=8"),
    "zip": ("budget=400",),
    "coop": ("epochs=30",),
}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from llmopt.cli.app import main; main()", *arguments]


def begin(search: str, runs: Path) -> subprocess.Popen[bytes]:
    optimizer = search.split()[0]
    settings = [f"--set={setting}" for setting in SEARCHES[search]]
    return subprocess.Popen(
        command("run", f"--optimizer={optimizer}", *settings, f"--runs={runs}", "--quiet"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def steps_in(runs: Path) -> int:
    return sum(
        '"kind": "step"' in line or '"kind": "generation"' in line
        for journal in runs.glob("*/journal.jsonl")
        for line in journal.read_text(errors="replace").splitlines()
    )


def outcome(runs: Path) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """The result without what may differ, and the predictor."""
    (folder,) = runs.iterdir()
    result = json.loads((folder / "result.json").read_text())
    for part in ("run", "seconds"):
        result.pop(part)
    return result, load_file(folder / "predictor.safetensors")


@cache
def undisturbed(search: str) -> tuple[dict[str, Any], dict[str, Any], int]:
    """What a run ends with that nobody disturbs, and its steps."""
    runs = Path(mkdtemp()) / "runs"
    assert begin(search, runs).wait(timeout=300) == 0
    return *outcome(runs), steps_in(runs)


def kill_and_resume(search: str, share: float, runs: Path) -> None:
    """Kill a run after a share of its steps, and go on."""
    expected, predictor, steps = undisturbed(search)
    process = begin(search, runs)
    while steps_in(runs) < share * steps and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = runs.iterdir()
    resumed = subprocess.run(
        command("resume", str(folder), "--quiet"),
        capture_output=True,
        timeout=300,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert resumed.returncode == 0, resumed.stderr.decode()
    result, found = outcome(runs)
    assert result == expected
    assert found.keys() == predictor.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, predictor[name])


@pytest.mark.long
@pytest.mark.parametrize(("search", "share"), [("craft", 0.3), ("zip", 0.7)])
def test_a_killed_search_ends_like_an_undisturbed_one(
    search: str, share: float, tmp_path: Path
) -> None:
    kill_and_resume(search, share, tmp_path / "runs")


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("point", range(5))
def test_every_search_at_five_moments(search: str, point: int, tmp_path: Path) -> None:
    share = random.Random(f"{search} {point}").uniform(0, 1)
    kill_and_resume(search, share, tmp_path / "runs")
