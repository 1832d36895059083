"""The rate limiter, with a clock of its own."""

from __future__ import annotations

import threading

import pytest

from llmopt.remote.limits import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limits(limiter: RateLimiter) -> dict[str, float]:
    return {name: bucket.limit for name, bucket in limiter._buckets.items()}


def take(limiter: RateLimiter, clock: Clock, tokens: float = 1) -> float:
    """Wait as told until a place is free; the seconds waited."""
    start = clock.now
    while (delay := limiter.acquire(tokens)) > 0:
        clock.now += delay
    return clock.now - start


def test_without_limits_nobody_waits(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    assert all(limiter.acquire(10**9) == 0 for _ in range(1000))
    assert limits(limiter) == {}


def test_requests_a_minute(clock: Clock) -> None:
    limiter = RateLimiter(requests=60, clock=clock)
    waited = [take(limiter, clock) for _ in range(120)]
    assert sum(waited[:60]) == 0
    assert waited[60:] == pytest.approx([1.0] * 60)


def test_tokens_a_minute(clock: Clock) -> None:
    limiter = RateLimiter(tokens=6000, clock=clock)
    assert take(limiter, clock, 6000) == 0
    assert take(limiter, clock, 1000) == pytest.approx(10.0)
    limiter.refund(900)
    assert take(limiter, clock, 900) == pytest.approx(0.0)


def test_a_call_beyond_the_limit_waits_for_a_full_bucket_and_goes(clock: Clock) -> None:
    limiter = RateLimiter(tokens=100, clock=clock)
    assert take(limiter, clock, 1000) == 0
    assert take(limiter, clock, 1000) == pytest.approx(600.0)


def test_a_pause_holds_everyone(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    limiter.pause(5.0)
    limiter.pause(2.0)
    assert take(limiter, clock) == 5.0
    assert take(limiter, clock) == 0


def test_learns_from_headers(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    limiter.learn(
        {
            "X-RateLimit-Limit-Requests": "60",
            "x-ratelimit-remaining-requests": "2",
            "x-ratelimit-reset-requests": "58s",
            "x-ratelimit-limit-tokens": "30000",
            "x-ratelimit-remaining-tokens": "29000",
        }
    )
    assert limits(limiter) == {"requests": 60.0, "tokens": 30000.0}
    assert [take(limiter, clock) for _ in range(3)] == pytest.approx([0, 0, 1.0])


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [("6s", 6.0), ("1m0s", 60.0), ("250ms", 0.25), ("3", 3.0), ("2h", 60.0), ("never", 0.0)],
)
def test_nothing_left_waits_for_the_reset(clock: Clock, reset: str, seconds: float) -> None:
    limiter = RateLimiter(clock=clock)
    limiter.learn(
        {
            "x-ratelimit-limit-tokens": "1000000",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": reset,
        }
    )
    assert take(limiter, clock, 0) == pytest.approx(seconds)


def test_learns_from_anthropic_headers(clock: Clock) -> None:
    limiter = RateLimiter(clock=clock)
    limiter.learn(
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-11-01T00:00:00Z",
        }
    )
    assert limits(limiter) == {"requests": 50.0}


@pytest.mark.parametrize("value", ["-1", "0", "nan", "inf", "many", ""])
def test_senseless_limits_are_ignored(clock: Clock, value: str) -> None:
    limiter = RateLimiter(clock=clock)
    limiter.learn({"x-ratelimit-limit-requests": value, "x-ratelimit-remaining-requests": "0"})
    assert limits(limiter) == {}
    assert take(limiter, clock) == 0


def test_what_the_user_set_stays(clock: Clock) -> None:
    limiter = RateLimiter(requests=10, clock=clock)
    limiter.learn({"x-ratelimit-limit-requests": "5000"})
    assert limits(limiter) == {"requests": 10.0}


def test_bad_limits() -> None:
    with pytest.raises(ValueError, match="above 0"):
        RateLimiter(requests=0)


def test_threads_share_it(clock: Clock) -> None:
    limiter = RateLimiter(requests=100, clock=clock)
    passed = []

    def grab() -> None:
        passed.extend(1 for _ in range(50) if limiter.acquire(1) == 0)

    threads = [threading.Thread(target=grab) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 100
