"""What a whole sweep may spend, held by all its workers together.

A cell is begun only where what is left covers the most it can take, so that no cap is ever passed.
What was begun stands in a file beside the run folders, until the run there says what it did take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from filelock import FileLock

from llmopt.errors import BudgetTooSmall, ConfigError, nearest
from llmopt.spend.currency import CAPS, amount
from llmopt.spend.files import keeping
from llmopt.sweep.room import CELLS, Room
from llmopt.sweep.work import Amounts, Job, Known

_FILE: Final = "begun"
_SLACK: Final = 1e-9  # sums of prices are not exact in binary

TOTALS: Final = {cap.option.removeprefix("max_"): cap for cap in CAPS.values()}
"""Caps by what they are called in ``--max-total``: as in ``--max-…``, which hold one run."""


@dataclass(frozen=True)
class Purse:
    """Caps over a whole sweep.

    Attributes:
        root: where run folders are.
        caps: by name of the cap; none where the sweep has none.
        most: by the key of each cell of the sweep, what it may spend.
    """

    root: Path
    caps: Amounts = field(default_factory=dict)
    most: Mapping[str, Amounts] = field(default_factory=dict)

    def admit(self, job: Job, known: Known) -> bool:
        """Put aside what a cell may spend, once; whether that can be done now.

        It cannot where that is more than is left while others run, which may turn out to take less.

        Raises:
            BudgetTooSmall: it is more than is left, whatever they take.
        """
        if not self.caps:
            return True
        with self._held():
            begun = self._begun()
            if job.key in begun:
                return True
            known.refresh()
            spent = self._sum(known, begun)
            if self._lacking(job, spent) is None:
                self._note("+", job)
                return True
            running = {k for k in begun if Room(self.root, k).worker() is not None}
            settled = self._sum(known, begun - running)
        if (name := self._lacking(job, settled)) is None:
            return False
        raise BudgetTooSmall(
            f"not begun: what is left of {_told(name, self.caps[name])} for the whole grid does "
            f"not cover the {_told(name, job.most[name])} that this run may take; raise "
            f"--max-total, or lower {CAPS[name].flag}"
        )

    def _lacking(self, job: Job, spent: Amounts) -> str | None:
        """A cap that does not cover a cell beside what is spent."""
        over = (n for n, cap in self.caps.items() if spent[n] + job.most[n] > cap + _SLACK)
        return next(over, None)

    def give_back(self, job: Job) -> None:
        """What was put aside, of a cell that has spent nothing."""
        if self.caps:
            with self._held():
                self._note("-", job)

    def spent(self, known: Known) -> dict[str, float]:
        """By cap: what finished cells spent, and the most that begun ones may."""
        return self._sum(known, self._begun())

    def _sum(self, known: Known, begun: set[str]) -> dict[str, float]:
        total = dict.fromkeys(self.caps, 0.0)
        for key, most in self.most.items():
            run = known.last(key)
            if run is not None and known.finished(run):
                most = known.spent(run)
            elif key not in begun:
                continue
            for name in total:
                total[name] += most[name]
        return total

    def _held(self) -> FileLock:
        (self.root / CELLS).mkdir(parents=True, exist_ok=True)
        return FileLock(self.root / CELLS / f".{_FILE}.lock")

    def _begun(self) -> set[str]:
        """Keys of cells that were begun; a torn line is none."""
        try:
            lines = (self.root / CELLS / _FILE).read_text("ascii", errors="replace").split("\n")
        except FileNotFoundError:
            return set()
        found: set[str] = set()
        for line in lines:
            (found.add if line[:1] == "+" else found.discard)(line[1:])
        return found

    def _note(self, sign: str, job: Job) -> None:
        path = self.root / CELLS / _FILE
        with keeping(path), path.open("a", encoding="ascii") as file:
            file.write(f"\n{sign}{job.key}\n")


def total_caps(amounts: Mapping[str, float | str]) -> dict[str, float]:
    """Caps over a whole sweep by name of the cap, from what people call them (:data:`TOTALS`).

    Raises:
        ConfigError: there is no such cap, or it is no amount.
    """
    found: dict[str, float] = {}
    for name, given in amounts.items():
        cap = TOTALS.get(name.replace("-", "_"))
        if cap is None:
            raise ConfigError(
                f"--max-total {name}={given}: {name!r} is no cap{nearest(name, TOTALS)} "
                f"(there are: {', '.join(TOTALS)})"
            )
        try:
            limit = float(given)
        except (TypeError, ValueError):
            limit = math.nan
        if not 0 <= limit < math.inf:
            raise ConfigError(f"--max-total {name}={given} is no amount, such as {name}=5")
        found[cap.name] = limit
    return found


def _told(name: str, value: float) -> str:
    cap = CAPS[name]
    return amount(name, value) if cap.unit == "USD" else f"{amount(name, value)} {cap.label}"
