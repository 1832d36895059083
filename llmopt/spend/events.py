"""How a run tells where it stands. The base class keeps quiet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmopt.spend.ledger import Ledger


@dataclass(frozen=True)
class Progress:
    """Where a search stands, for people.

    Attributes:
        step, steps: iterations done and planned.
        best: the best candidate so far, as one line.
        train_accuracy, val_accuracy: its accuracies, fractions; None where not known.
        score: the value candidates are ranked by; higher is better.
        note: anything else worth a few words.
    """

    step: int
    steps: int
    best: str
    train_accuracy: float | None = None
    val_accuracy: float | None = None
    score: float | None = None
    note: str = ""


class Watch:
    """What a run calls as it goes; override what you want to hear."""

    def started(self, folder: Path, ledger: Ledger) -> None:
        """The run folder is there and the search begins, or goes on."""

    def stage(self, text: str) -> None:
        """Something that takes a while begins."""

    def images(self, done: int, total: int) -> None:
        """Images encoded so far, of those that no cache has."""

    def progress(self, progress: Progress) -> None:
        """The search has come further."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
