"""What a tracker does, and the watch that tells it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmopt.spend.events import Progress, Watch
from llmopt.spend.ledger import Ledger

Value = str | int | float | bool


class Tracker(ABC):
    """A place where settings, curves and files of runs are kept."""

    @abstractmethod
    def start(self, name: str, settings: Mapping[str, Value]) -> None:
        """A run begins, or goes on."""

    @abstractmethod
    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Points of its curves."""

    @abstractmethod
    def finish(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """The run is over: its final figures, and files worth keeping."""


class Tracking(Watch):
    """A watch that tells a tracker.

    Args:
        tracker: told until it fails.
        warn: told if it does.
        name: of the tracker, for the warning.
        settings: of the run.
    """

    def __init__(
        self,
        tracker: Tracker,
        warn: Callable[[str], None],
        name: str,
        settings: Mapping[str, Value],
    ) -> None:
        self._complain = warn
        self._tracker: Tracker | None = tracker
        self._name = name
        self._settings = settings
        self._ledger: Ledger | None = None
        self._folder: Path | None = None

    def started(self, folder: Path, ledger: Ledger) -> None:
        """Start the tracker's run."""
        self._folder, self._ledger = folder, ledger
        self._tell(lambda tracker: tracker.start(folder.name, self._settings))

    def progress(self, progress: Progress) -> None:
        """Log where the search stands and what it has spent."""
        known = {
            "train_accuracy": progress.train_accuracy,
            "val_accuracy": progress.val_accuracy,
            "score": progress.score,
        }
        figures = {name: float(v) for name, v in known.items() if v is not None}
        if self._ledger is not None:
            spent = self._ledger.snapshot()
            figures |= {f"spent/{name}": float(v) for name, v in spent.items() if v}
        self._tell(lambda tracker: tracker.log(figures, progress.step))

    def finished(self, result: Mapping[str, Any]) -> None:
        """Log the result and the files of the run folder."""
        figures = {
            f"{side}/{name}": float(value)
            for side in ("baseline", "best", "gain", "seconds")
            for name, value in result[side].items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        figures |= {f"spent/{name}": float(v) for name, v in result["ledger"].items() if v}
        folder = self._folder
        files = sorted(folder.glob("[!.]*.*")) if folder is not None else []
        self._tell(lambda tracker: tracker.finish(figures, files))

    def _tell(self, what: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            what(self._tracker)
        except Exception as error:  # whatever a tracker does wrong, the run goes on
            self._tracker = None
            self._complain(
                f"{self._name} failed ({type(error).__name__}: {error}); the run goes on without it"
            )
