"""Where a sweep stands, read from the folders: any process can tell, whoever runs it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Literal

from llmopt.errors import LlmoptError
from llmopt.runs.whole import flags
from llmopt.spend.currency import CAPS, amount
from llmopt.sweep.purse import Purse
from llmopt.sweep.room import Room, Worker
from llmopt.sweep.work import Amounts, Job, Known

State = Literal["done", "running", "failed", "waiting"]
_NAMED: Final = 20  # cells that one sentence lists
STATES: Final[tuple[State, ...]] = ("done", "running", "failed", "waiting")


@dataclass(frozen=True)
class Standing:
    """A cell, as its folders tell.

    Attributes:
        title: for people.
        state: where it stands.
        folder: its run, if it was begun.
        error: why it failed.
        command: runs this cell alone.
        worker: who is at it.
    """

    title: str
    state: State
    folder: Path | None = None
    error: LlmoptError | None = None
    command: str = ""
    worker: Worker | None = None


@dataclass(frozen=True)
class Status:
    """A whole sweep.

    Attributes:
        cells: each of them.
        spent: by the name of each cap, what finished cells spent.
        caps: over the whole sweep, by name; ``reserved`` is what stands against them: what finished
            cells spent and the most that begun ones may.
        seconds_left: until the end, with as many workers as there are now; None if not known.
    """

    cells: tuple[Standing, ...]
    spent: Amounts
    caps: Amounts
    reserved: Amounts
    seconds_left: float | None

    @property
    def counts(self) -> dict[State, int]:
        """Cells in each state."""
        found = Counter(one.state for one in self.cells)
        return {state: found[state] for state in STATES}

    @property
    def whole(self) -> bool:
        """Whether every cell is done."""
        return self.counts["done"] == len(self.cells)

    def among(self, state: State) -> list[Standing]:
        """The cells in a state."""
        return [one for one in self.cells if one.state == state]

    def failures(self) -> list[str]:
        """A sentence for all cells that failed alike, with the command that repeats one."""
        alike: dict[str, list[Standing]] = {}
        for one in self.among("failed"):
            alike.setdefault(str(one.error), []).append(one)
        return [
            f"{_titles(failed)} failed: {error}; again: {failed[0].command}"
            for error, failed in alike.items()
        ]

    def told(self) -> list[str]:
        """Sentences: how far it is, what was spent, and who has been at what for how long."""
        counts = ", ".join(f"{count:,} {state}" for state, count in self.counts.items())
        left = "" if self.seconds_left is None else f"; about {_time(self.seconds_left)} left"
        spent = [
            amount(name, value) if cap.unit == "USD" else f"{amount(name, value)} {cap.label}"
            for name, cap in CAPS.items()
            if (value := self.spent[name])
        ]
        lines = [f"{len(self.cells):,} cells: {counts}{left}."]
        if spent:
            lines.append(f"Spent by those that are done: {', '.join(spent)}.")
        lines += [
            f"{CAPS[name].label}: {amount(name, self.reserved[name])} of {amount(name, cap)} for "
            "the whole grid are spent, or put aside for cells that were begun."
            for name, cap in self.caps.items()
        ]
        at_work = [(one.worker.seconds, one) for one in self.cells if one.worker is not None]
        at_work.sort(key=lambda one: -one[0])
        lines += [
            f"running for {_time(seconds)} on {one.worker.host}: {one.title}"
            for seconds, one in at_work[:_NAMED]
            if one.worker is not None
        ]
        return lines

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "cells": self.counts,
            "whole": self.whole,
            "running": [
                {"title": one.title, "host": one.worker.host, "seconds": one.worker.seconds}
                for one in self.among("running")
                if one.worker is not None
            ],
            "failed": [
                {"title": one.title, "error": str(one.error), "command": one.command}
                for one in self.among("failed")
            ],
            "seconds_left": self.seconds_left,
            "spent": dict(self.spent),
            "caps": dict(self.caps),
            "reserved": dict(self.reserved),
        }


def look(
    jobs: Sequence[Job],
    known: Known,
    purse: Purse,
    errors: Mapping[int, LlmoptError] | None = None,
) -> Status:
    """Where cells stand now.

    Args:
        jobs: the cells.
        known: the runs there are.
        purse: what all of them may spend.
        errors: by the place of a cell, why it was not run just now; no folder may tell.
    """
    known.refresh()
    errors = errors or {}
    cells = tuple(_standing(job, known, errors.get(place)) for place, job in enumerate(jobs))
    runs = {one.folder for one in cells if one.state == "done" and one.folder is not None}
    spent = {name: sum(known.spent(run)[name] for run in runs) for name in CAPS}
    return Status(cells, spent, purse.caps, purse.spent(known), _left(jobs, cells, known))


def _standing(job: Job, known: Known, error: LlmoptError | None) -> Standing:
    folder = known.last(job.key)
    if folder is not None and known.finished(folder):
        return Standing(job.title, "done", folder)
    room = Room(known.root, job.key)
    if (worker := room.worker()) is not None:
        return Standing(job.title, "running", folder, worker=worker)
    error = error or room.error()
    if error is None:
        return Standing(job.title, "waiting", folder)
    command = ["resume", str(folder)] if folder else ["run", *flags(job.config)]
    return Standing(job.title, "failed", folder, error, shlex.join(["llmopt", *command]))


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _titles(cells: Sequence[Standing]) -> str:
    first, more = cells[:_NAMED], len(cells) - _NAMED
    return "; ".join(one.title for one in first) + (f" and {more:,} more" if more > 0 else "")


def _left(jobs: Sequence[Job], cells: Sequence[Standing], known: Known) -> float | None:
    """Seconds until the running and waiting ones are done, if those are like their kind."""
    took: dict[str, list[float]] = {}
    for job, one in zip(jobs, cells, strict=True):
        if one.state == "done" and one.folder is not None:
            took.setdefault(job.config.optimizer, []).append(known.spent(one.folder)["seconds"])
    workers = sum(one.state == "running" for one in cells)
    if not took or not workers:
        return None
    usual = fmean(seconds for group in took.values() for seconds in group)
    mean = {name: fmean(group) for name, group in took.items()}
    left = 0.0
    for job, one in zip(jobs, cells, strict=True):
        if one.state in ("running", "waiting"):
            whole = mean.get(job.config.optimizer, usual)
            left += whole if one.worker is None else max(0.0, whole - one.worker.seconds)
    return left / workers
