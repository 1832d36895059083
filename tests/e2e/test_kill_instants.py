"""kill -9 at any instant: the resumed run ends as an undisturbed one and pays for nothing twice."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes import write_folder
from worlds import settled

from llmopt.spend.journal import read_journal

TESTS = Path(__file__).resolve().parents[1]
# The first and the last instants, and some between.
FEW = [0.0, 0.01, 0.17, 0.33, 0.51, 0.71, 0.93, 0.985, 0.999]


def play(root: Path, points: list[str]) -> list[dict[str, Any]]:
    """What ``kill_driver.py`` reports: the undisturbed run, then one run a point."""
    write_folder(root / "data", test=4)
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, TESTS / "e2e" / "kill_driver.py", root, *points],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def events(run: dict[str, Any]) -> list[Any]:
    records = read_journal(Path(run["folder"]) / "journal.jsonl")
    # The stream "run" says where the folder lies.
    kept = (r for r in records if "key" not in r and r["stream"] != "run")
    return [(r["kind"], r["stream"], r["data"]) for r in kept]


def replies(run: dict[str, Any]) -> list[Any]:
    records = read_journal(Path(run["folder"]) / "journal.jsonl")
    return [(r["key"], r["data"]["text"]) for r in records if r["kind"] == "llm_reply"]


def check(whole: dict[str, Any], cut: dict[str, Any], kills: int) -> None:
    assert 1 <= cut["killed"] <= kills
    assert settled(cut["result"]) == settled(whole["result"])
    assert cut["result"]["status"] == "complete"
    assert events(cut) == events(whole)
    assert replies(cut) == replies(whole)
    lost = cut["result"]["ledger"]["llm_calls_lost"]
    assert lost <= kills
    # What was answered is never asked again; a call that was under way is, and counts as lost.
    assert whole["calls"] <= cut["calls"] <= whole["calls"] + lost
    assert cut["warnings"] == []
    assert [name for name in cut["left"] if not name.endswith(".tmp")] == whole["left"]


@pytest.mark.long
def test_a_handful_of_instants(tmp_path: Path) -> None:
    whole, *cuts = play(tmp_path, [*map(str, FEW), "0.4,0.5", "0.2,0.3,0.2"])
    assert whole["instants"] > 60
    assert whole["calls"] == whole["result"]["ledger"]["llm_calls"] == 4
    for cut, kills in zip(cuts, [1] * len(FEW) + [2, 3], strict=True):
        check(whole, cut, kills)
    assert max(cut["killed"] for cut in cuts) > 1
    assert max(cut["result"]["ledger"]["llm_calls_lost"] for cut in cuts) > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_forty_random_instants(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    whole, *cuts = play(tmp_path, [f"{rng.random():.4f}" for _ in range(10)])
    for cut in cuts:
        check(whole, cut, 1)
