"""kill -9 in the middle of a paid conversation: the same result, and no answered call repeated."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hostile_server import HostileServer, wait_until_idle

from llmopt.language.records import INTENT, REPLY
from llmopt.spend.journal import read_journal

TURNS = 6
LOST = ("llm_calls_lost", "llm_tokens_lost", "llm_usd_lost")


def start(server: HostileServer, path: Path) -> subprocess.Popen[str]:
    talk = Path(__file__).with_name("talk.py")
    command = [sys.executable, str(talk), server.url, str(path), str(TURNS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    result: dict[str, Any] = json.loads(out)
    return result


def without_lost(ledger: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in ledger.items() if name not in LOST}


@pytest.mark.slow
def test_killed_at_random_points(tmp_path: Path) -> None:
    rng = random.Random(0)
    with HostileServer(latency=0.04) as server:
        undisturbed = finish(start(server, tmp_path / "whole.jsonl"))
        assert undisturbed["ledger"]["llm_calls"] == server.requests == TURNS
        for number in range(40):
            path = tmp_path / f"{number}.jsonl"
            before = server.requests
            process = start(server, path)
            goal = before + rng.randrange(1, TURNS + 1)
            while server.requests < goal and process.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.random() * 0.08)
            process.kill()
            process.communicate()
            wait_until_idle(server)

            records = list(read_journal(path))
            answered = sum(r["kind"] == REPLY for r in records)
            in_flight = sum(r["kind"] == INTENT for r in records) - answered
            spent_before = server.requests - before
            assert answered <= spent_before <= answered + in_flight
            assert in_flight <= 1

            resumed = finish(start(server, path))
            assert resumed["replies"] == undisturbed["replies"]
            assert without_lost(resumed["ledger"]) == without_lost(undisturbed["ledger"])
            assert resumed["ledger"]["llm_calls_lost"] == in_flight
            assert server.requests - before == spent_before + TURNS - answered
