"""Pauses, patience and the circuit breaker."""

from __future__ import annotations

import pytest

from llmopt.errors import (
    AuthenticationFailed,
    CircuitOpen,
    RateLimited,
    ServiceUnavailable,
)
from llmopt.remote.retry import CircuitBreaker, RetrySettings


def tries(settings: RetrySettings, error: Exception) -> tuple[int, list[float]]:
    """How often it is tried, and the pauses between."""
    calls = 0
    pauses: list[float] = []

    def call() -> None:
        nonlocal calls
        calls += 1
        raise error

    with pytest.raises(type(error)) as caught:
        settings.retrying(pauses.append)(call)
    assert caught.value is error
    return calls, pauses


def test_pauses_double_with_jitter_up_to_the_longest() -> None:
    settings = RetrySettings(attempts=8, first_pause=1.0, longest_pause=16.0)
    calls, pauses = tries(settings, ServiceUnavailable("x"))
    assert calls == 8
    for pause, longest in zip(pauses, [1, 2, 4, 8, 16, 16, 16], strict=True):
        assert longest / 2 <= pause <= longest


def test_never_sooner_than_asked() -> None:
    _, pauses = tries(RetrySettings(attempts=5), RateLimited("x", retry_after=7.0))
    assert all(7.0 <= pause <= 7.7 for pause in pauses)


def test_no_pause_begins_that_would_pass_the_deadline() -> None:
    settings = RetrySettings(attempts=5, deadline=60.0)
    assert tries(settings, RateLimited("x", retry_after=61.0)) == (1, [])


def test_what_is_not_retryable_is_tried_once() -> None:
    assert tries(RetrySettings(), AuthenticationFailed("x")) == (1, [])
    assert tries(RetrySettings(), KeyError("x")) == (1, [])


def test_breaker_counts_failures_in_a_row() -> None:
    breaker = CircuitBreaker(3)
    for _ in range(2):
        breaker.failed(ServiceUnavailable("down"))
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(ServiceUnavailable("down"))
        breaker.check()
    breaker.failed(ServiceUnavailable("still down"))
    with pytest.raises(CircuitOpen, match=r"3 calls in a row failed.*still down.*llmopt resume"):
        breaker.check()
    breaker.succeeded()
    with pytest.raises(CircuitOpen):
        breaker.check()


def test_breaker_opens_at_once_where_waiting_is_no_help() -> None:
    breaker = CircuitBreaker(99)
    breaker.failed(AuthenticationFailed("the key is wrong"))
    with pytest.raises(CircuitOpen, match="the key is wrong"):
        breaker.check()
