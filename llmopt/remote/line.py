"""The line to one service: its pace, what was seen of it, and pauses that the end of a run cuts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from llmopt.errors import BudgetExhausted, FormRefused, RetryableError, ServiceError
from llmopt.remote import waits
from llmopt.remote.limits import RateLimiter
from llmopt.remote.retry import CircuitBreaker, RetrySettings

if TYPE_CHECKING:
    from llmopt.spend.ledger import Ledger

R = TypeVar("R")

_TICK: Final = 0.2
_WORTH_SAYING: Final = 3.0


class Line:
    """What all who ask one service in a run share. Safe to use from several threads.

    Args:
        name: of the service, for people.
        retry: the patience.
        ledger: for reading only: the time that is left, and whether the run was interrupted.
        notify: told of long waits.
        requests, tokens: a minute; None until the service tells.
    """

    def __init__(
        self,
        name: str,
        retry: RetrySettings,
        ledger: Ledger,
        notify: Callable[[str], None] = lambda text: None,
        *,
        requests: float | None = None,
        tokens: float | None = None,
    ) -> None:
        self.retry = retry
        self._name = name
        self._ledger = ledger
        self._notify = notify
        self._breaker = CircuitBreaker(retry.breaker)
        self._limiter = RateLimiter(requests, tokens)

    def persist(self, once: Callable[[], R]) -> R:
        """What one try gives, after as many tries as the patience allows.

        A try in a form that the service refuses is made again at once in another.

        Raises:
            ServiceError: the last failure.
            BudgetExhausted: the run ends during a pause.
        """

        def in_some_form() -> R:
            while True:
                with contextlib.suppress(FormRefused):
                    return once()

        return self.retry.retrying(self.pause)(in_some_form)

    def wait(self, tokens: float) -> None:
        """Wait until the service's pace allows a call of that many tokens."""
        while (seconds := self._limiter.acquire(tokens)) > 0:
            self.pause(seconds)

    def check(self) -> None:
        """Raise CircuitOpen when nothing more is to be sent."""
        self._breaker.check()

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take over the pace that an answer's headers tell."""
        self._limiter.learn(headers)

    def answered(self, spare: float = 0.0) -> None:
        """The service is there.

        Args:
            spare: tokens of the upper bound of the call that it did not take.
        """
        self._limiter.refund(spare)
        self._breaker.succeeded()

    def failed(self, error: ServiceError, spare: float = 0.0) -> None:
        """A call failed: what that means for the others."""
        if isinstance(error, FormRefused):
            self.answered(spare)
            return
        self._limiter.refund(spare)
        self._breaker.failed(error)
        wait = error.retry_after if isinstance(error, RetryableError) else None
        if wait and wait <= self.retry.deadline:
            # Longer than anyone waits ends one conversation; the others see for themselves.
            self._limiter.pause(wait)

    def pause(self, seconds: float) -> None:
        """Wait, unless the run's time ends before, or is ended."""
        caps = self._ledger.caps
        if caps.seconds is not None and seconds >= self._ledger.room("seconds"):
            raise BudgetExhausted("seconds", caps.seconds)
        if seconds >= _WORTH_SAYING:
            self._notify(f"waiting {waits.human(seconds)} for {self._name}")
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._ledger.stopped:
                raise BudgetExhausted("interrupted", 0)
            self._breaker.check()
            time.sleep(min(left, _TICK))
