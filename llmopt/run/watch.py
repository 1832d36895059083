"""How a run tells people where it stands. The base class keeps quiet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmopt.optimizers.base import Progress
    from llmopt.run.ledger import Ledger


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
