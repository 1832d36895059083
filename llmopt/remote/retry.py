"""When to try again, how long to wait, and when to stop asking.

The only place that retries: the providers' clients have theirs switched off, or one would multiply
the other. Pauses are jittered so that conversations do not come back all at once; the jitter has a
generator of its own, and no result depends on it.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmopt.errors import (
    AuthenticationFailed,
    CircuitOpen,
    QuotaExhausted,
    Redirected,
    RetryableError,
    ServiceError,
    ServiceModelNotFound,
)

if TYPE_CHECKING:
    import tenacity

_HOPELESS: Final = (AuthenticationFailed, QuotaExhausted, Redirected, ServiceModelNotFound)


@dataclass(frozen=True)
class RetrySettings:
    """How patient to be with a service.

    Attributes:
        attempts: tries for one question.
        deadline: seconds for one question, pauses included; no pause begins that would pass it.
        call_seconds: seconds for one try, however slowly the answer drips in.
        first_pause: seconds before the second try; doubles from try to try.
        longest_pause: seconds no own pause exceeds (a service may ask for longer ones).
        breaker: failures in a row, over all conversations, after which nothing more is sent.
    """

    attempts: int = 6
    deadline: float = 600.0
    call_seconds: float = 300.0
    first_pause: float = 1.0
    longest_pause: float = 60.0
    breaker: int = 12

    def pause(self, attempt: int, retry_after: float | None) -> float:
        """Seconds to wait after the failed try number ``attempt`` (from 1)."""
        if retry_after is not None:
            # Never sooner than asked; a little later, each conversation by another amount.
            return retry_after * random.uniform(1.0, 1.1)
        longest: float = min(self.longest_pause, self.first_pause * 2.0 ** min(attempt - 1, 30))
        return longest * random.uniform(0.5, 1.0)

    def retrying(self, sleep: Callable[[float], None]) -> tenacity.Retrying:
        """A tenacity controller; raises the last failure when it gives up."""
        import tenacity

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return self.pause(state.attempt_number, getattr(error, "retry_after", None))

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableError),
            stop=tenacity.stop_after_attempt(self.attempts)
            | tenacity.stop_before_delay(self.deadline),
            wait=wait,
            sleep=sleep,
            reraise=True,
        )


# For a recorded run: it failed as often as it did, and nobody has to wait for it again.
AT_ONCE = RetrySettings(
    attempts=1_000_000, deadline=math.inf, call_seconds=math.inf, first_pause=0, breaker=1_000_000
)


class CircuitBreaker:
    """Stops a run from calling a service that keeps failing. Shared by all conversations.

    Opens after ``threshold`` failures in a row, and at once where waiting cannot help.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self._lock = threading.Lock()
        self._failures = 0
        self._reason = ""

    def check(self) -> None:
        """Raise CircuitOpen when nothing more is to be sent."""
        with self._lock:
            if self._reason:
                raise CircuitOpen(
                    f"{self._reason}; nothing more was sent and nothing paid for is lost: "
                    "when the service answers again, 'llmopt resume' goes on from here"
                )

    def succeeded(self) -> None:
        """The service answered."""
        with self._lock:
            self._failures = 0

    def failed(self, error: ServiceError) -> None:
        """The service did not answer."""
        with self._lock:
            self._failures += 1
            if isinstance(error, _HOPELESS):
                self._reason = self._reason or str(error)
            elif self._failures >= self._threshold:
                self._reason = self._reason or (
                    f"{self._failures} calls in a row failed, the last with: {error}"
                )
