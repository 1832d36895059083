"""How a run tells where it stands: calls to a :class:`Watch`, or typed events to functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        start_accuracy: of the start on the training images; filled in by the engine.
    """

    step: int
    steps: int
    best: str
    train_accuracy: float | None = None
    val_accuracy: float | None = None
    score: float | None = None
    note: str = ""
    start_accuracy: float | None = None


@dataclass(frozen=True)
class Started:
    """The run folder is there and the search begins, or goes on."""

    folder: Path
    ledger: Ledger


@dataclass(frozen=True)
class Stage:
    """Something that takes a while begins."""

    text: str


@dataclass(frozen=True)
class ImagesEncoded:
    """Images encoded so far, of those that no cache has."""

    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """Something worth a line; with ``warning``, something that may be wrong."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Finished:
    """The run is over; ``result`` is the content of its ``result.json``."""

    result: Mapping[str, Any]


Event = Started | Stage | ImagesEncoded | Progress | Note | Finished


class Watch:
    """What a run calls as it goes; override what you want to hear, or all of it in :meth:`tell`."""

    def tell(self, event: Event) -> None:
        """Whatever is not heard by a method of its own."""

    def started(self, folder: Path, ledger: Ledger) -> None:
        """The run folder is there and the search begins, or goes on."""
        self.tell(Started(folder, ledger))

    def stage(self, text: str) -> None:
        """Something that takes a while begins."""
        self.tell(Stage(text))

    def images(self, done: int, total: int) -> None:
        """Images encoded so far, of those that no cache has."""
        self.tell(ImagesEncoded(done, total))

    def progress(self, progress: Progress) -> None:
        """The search has come further."""
        self.tell(progress)

    def note(self, text: str) -> None:
        """Something worth a line."""
        self.tell(Note(text))

    def warn(self, text: str) -> None:
        """Something that may be wrong."""
        self.tell(Note(text, warning=True))

    def finished(self, result: Mapping[str, Any]) -> None:
        """The run is over."""
        self.tell(Finished(result))


class Watches(Watch):
    """Several that hear the same, in turn.

    Args:
        hearers: watches, and functions that take an :data:`Event`.
    """

    def __init__(self, hearers: Iterable[Watch | Callable[[Event], None]]) -> None:
        self._hearers = tuple(hearers)

    def tell(self, event: Event) -> None:
        """Pass it on."""
        for hearer in self._hearers:
            if not isinstance(hearer, Watch):
                hearer(event)
                continue
            match event:
                case Started(folder, ledger):
                    hearer.started(folder, ledger)
                case Stage(text):
                    hearer.stage(text)
                case ImagesEncoded(done, total):
                    hearer.images(done, total)
                case Progress():
                    hearer.progress(event)
                case Note(text, warning):
                    (hearer.warn if warning else hearer.note)(text)
                case Finished(result):
                    hearer.finished(result)
