"""One rate limiter for all conversations of a run.

It keeps requests and tokens a minute below the service's limits: those the user gives, or those the
service tells in its answers' headers. When the service says "not now", everyone waits.

Waiting never changes what is asked, nor the order within a conversation, so it changes no result.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from llmopt.remote import waits

_MINUTE = 60.0


class _Bucket:
    """Fills evenly to ``limit`` within a minute; may be drawn on while it holds enough."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.level = limit
        self.filled = 0.0

    def fill(self, now: float) -> None:
        gained = (now - self.filled) * self.limit / _MINUTE
        self.level = min(self.limit, self.level + max(0.0, gained))
        self.filled = now

    def wait(self, amount: float) -> float:
        """Seconds until ``amount`` is there; more than the limit is let through when full."""
        missing = min(amount, self.limit) - self.level
        return max(0.0, missing * _MINUTE / self.limit)


class RateLimiter:
    """Lets calls pass at the pace a service allows. Shared by threads.

    Args:
        requests: requests a minute; None until a header tells.
        tokens: tokens a minute, in and out together; None until a header tells.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        requests: float | None = None,
        tokens: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}
        # What the user sets is kept, whatever the service says it would allow.
        self._fixed = {k for k, v in (("requests", requests), ("tokens", tokens)) if v is not None}
        self._paused_until = -math.inf
        for name, limit in (("requests", requests), ("tokens", tokens)):
            if limit is not None:
                if not limit > 0:
                    raise ValueError(f"the limit of {name} a minute must be above 0, not {limit!r}")
                self._buckets[name] = self._new_bucket(limit)

    def acquire(self, tokens: float) -> float:
        """Take a place for one call of that many tokens now and return 0, or say how long to wait.

        The caller waits and asks again, so that it decides what may end its waiting.
        """
        with self._lock:
            now = self._clock()
            delay = self._paused_until - now
            for name, bucket in self._buckets.items():
                bucket.fill(now)
                delay = max(delay, bucket.wait(1.0 if name == "requests" else tokens))
            if delay > 0:
                return delay
            for name, bucket in self._buckets.items():
                bucket.level -= 1.0 if name == "requests" else tokens
            return 0.0

    def refund(self, tokens: float) -> None:
        """Give back what a call did not use of its upper bound."""
        with self._lock:
            if bucket := self._buckets.get("tokens"):
                bucket.level = min(bucket.limit, bucket.level + tokens)

    def pause(self, seconds: float) -> None:
        """Hold everyone back for that long: the service said so."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take over the limits an answer's headers tell."""
        told = {str(name).lower(): str(value) for name, value in headers.items()}
        with self._lock:
            for name in ("requests", "tokens"):
                limit = _positive(_pick(told, name, "limit"))
                if limit is None:
                    continue
                bucket = self._buckets.get(name)
                if name not in self._fixed and (bucket is None or bucket.limit != limit):
                    bucket = self._buckets[name] = self._new_bucket(limit)
                remaining = _positive(_pick(told, name, "remaining"), zero=True)
                if bucket is not None and remaining is not None:
                    bucket.fill(self._clock())
                    bucket.level = min(bucket.level, remaining)
                    reset = waits.seconds(_pick(told, name, "reset") or "")
                    if remaining < 1 and reset:
                        # Longer waits are left to refusals: few headers are right about them.
                        until = self._clock() + min(reset, _MINUTE)
                        self._paused_until = max(self._paused_until, until)

    def _new_bucket(self, limit: float) -> _Bucket:
        bucket = _Bucket(limit)
        bucket.filled = self._clock()
        return bucket


def _pick(headers: Mapping[str, str], name: str, what: str) -> str | None:
    for spelling in (f"x-ratelimit-{what}-{name}", f"anthropic-ratelimit-{name}-{what}"):
        if spelling in headers:
            return headers[spelling]
    return None


def _positive(text: str | None, zero: bool = False) -> float | None:
    """A sane count; some gateways send -1 or 0 for "not known"."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and (value > 0 or (zero and value == 0)) else None
