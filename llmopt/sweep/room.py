"""The folder of a cell beside the run folders: its lock, who runs it, and why it failed.

A run folder cannot hold these: a cell has none before its run begins, and may never get one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from llmopt.errors import LlmoptError, RunFolderError, RunFolderInUse
from llmopt.runs import folder as run_folder
from llmopt.spend.files import keeping, write_text

CELLS: Final = ".cells"
"""Below the run folders."""

_WORKER, _FAILED = "worker.json", "failed.json"
_LONGEST: Final = 4_000  # characters of an error
_CODES: Final = range(1, 126)


@dataclass(frozen=True)
class Worker:
    """Who runs a cell.

    Attributes:
        host: its machine.
        seconds: since it began.
    """

    host: str
    seconds: float


class Room:
    """The folder of the cell with this key.

    Args:
        root: where run folders are.
        key: of the cell.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.path = root / CELLS / key

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the cell for one process.

        Raises:
            RunFolderInUse: another one has it.
            RunFolderError: the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            root = self.path.parent.parent
            raise RunFolderError(
                f"cannot write run folders below {root}: {error.strerror}; choose another --runs"
            ) from error
        with run_folder.locked(self.path):
            yield

    def begin(self, host: str = "") -> None:
        """Somebody runs it, and what failed before is forgotten."""
        self.forget()
        self._write(_WORKER, {"host": host or socket.gethostname(), "since": time.time()})

    def fail(self, error: LlmoptError, sweep: str = "") -> None:
        """Keep why it failed, and in which sweep, until somebody runs it again."""
        told = {"error": str(error)[:_LONGEST], "code": error.exit_code, "sweep": sweep}
        with keeping(self.path):  # its worker may have died before it began
            self.path.mkdir(parents=True, exist_ok=True)
        self._write(_FAILED, told)

    def forget(self) -> None:
        """Nothing is known against it any more."""
        if (self.path / _FAILED).exists():
            with keeping(self.path):
                (self.path / _FAILED).unlink(missing_ok=True)

    def worker(self) -> Worker | None:
        """Who runs it now; None if nobody does."""
        try:
            kept = self._read(_WORKER)
            found = Worker(str(kept["host"])[:100], max(0.0, time.time() - float(kept["since"])))
        except _WRONG:
            return None
        try:
            with run_folder.locked(self.path):
                return None
        except RunFolderInUse:
            return found

    def error(self, sweep: str | None = None) -> LlmoptError | None:
        """Why it failed, in this sweep or any; None if it did not, or nobody can read why."""
        try:
            kept = self._read(_FAILED)
            if sweep is not None and kept["sweep"] != sweep:
                return None
            error, code = LlmoptError(str(kept["error"])[:_LONGEST]), int(kept["code"])
        except _WRONG:
            return None
        error.exit_code = code if code in _CODES else 1
        return error

    def _write(self, name: str, content: dict[str, Any]) -> None:
        with keeping(self.path):
            write_text(self.path / name, json.dumps(content))

    def _read(self, name: str) -> Any:
        with (self.path / name).open("rb") as file:
            return json.loads(os.read(file.fileno(), 2**16))


_WRONG: Final = (OSError, RecursionError, ValueError, KeyError, TypeError, OverflowError)


def portable(error: LlmoptError) -> LlmoptError:
    """The error with its exit code, in a form any process can read."""
    plain = LlmoptError(str(error))
    plain.exit_code = error.exit_code
    return plain
