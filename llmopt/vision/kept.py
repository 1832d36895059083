"""Answers of a black box in a folder, so that nothing is asked for again, and what is on its way.

For boxes that are paid for what they receive. Remote ones and functions have theirs in the run
folder, so that a run that goes on repeats none; services that cost money have theirs in the cache,
so that no other run does. A kept answer is charged what it took when it was sent, tries that failed
included, so that the ledger says what a run sends that finds nothing kept. What was sent and not
answered when a run died is asked for again, and counts as lost besides.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from llmopt.errors import LlmoptError
from llmopt.spend.currency import BILLED, amounts
from llmopt.spend.files import default_cache_dir, read_arrays, write_arrays

if TYPE_CHECKING:
    from llmopt.spend.ledger import Ledger
    from llmopt.vision.base import BlackBox

_ANSWER: Final = "answer"
_COST: Final = "cost"
_RUN: Final = "run"
_COUNTED: Final = ("image_encodings", "text_encodings", "pairs_scored", "black_box_calls")
_MOST: Final = 2.0**53
_SENT: Final = ".sent"


class KeptAnswers:
    """One file a call.

    Args:
        folder: created when first written.
        whose: identity of the box, and what it is asked for; the answers of others are not taken.
        run: that asks; answers that another one bought are told apart.

    What is asked again in one sitting is sent again: each time has an answer of its own.
    """

    def __init__(self, folder: Path, whose: str, run: str = "") -> None:
        self._folder, self._whose, self._run = folder, whose, run
        self._times: Counter[str] = Counter()

    def has(self, asked: Sequence[Any]) -> bool:
        """Whether the next answer to what is asked, anything that JSON can hold, is there."""
        return self._path(self._name(asked)).is_file()

    def answer(
        self,
        asked: Sequence[Any],
        ask: Callable[[], tuple[npt.NDArray[Any], Mapping[str, float]]],
        check: Callable[[Any], npt.NDArray[Any]],
        ledger: Ledger,
    ) -> npt.NDArray[Any]:
        """The kept answer, charged to the ledger; or what ``ask``, which charges it, gives.

        ``ask`` tells what it charged.

        A file that is damaged, or fails the ``check`` of an answer (ValueError), is as good as
        none. One that cannot be written is left out.
        """
        path = self._next(asked)
        kept = self._load(path, check, ledger)
        if kept is not None:
            return kept
        found, spent = ask()
        self._store(path, found, spent)
        return found

    def rows(
        self,
        asked: Sequence[Any],
        ask: Callable[[list[int]], tuple[npt.NDArray[Any], Mapping[str, float]]],
        check: Callable[[Any], npt.NDArray[Any]],
        ledger: Ledger,
    ) -> npt.NDArray[Any]:
        """As :meth:`answer`, of rows that each have an answer of their own.

        Args:
            asked: what each row answers.
            ask: for the rows at these places.
            check: of an answer of one row.
            ledger: charged for what was kept.
        """
        paths = [self._next([one]) for one in asked]
        found = [self._load(path, check, ledger) for path in paths]
        missing = [n for n, row in enumerate(found) if row is None]
        if missing:
            rows, spent = ask(missing)
            share = {name: spent.get(name, 0) / len(missing) for name in BILLED}
            for n, row in zip(missing, rows, strict=True):
                found[n] = row[None]
                self._store(paths[n], row[None], {**spent, **share})
                spent = {}  # tries that failed are told once
        return np.concatenate([row for row in found if row is not None])

    def _load(
        self, path: Path, check: Callable[[Any], npt.NDArray[Any]], ledger: Ledger
    ) -> npt.NDArray[Any] | None:
        try:
            kept = read_arrays(path)
            told, answer = json.loads(kept.texts[_COST]), check(kept.arrays[_ANSWER])
            cost = {name: float(told.get(name, 0)) for name in (*_COUNTED, *BILLED)}
            if not (kept.checked and all(0 <= amount < _MOST for amount in cost.values())):
                return None
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            return None
        bought = kept.texts.get(_RUN)
        ledger.charge(**cost, box_answers_kept=int(bool(bought) and bought != self._run))
        return answer

    def _store(self, path: Path, found: npt.NDArray[Any], spent: Mapping[str, float]) -> None:
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            told = {_COST: json.dumps(dict(spent)), _RUN: self._run}
            write_arrays(path, {_ANSWER: found}, told)

    def _next(self, asked: Sequence[Any]) -> Path:
        name = self._name(asked)
        path = self._path(name)
        self._times[name] += 1
        return path

    def _name(self, asked: Sequence[Any]) -> str:
        return hashlib.sha256(json.dumps([self._whose, asked]).encode()).hexdigest()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}-{self._times[name]}.safetensors"


class OnTheWay:
    """What a part of a run has sent to a black box and not kept the answer to yet.

    A file for each call, written before that is sent. What earlier sittings left there was lost: it
    is charged at its upper bound, and stays, so that later ones know of it too.

    Args:
        folder: created when first written.
        part: of the run.
        ledger: charged for what was lost.
    """

    def __init__(self, folder: Path, part: str, ledger: Ledger) -> None:
        self._folder, self._part = folder, part
        self._mine = threading.local()
        for path in sorted(folder.glob(f"{part}-*{_SENT}")):
            # One that is torn was never sent.
            with contextlib.suppress(OSError, ValueError, RecursionError):
                ledger.record(**amounts(json.loads(path.read_bytes())))

    def send(self, due: Mapping[str, float]) -> None:
        """A call is to be sent which takes so much at most. One that cannot be noted is sent too.

        To be called within :meth:`until_kept`.
        """
        usd = due.get("box_usd", 0)
        told = {"box_calls_lost": 1, **({"box_usd_lost": usd} if usd else {})}
        path = self._folder / f"{self._part}-{uuid.uuid4().hex}{_SENT}"
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(told), encoding="utf-8")
            self._mine.sent.append(path)

    @contextlib.contextmanager
    def until_kept(self) -> Iterator[None]:
        """What this thread sends meanwhile has arrived at the end, unless the process ends."""
        self._mine.sent = []
        try:
            yield
        except LlmoptError:
            self._arrived()
            raise
        self._arrived()

    def _arrived(self) -> None:
        for path in self._mine.sent:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def kept_by_run(folder: Path, box: BlackBox, part: str) -> KeptAnswers:
    """The answers for a part of one run, in a folder."""
    return KeptAnswers(folder, f"{box.address}\n{box.info.weights_sha256}\n{part}")


def kept_for_good(box: BlackBox, run: str) -> KeptAnswers:
    """The answers of a service that costs money, of all runs."""
    identity = hashlib.sha256(f"{box.address}\n{box.info.weights_sha256}".encode()).hexdigest()
    return KeptAnswers(default_cache_dir() / "answers" / identity[:32], identity, run)
