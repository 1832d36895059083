"""Grids whose cells ask a language model on this machine, which counts what it is asked."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_server import HostileServer
from worlds import COMMAND

from llmopt.runs.folder import find

KEY = "sk-of-nobody-0123456789"
CHAT = "chat,probes=0,restarts=2,iterations=2,pool=6,proposals=3"


def options(server: HostileServer, runs: Path, seeds: int, *arms: str) -> list[str]:
    """Of a comparison with a cell for each arm and seed."""
    return [
        *(f"--optimizer={arm}" for arm in arms or (CHAT,)), f"--seed=1-{seeds}",
        "--llm=openai:scripted", "--llm-set=cache=false", f"--llm-base-url={server.url}",
        f"--runs={runs}", "--json",
    ]  # fmt: skip


def begin(*words: str, **environment: str) -> subprocess.Popen[str]:
    """A comparison in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        [*COMMAND, "compare", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENAI_API_KEY": KEY} | environment,
        start_new_session=True,
    )


def table(process: subprocess.Popen[str], timeout: float = 600) -> Any:
    """What a comparison that went well has found: all but times, places and lost calls."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    assert "Traceback" not in out + err
    found = json.loads(out)
    for row in found["rows"]:
        for name in ("folders", "seconds"):
            del row[name]
        row["spend"] = {k: v for k, v in row["spend"].items() if "lost" not in k}
    assert found["status"]["whole"]
    return found["rows"], found["pairs"]


def nothing_paid_twice(server: HostileServer, runs: Path, cells: int, in_flight: int) -> None:
    """Each answer was asked for once, but for what was in flight when something died."""
    ledgers = [json.loads((folder / "result.json").read_text())["ledger"] for folder in find(runs)]
    assert len(ledgers) == cells
    paid = sum(ledger["llm_calls"] for ledger in ledgers)
    lost = sum(ledger["llm_calls_lost"] for ledger in ledgers)
    assert lost <= in_flight
    assert paid <= server.requests <= paid + lost


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    """Until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def at_a_random_moment(
    server: HostileServer, process: subprocess.Popen[str], seed: int, most: int
) -> None:
    """Wait until the server was asked so often, or the comparison has ended."""
    count = random.Random(seed).randint(0, most)
    wait_for(lambda: server.requests >= count or process.poll() is not None)


def named(text: str) -> list[int]:
    """Processes of this machine whose command line or environment holds a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text.encode() in said:
                found.append(int(entry.name))
    return found


def children(pid: int) -> list[int]:
    """Python processes below a process."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,comm="], capture_output=True, text=True)
    rows = [line.split(None, 2) for line in listed.stdout.splitlines()]
    below, found = {pid}, []
    for _ in range(5):
        for one, parent, name in rows:
            if int(parent) in below and int(one) not in below:
                below.add(int(one))
                if name.startswith("python"):
                    found.append(int(one))
    return found
