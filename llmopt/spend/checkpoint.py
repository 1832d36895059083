"""Checkpoints of long searches: arrays as safetensors, the rest as JSON, written atomically.

A checkpoint remembers the ledger and how far each stream of the journal had come, so that a run
resumed from it counts and journals exactly as an undisturbed one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llmopt.errors import RunFolderError
from llmopt.spend.files import replace_atomically

if TYPE_CHECKING:
    from llmopt.spend.journal import Journal
    from llmopt.spend.ledger import Ledger


class Checkpoints:
    """The latest checkpoint of a run.

    Args:
        path: the file.
        ledger, journal: saved and set back with it.
    """

    def __init__(self, path: Path, ledger: Ledger, journal: Journal) -> None:
        self.path = path
        self._ledger = ledger
        self._journal = journal

    def save(self, tensors: Mapping[str, npt.NDArray[Any]], state: str) -> None:
        """Replace the checkpoint; a crash leaves the old one or the new one, never half."""
        metadata = {
            "state": state,
            "ledger": json.dumps(self._ledger.state()),
            "journal": json.dumps(self._journal.positions()),
        }
        with replace_atomically(self.path) as temporary:
            save_file({k: v.copy() for k, v in tensors.items()}, temporary, metadata)

    def restore(self) -> tuple[dict[str, npt.NDArray[Any]], str] | None:
        """The arrays and the state, or None if there is no checkpoint."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="numpy") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            state, ledger, journal = metadata["state"], metadata["ledger"], metadata["journal"]
            spent, positions = json.loads(ledger), json.loads(journal)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"the checkpoint {self.path} is damaged ({error}); delete it to repeat the search "
                "from its start, replies already paid for are kept in the journal"
            ) from error
        self._ledger.set_state(spent)
        self._journal.skip(positions)
        return tensors, state
