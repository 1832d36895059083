"""Answers of a black box in a run folder, so that a run that goes on asks for nothing again.

For boxes that are paid for what they receive: remote ones, and functions. A kept answer is charged
what it took when it was sent, tries that failed included, so that the ledger of a run that was
resumed says what all its sittings sent.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt

from llmopt.spend.files import read_arrays, write_arrays

if TYPE_CHECKING:
    from llmopt.spend.ledger import Ledger

_ANSWER: Final = "answer"
_COST: Final = "cost"
_COUNTED: Final = ("image_encodings", "text_encodings", "pairs_scored", "black_box_calls")


class KeptAnswers:
    """One file a call.

    Args:
        folder: created when first written.
        whose: identity of the box, and what it is asked for; the answers of others are not taken.

    What is asked again in one sitting is sent again: each time has an answer of its own.
    """

    def __init__(self, folder: Path, whose: str) -> None:
        self._folder, self._whose = folder, whose
        self._times: Counter[str] = Counter()

    def has(self, asked: Sequence[Any]) -> bool:
        """Whether the next answer to what is asked, anything that JSON can hold, is there."""
        return self._path(self._name(asked)).is_file()

    def answer(
        self,
        asked: Sequence[Any],
        ask: Callable[[], npt.NDArray[Any]],
        check: Callable[[Any], npt.NDArray[Any]],
        ledger: Ledger,
    ) -> npt.NDArray[Any]:
        """The kept answer, charged to the ledger; or what ``ask``, which charges it, gives.

        A file that is damaged, or fails the ``check`` of an answer (ValueError), is as good as
        none. One that cannot be written is left out.
        """
        name = self._name(asked)
        path = self._path(name)
        self._times[name] += 1
        try:
            kept = read_arrays(path)
            told, answer = json.loads(kept.texts[_COST]), check(kept.arrays[_ANSWER])
            cost = {name: int(told[name]) for name in _COUNTED}
            if kept.checked and min(cost.values()) >= 0:
                ledger.charge(**cost)
                return answer
        except (KeyError, TypeError, ValueError, RecursionError):
            pass
        before = {name: ledger[name] for name in _COUNTED}
        found = ask()
        spent = {name: int(ledger[name] - before[name]) for name in _COUNTED}
        try:
            self._folder.mkdir(exist_ok=True)
            write_arrays(path, {_ANSWER: found}, {_COST: json.dumps(spent)})
        except OSError:
            pass
        return found

    def _name(self, asked: Sequence[Any]) -> str:
        return hashlib.sha256(json.dumps([self._whose, asked]).encode()).hexdigest()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}-{self._times[name]}.safetensors"
