"""Calls to a black box: split into what one call holds, charged try by try, checked, and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from llmopt.errors import ModelError, ServiceError
from llmopt.remote.line import Line
from llmopt.vision.base import Access, BlackBox

if TYPE_CHECKING:
    from llmopt.spend.ledger import Ledger
    from llmopt.vision.kept import KeptAnswers

T = TypeVar("T")
Array = npt.NDArray[Any]


class Calls:
    """How one box is called.

    Args:
        box: what is called.
        ledger: charged before each try.
        kept: answers of earlier sittings of the run; None keeps none.

    Attributes:
        seconds: spent in the box so far.
    """

    def __init__(self, box: BlackBox, ledger: Ledger, kept: KeptAnswers | None = None) -> None:
        self._box, self._ledger, self._kept = box, ledger, kept
        self._line = Line(box.info.name, box.retry, ledger)
        self.seconds = 0.0

    def split(self, items: Sequence[T], most: int) -> list[Sequence[T]]:
        """Batches for one call each; features are asked of a box in this process all at once."""
        outside = self._box.address or self._box.info.access < Access.FEATURES
        size = most if outside else max(1, len(items))
        return [items[start : start + size] for start in range(0, len(items), size)]

    def kept(self, name: Sequence[Any]) -> bool:
        """Whether the answer to what is named so is there already."""
        return self._kept is not None and self._kept.has(name)

    def one(
        self, ask: Callable[[], T], cost: Callable[[], Mapping[str, float]], *, paid: bool = False
    ) -> T:
        """The answer to one call; each try is charged, the first one unless it is paid for."""
        unpaid = not paid

        def once() -> T:
            nonlocal unpaid
            self._line.wait(0)
            self._line.check()
            if unpaid:
                self._ledger.charge(**cost())
            unpaid = True
            try:
                with self._timing():
                    found = ask()
            except ServiceError as error:
                self._line.failed(error)
                raise
            self._line.answered()
            return found

        return self._line.persist(once)

    def each(
        self,
        ask: Callable[[Sequence[T]], Array],
        batches: Sequence[Sequence[T]],
        cost: Callable[[Sequence[T]], Mapping[str, float]],
        check: Callable[[Sequence[T], Any], Array],
        *,
        paid: bool = False,
        name: Callable[[Sequence[T]], Sequence[Any]] | None = None,
    ) -> Array:
        """The answers to a call for each batch, one after the other.

        Args:
            ask: the box.
            batches: of images or prompts.
            cost: of a call.
            check: of an answer; raises ValueError.
            paid: the first try is paid for already.
            name: what is asked, as JSON, by which the answer is found again; None keeps none.

        Raises:
            ModelError: an answer fails the check.
        """

        def answer(batch: Sequence[T]) -> Array:
            told = self.one(partial(ask, batch), partial(cost, batch), paid=paid)
            try:
                return check(batch, told)
            except ValueError as error:
                raise ModelError(f"black box '{self._box.info.name}' {error}") from error

        def found(batch: Sequence[T]) -> Array:
            if self._kept is None or name is None:
                return answer(batch)
            asked = partial(answer, batch)
            return self._kept.answer(name(batch), asked, partial(check, batch), self._ledger)

        return np.concatenate([found(batch) for batch in batches])

    @contextlib.contextmanager
    def _timing(self) -> Iterator[None]:
        before = self._ledger.seconds()
        try:
            yield
        finally:
            self.seconds += self._ledger.seconds() - before
