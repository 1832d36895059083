"""Grids whose cells ask a language model on this machine, which counts what it is asked."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_server import HostileServer
from worlds import COMMAND

from llmopt.runs.folder import find

KEY = "sk-of-nobody-0123456789"
CHAT = "chat,probes=0,restarts=2,iterations=2,pool=6,proposals=3"
ARMS = (CHAT, "random,evaluations=4", "zeroshot")
LATENCY = 0.05

COUNTED = """
import importlib.abc, importlib.util, os, sys

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "llmopt.vision.openclip":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        run = found.loader.exec_module
        def exec_module(module):
            run(module)
            begin = module.OpenClipBlackBox.__init__
            def counted(self, *given, **named):
                with open(os.environ["LOADS"], "a") as file:
                    file.write(f"{os.getpid()}\\n")
                begin(self, *given, **named)
            module.OpenClipBlackBox.__init__ = counted
        found.loader.exec_module = exec_module
        return found

sys.meta_path.insert(0, Hook())
"""
"""A ``sitecustomize`` that notes in a file each time that a model is opened."""


def count_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have programs that start from here note each model they open; the file with a line each."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(COUNTED)
    path = os.pathsep.join([str(folder / "site"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("LOADS", str(folder / "loads"))
    return folder / "loads"


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


@functools.cache
def serial(seeds: int, *arms: str) -> tuple[Any, int]:
    """What one worker finds of a grid, and how often it asks; run once for all tests."""
    with tempfile.TemporaryDirectory() as folder, HostileServer(latency=LATENCY) as server:
        words = options(server, Path(folder), seeds, *arms)
        return table(begin(*words, LOADS=os.devnull), 3000), server.requests


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
    """Wait until the server was asked so often and a little longer, or the comparison has ended."""
    dice = random.Random(seed)
    count = dice.randint(0, most)
    wait_for(lambda: server.requests >= count or process.poll() is not None)
    time.sleep(dice.uniform(0, 2 * LATENCY))


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


def workers(mark: str) -> list[int]:
    """Those with this in their command line, of what was started with our ``LLMOPT_TEST``."""
    found = []
    for pid in named(os.environ["LLMOPT_TEST"]):
        with contextlib.suppress(OSError):
            if mark.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def session(leader: int) -> list[str]:
    """Command lines of what runs of what :func:`begin` has started, long after its end too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, _, leads = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(leads) == leader and state != "Z":
                    found.append((entry / "cmdline").read_text(errors="replace"))
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
