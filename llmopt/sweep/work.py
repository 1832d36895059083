"""Cells of a sweep, and the run folders that say which of them are done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from llmopt.runs import folder as run_folder
from llmopt.runs.config import RunConfig
from llmopt.runs.listing import Entry, list_entries, read_entry
from llmopt.runs.same import key
from llmopt.spend.currency import CAPS, Spend
from llmopt.sweep.room import CELLS
from llmopt.vision.boxes import LOCAL

COMPLETE: Final = "complete"

Amounts = Mapping[str, float]
"""By the name of a cap."""


@dataclass(frozen=True)
class Job:
    """A run that is wanted.

    Attributes:
        title: for people.
        config: resolved, as its run folder keeps it.
        most: what it may spend, where the whole sweep has a cap of that.
    """

    title: str
    config: RunConfig
    most: Amounts = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The same for jobs that one run folder finishes."""
        return key(self.config)

    @property
    def remote(self) -> bool:
        """Whether its model is opened elsewhere, and this machine's GPUs are of no use to it."""
        return bool(self.config.blackbox) and not self.config.blackbox.startswith(LOCAL)

    @property
    def model(self) -> tuple[Any, ...]:
        """Equal for jobs that share an open model."""
        c = self.config
        settings = tuple(sorted(c.blackbox_settings.items()))
        return c.model, c.pretrained, c.blackbox, settings, c.device, c.precision, c.decoder


def grouped(jobs: Iterable[Job]) -> list[Job]:
    """By model, then data set, each where it first came, so that both are opened once."""
    first: dict[Any, int] = {}

    def place(job: Job) -> tuple[int, int]:
        one, both = (job.model,), (job.model, job.config.dataset)
        return first.setdefault(one, len(first)), first.setdefault(both, len(first))

    return sorted(jobs, key=place)


class Known:
    """Run folders below ``root`` by the key of their config.

    What was there at first comes from the index of runs; what came since is read once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._seen: set[str] = set()
        self._folders: dict[str, list[Path]] = {}
        self._spent: dict[Path, Amounts] = {}
        for entry in list_entries(root):
            self._add(entry)

    def refresh(self) -> None:
        """Look for folders that have come since."""
        try:
            names = {path.name for path in self.root.iterdir()} - self._seen
        except FileNotFoundError:
            return
        for name in sorted(names - {CELLS}):
            folder = self.root / name
            if (folder / run_folder.CONFIG).is_file():  # it is written last
                self._add(read_entry(folder))

    def find(self, name: str) -> Path | None:
        """The run of a key, as things stand now; of several, a finished one or else the last."""
        self.refresh()
        return self.last(name)

    def last(self, name: str) -> Path | None:
        """As :meth:`find`, among the folders that were there when somebody last looked."""
        folders = [f for f in self._folders.get(name, ()) if (f / run_folder.CONFIG).is_file()]
        return next((f for f in folders if self.finished(f)), folders[-1] if folders else None)

    def finished(self, folder: Path) -> bool:
        """Whether a run is complete."""
        if folder not in self._spent and (folder / run_folder.RESULT).is_file():
            entry = read_entry(folder)
            if entry.summary.status == COMPLETE:
                self._spent[folder] = _spent(entry)
        return folder in self._spent

    def spent(self, folder: Path) -> Amounts:
        """What a finished run spent, under each cap."""
        return self._spent[folder]

    def _add(self, entry: Entry) -> None:
        folder = entry.summary.folder
        self._seen.add(folder.name)
        if not entry.key:
            return  # damaged, or of another version: not one to reuse
        self._folders.setdefault(entry.key, []).append(folder)
        if entry.summary.status == COMPLETE:
            self._spent[folder] = _spent(entry)


def _spent(entry: Entry) -> Amounts:
    spend = Spend.read(entry.summary.ledger or {})
    under = {name: spend.under(name) for name in CAPS if name != "seconds"}
    return {**under, "seconds": entry.seconds}
