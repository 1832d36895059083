"""Runs a search, killing it for good (SIGKILL) at instants of its choice, and resumes it.

``python kill_driver.py ROOT POINT...``: ``ROOT/data`` holds the fakes' world. The run has so many
instants (before, amid and after each journal line, around each file put in place, at each call to
the black box); each POINT between 0 and 1 is one of them. A POINT may be a list ``0.3,0.7``: the
resumed run is killed as well. One JSON line a POINT comes out, the undisturbed run's first.

A program of its own, because it forks: in a process without threads nothing else is safe.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from running import resume, start
from worlds import config

from llmopt.language.builtin import BuiltinRewriter
from llmopt.runs.compose import ModelChoice
from llmopt.spend import journal
from llmopt.spend.events import Watch
from llmopt.testing.world import FakeBox


class Clock:
    """Counts instants and ends the process at one of them."""

    def __init__(self) -> None:
        self.count, self.last = 0, -1

    def __call__(self) -> bool:
        """Whether this is the last instant."""
        self.count += 1
        return self.count == self.last

    def tick(self) -> None:
        if self():
            os.kill(os.getpid(), signal.SIGKILL)


clock = Clock()
calls: list[Path] = []
"""The file that calls to the language model are noted in, by the newest run."""


def rig() -> None:
    """Put an instant everywhere it may hurt."""
    append = journal.Journal._append

    def torn_append(self: journal.Journal, record: dict[str, Any]) -> None:
        clock.tick()
        if clock():
            line = json.dumps({"at": 0.0, **record}).encode()
            with self.path.open("ab") as file:
                file.write(line[: 1 + clock.count % len(line)])
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, record)
        clock.tick()

    replace = Path.replace

    def replace_between(self: Path, target: Any) -> Any:
        clock.tick()
        done = replace(self, target)
        clock.tick()
        return done

    generate = BuiltinRewriter._generate

    def counted(self: BuiltinRewriter, *args: Any, **kwargs: Any) -> Any:
        with calls[-1].open("a") as file:
            file.write("call\n")
        clock.tick()
        return generate(self, *args, **kwargs)

    journal.Journal._append = torn_append  # type: ignore[method-assign]
    Path.replace = replace_between  # type: ignore[method-assign, assignment]
    BuiltinRewriter._generate = counted  # type: ignore[method-assign]

    def open_box(*args: Any) -> FakeBox:
        box = FakeBox()
        box.before = clock.tick
        return box

    ModelChoice.open = open_box  # type: ignore[method-assign]


def in_child(work: Callable[[], object]) -> bool:
    """Run ``work`` in a fork; whether it came to its end rather than being killed."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0, "the run failed"
    return True


class Warned(Watch):
    """Warnings of a run, one a line of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def warn(self, text: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{text}\n")


def play(root: Path, name: str, kills: list[int]) -> dict[str, Any]:
    """A run in ``root/name``, killed at each of ``kills`` in turn, then left to end."""
    home = root / name
    home.mkdir()
    log, warnings = home / "calls", home / "warnings"
    os.environ["LLMOPT_CACHE"] = str(home / "cache")

    calls.append(log)
    settings = {"probes": 0, "restarts": 2, "iterations": 2, "pool": 3, "proposals": 3}
    wanted = config(root, seed=6, settings=settings)
    wanted = type(wanted).make({**vars(wanted), "runs": str(home / "runs")})

    def sitting(last: int) -> Callable[[], None]:
        def work() -> None:
            clock.count, clock.last = 0, last
            found = sorted((home / "runs").glob("*/config.toml"))
            if found:
                resume(found[0].parent, Warned(warnings))
            else:
                start(wanted, Warned(warnings))
            (home / "instants").write_text(str(clock.count))

        return work

    killed = 0
    for last in [*kills, -1]:
        if in_child(sitting(last)):
            break
        killed += 1
    (folder,) = [path.parent for path in (home / "runs").glob("*/result.json")]
    return {
        "killed": killed,
        "instants": int((home / "instants").read_text()),
        "calls": len(log.read_text().splitlines()),
        "warnings": warnings.read_text().splitlines() if warnings.exists() else [],
        "folder": str(folder),
        "left": sorted(path.name for path in folder.iterdir()),
        "result": json.loads((folder / "result.json").read_text()),
    }


def main() -> None:
    root, *points = sys.argv[1:]
    rig()
    whole = play(Path(root), "whole", [])
    print(json.dumps(whole), flush=True)
    for number, point in enumerate(points):
        kills = [1 + int(float(part) * whole["instants"]) for part in point.split(",")]
        print(json.dumps(play(Path(root), f"cut-{number}", kills)), flush=True)


if __name__ == "__main__":
    main()
