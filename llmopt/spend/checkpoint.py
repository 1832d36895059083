"""Checkpoints of long searches: arrays as safetensors, the rest as JSON, written atomically.

A checkpoint remembers the ledger and how far each stream of the journal had come, so that a run
resumed from it counts and journals exactly as an undisturbed one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmopt.errors import RunFolderError
from llmopt.spend.currency import amounts
from llmopt.spend.files import Stored, keeping, read_arrays, write_arrays

if TYPE_CHECKING:
    import numpy.typing as npt

    from llmopt.spend.journal import Journal
    from llmopt.spend.ledger import Ledger

_PARTS = ("state", "ledger", "journal")


class Checkpoints:
    """The latest checkpoint of a run.

    Args:
        path: the file.
        ledger, journal: saved and set back with it.
        owner: what the run is, in a few words by name; another's checkpoint is refused by them.
        note: told when a checkpoint has no checksum.
    """

    def __init__(
        self,
        path: Path,
        ledger: Ledger,
        journal: Journal,
        owner: Mapping[str, str] | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path = path
        self._ledger = ledger
        self._journal = journal
        self._owner = dict(owner or {})
        self._note = note

    def save(self, tensors: Mapping[str, npt.NDArray[Any]], state: str) -> None:
        """Replace the checkpoint; a crash leaves the old one or the new one, never half.

        Raises:
            RunFolderError: it cannot be written.
        """
        ledger, journal = self._ledger.state(), self._journal.positions()
        texts = {"state": state, "ledger": json.dumps(ledger), "journal": json.dumps(journal)}
        with keeping(self.path):
            write_arrays(self.path, tensors, {**self._owner, **texts})

    def restore(self) -> tuple[dict[str, npt.NDArray[Any]], str] | None:
        """The arrays and the state, or None if there is no checkpoint.

        Raises:
            RunFolderError: it is damaged, or of another run.
        """
        if not self.path.exists():
            return None
        try:
            kept = read_arrays(self.path)
            state, ledger, journal = (kept.texts[name] for name in _PARTS)
            spent, positions = amounts(json.loads(ledger)), _positions(json.loads(journal))
        except (KeyError, RecursionError, ValueError) as error:
            raise self._refused(f"is damaged ({error})") from error
        self._check_owner(kept)
        self._ledger.set_state(spent)
        self._journal.skip(positions)
        return kept.arrays, state

    def _check_owner(self, kept: Stored) -> None:
        if not kept.checked:
            self._note(f"{self.path} has no checksum: damage to it would not be seen")
        for name, own in self._owner.items():
            if kept.checked and (other := kept.texts.get(name)) != own:
                raise self._refused(f"is of another run ({name} {other}, here {own})")

    def _refused(self, why: str) -> RunFolderError:
        return RunFolderError(
            f"the checkpoint {self.path} {why}; delete it to repeat the search from its start, "
            "replies already paid for are kept in the journal"
        )


def _positions(found: object) -> dict[str, int]:
    """Events by stream, as a checkpoint holds them."""
    if isinstance(found, dict) and all(type(n) is int and n >= 0 for n in found.values()):
        return found
    raise ValueError("its places in the journal are no numbers")
