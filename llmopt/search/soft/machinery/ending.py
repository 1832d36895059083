"""How a search ends when a cap or the user ends it."""

from __future__ import annotations

from types import TracebackType

from llmopt.errors import BudgetExhausted


class Ending:
    """Turns a reached cap, or an interruption, into the normal end of a search.

    Attributes:
        reason: why the ``with`` block ended; set it inside for an end of the search's own.
    """

    def __init__(self) -> None:
        self.reason = "iterations"

    def __enter__(self) -> Ending:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(exc, BudgetExhausted):
            return False
        self.reason = exc.stop_reason
        return True
