"""What runs in a Ray actor: one worker, with the models it has opened."""

from __future__ import annotations

import dataclasses
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmopt.runs.folder import find
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger
from llmopt.sweep.attempt import Attempts, Ended
from llmopt.sweep.engine import use_threads
from llmopt.sweep.parcel import pack, unpack
from llmopt.sweep.purse import Purse
from llmopt.sweep.room import portable
from llmopt.sweep.work import Job, Known


@dataclass(frozen=True)
class Place:
    """Where the cells of a sweep are kept, as the process knows it that deals them out.

    Attributes:
        root: of run folders, from ``cwd``.
        cwd: the folder of that process.
        token: a file below it with a content of its own: who can read that shares the file system.
        content: of that file.
        purse: what all cells may spend.
        environment: variables for the worker, such as keys of language models.
        threads: for computing; 0 leaves it to torch.
    """

    root: Path
    cwd: Path
    token: Path
    content: str
    purse: Purse
    environment: Mapping[str, str]
    threads: int


@dataclass(frozen=True)
class Answer:
    """What became of a cell.

    Attributes:
        ended: it, with the folder as the worker knows it.
        parcel: that folder, where the file system is not shared.
        notes, warnings: what a person should know.
    """

    ended: Ended
    parcel: bytes | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


class Worker:
    """Runs cells; while it runs one it answers all the same (the actor has several threads)."""

    def __init__(self, place: Place) -> None:
        os.environ.update(place.environment)
        if place.threads:
            use_threads(place.threads)
        self.shared = _reads(place.token, place.content)
        if self.shared:
            os.chdir(place.cwd)
            root, purse = place.root, place.purse
        else:
            root = Path(tempfile.mkdtemp(prefix="llmopt-"))
            purse = Purse(root)
        self._root, self._voice = root, _Voice()
        self._known = Known(root)
        self._attempts = Attempts(self._known, purse, self._voice)

    def about(self) -> tuple[str, bool]:
        """Its machine, and whether it shares the file system."""
        return socket.gethostname(), self.shared

    def run(self, job: Job, begun: tuple[str, bytes] | None = None) -> Answer:
        """Run a cell; ``begun`` is the name and content of its folder, if that is not here."""
        self._voice.begin(job.title)
        if not self.shared:
            self._clear()
            job = dataclasses.replace(
                job, config=dataclasses.replace(job.config, runs=str(self._root))
            )
            if begun is not None:
                unpack(begun[1], self._root / begun[0])
        ended = self._attempts.run(job)
        if ended.error is not None:
            ended = dataclasses.replace(ended, error=portable(ended.error))
        parcel = None if self.shared else self._packed(job)
        return Answer(ended, parcel, tuple(self._voice.notes), tuple(self._voice.warnings))

    def packed(self, job: Job) -> tuple[str, bytes] | None:
        """Name and content of a cell's folder as it stands; None before there is one."""
        parcel, folder = self._packed(job), self._known.last(job.key)
        return (folder.name, parcel) if folder is not None and parcel is not None else None

    def stop(self) -> bool:
        """End after the calls in flight; whether anything is to be waited for."""
        return self._voice.stop()

    def close(self) -> None:
        """Leave nothing behind."""
        if not self.shared:
            shutil.rmtree(self._root, ignore_errors=True)

    def _clear(self) -> None:
        """Remove the folders of earlier cells: whoever asks for another one has them."""
        for folder in find(self._root):
            shutil.rmtree(folder, ignore_errors=True)

    def _packed(self, job: Job) -> bytes | None:
        folder = self._known.find(job.key)
        return None if folder is None else pack(folder)


def _reads(token: Path, content: str) -> bool:
    try:
        return token.read_text(encoding="utf-8") == content
    except (OSError, ValueError):
        return False


class _Voice(Watch):
    """Collects what a person should know of the cell that runs."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._ledger: Ledger | None = None
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._title = ""

    def begin(self, title: str) -> None:
        """Another cell."""
        self._title, self._ledger, self.notes, self.warnings = title, None, [], []

    def stop(self) -> bool:
        """End the search in progress, if there is one."""
        if self._ledger is not None:
            self._ledger.stop()
        return self._ledger is not None

    def started(self, folder: Path, ledger: Ledger) -> None:
        self._ledger = ledger

    def note(self, text: str) -> None:
        self.notes.append(f"{self._title}: {text}")

    def warn(self, text: str) -> None:
        self.warnings.append(f"{self._title}: {text}")
