"""Calls to a black box: split into what one call holds, charged try by try, checked, and kept."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from llmopt.errors import CapBroken, ModelError, ServiceError
from llmopt.remote.failures import may_be_billed
from llmopt.spend.currency import BILLED, CURRENCIES
from llmopt.vision.base import Access, BlackBox

if TYPE_CHECKING:
    from llmopt.spend.ledger import Ledger
    from llmopt.vision.kept import KeptAnswers, OnTheWay

T = TypeVar("T")
Array = npt.NDArray[Any]
Cost = Mapping[str, float]


class Calls:
    """How one box is called.

    Args:
        box: what is called.
        ledger: charged before each try.
        kept: answers of earlier sittings of the run; None keeps none.
        way: notes what is on its way; None notes nothing.

    Attributes:
        seconds: spent in the box so far.
    """

    def __init__(
        self,
        box: BlackBox,
        ledger: Ledger,
        kept: KeptAnswers | None = None,
        way: OnTheWay | None = None,
    ) -> None:
        self._box, self._ledger, self._kept, self._way = box, ledger, kept, way
        self._line = box.line(ledger)
        self._lock = threading.Lock()
        self._busy, self._since = 0, 0.0
        self._broken = ""
        self.seconds = 0.0

    def split(self, items: Sequence[T], most: int) -> list[Sequence[T]]:
        """Batches for one call each; to ask a box in this process for features is one call."""
        outside = self._box.address or self._box.info.access < Access.FEATURES
        size = most if outside else max(1, len(items))
        return [items[start : start + size] for start in range(0, len(items), size)]

    def kept(self, name: Sequence[Any]) -> bool:
        """Whether the answer to what is named so is there already."""
        return self._kept is not None and self._kept.has(name)

    def one(self, ask: Callable[[], T], cost: Callable[[], Cost], *, paid: bool = False) -> T:
        """The answer to one call; each try is charged, the first one unless it is paid for."""
        with self._until_kept():
            return self._charged(ask, cost, paid)[0]

    def each(
        self,
        ask: Callable[[Sequence[T]], Array],
        batches: Sequence[Sequence[T]],
        cost: Callable[[Sequence[T]], Cost],
        check: Callable[[Sequence[T], Any], Array],
        *,
        paid: bool = False,
        name: Callable[[Sequence[T]], Sequence[Any]] | None = None,
    ) -> Array:
        """The answers to a call for each batch, as many at a time as the box takes.

        Args:
            ask: the box.
            batches: of images or prompts.
            cost: of a call.
            check: of an answer; raises ValueError.
            paid: the first try is paid for already, but for what the box charges besides.
            name: what is asked, as JSON, by which the answer is found again; None keeps none. Of
                features, a name for each row.

        Raises:
            ModelError: an answer fails the check.
        """

        def answer(batch: Sequence[T]) -> tuple[Array, Cost]:
            told, spent = self._charged(partial(ask, batch), partial(cost, batch), paid)
            try:
                return check(batch, told), spent
            except ValueError as error:
                raise ModelError(f"black box '{self._box.info.name}' {error}") from error

        def found(batch: Sequence[T]) -> Array:
            with self._until_kept():
                return answered(batch)

        def answered(batch: Sequence[T]) -> Array:
            if self._kept is None or name is None:
                return answer(batch)[0]
            names = name(batch)
            if paid and self._box.paid:  # features: each row may be met again in another batch
                some = partial(check, batch[:1])
                return self._kept.rows(
                    names, lambda places: answer([batch[n] for n in places]), some, self._ledger
                )
            asked = partial(answer, batch)
            return self._kept.answer(names, asked, partial(check, batch), self._ledger)

        if self._box.at_once == 1 or len(batches) == 1:
            answers = [found(batch) for batch in batches]
            return answers[0] if len(answers) == 1 else np.concatenate(answers)
        pool = ThreadPoolExecutor(self._box.at_once, thread_name_prefix="llmopt-box")
        try:
            return np.concatenate(list(pool.map(found, batches)))
        finally:  # what is on its way is paid for: its answer is waited for, and kept
            pool.shutdown(cancel_futures=True)

    def _charged(
        self, ask: Callable[[], T], cost: Callable[[], Cost], paid: bool
    ) -> tuple[T, Cost]:
        """The answer to one call, and what its tries took, but for what was paid before."""
        spent: Counter[str] = Counter()
        first = True

        def once() -> T:
            nonlocal first
            due = cost()
            billed = {name: due[name] for name in BILLED if name in due}
            counts = {name: amount for name, amount in due.items() if name not in billed}
            if paid and first:
                counts = {}
            tokens = sum(amount for name, amount in billed.items() if name != "box_usd")
            self._line.wait(tokens)
            if self._broken:
                raise CapBroken(self._broken)
            with self._ledger.reserve(**counts, **billed) as reservation:
                try:
                    self._line.check()
                except ServiceError:
                    reservation.release()  # nothing was sent
                    raise
                first = False
                if self._way is not None:
                    self._way.send(due)
                try:
                    with self._timing():
                        found = ask()
                except ServiceError as error:
                    billable = may_be_billed(error)
                    taken = self._taken(counts, billed) if billable else _turned_away(counts)
                    spent.update(taken)
                    reservation.settle(**taken)
                    self._line.failed(error)
                    raise
                taken = self._taken(counts, billed)
                spent.update(taken)
                reservation.settle(**taken)
                self._audit(taken, billed)
            used = sum(taken.get(name, 0) for name in BILLED if name != "box_usd")
            self._line.answered(max(0, tokens - used))
            return found

        return self._line.persist(once), spent

    def _until_kept(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._way is None else self._way.until_kept()

    def _taken(self, counts: Cost, most: Cost) -> Cost:
        """What the last call of this thread took: as the box says, else what was put aside."""
        told = self._box.took()
        return {**counts, **(most if told is None else told)}

    def _audit(self, told: Cost, most: Cost) -> None:
        """Remember an answer that took more than was put aside, where a cap stands on that."""
        over = [n for n in BILLED if told.get(n, 0) > most.get(n, 0) * (1 + 1e-9)]
        if over and self._ledger.caps.llm_usd is not None:
            name = over[0]
            one = CURRENCIES[name]
            self._broken = (
                f"{self._box.info.name}: a call took {told[name]:,.6g} {one.unit or one.label} "
                f"where {most.get(name, 0):,.6g} were put aside; nothing more is asked of it"
            )

    @contextlib.contextmanager
    def _timing(self) -> Iterator[None]:
        with self._lock:
            self._busy += 1
            if self._busy == 1:
                self._since = self._ledger.seconds()
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                if not self._busy:
                    self.seconds += self._ledger.seconds() - self._since


def _turned_away(counts: Cost) -> Cost:
    """What a call took that was not worked on: itself."""
    return {name: counts[name] for name in ("black_box_calls",) if name in counts}
