"""What all who ask one service share, whether it is a language model or a black box."""

from __future__ import annotations

import numpy as np
import pytest

from llmopt.errors import BudgetExhausted, CircuitOpen, RateLimited, ServiceUnavailable
from llmopt.remote import line as module
from llmopt.remote.line import Line
from llmopt.remote.retry import RetrySettings
from llmopt.spend.ledger import Caps, Ledger
from llmopt.task import FloatArray
from llmopt.testing.world import FakeBox
from llmopt.vision.base import Access
from llmopt.vision.calls import Calls


def test_a_pause_ends_with_the_run() -> None:
    ledger = Ledger(Caps(seconds=5))
    line = Line("it", RetrySettings(), ledger)
    with pytest.raises(BudgetExhausted, match="seconds"):
        line.pause(60)
    ledger.stop()
    with pytest.raises(BudgetExhausted, match="interrupted"):
        line.pause(0.1)


def test_a_black_box_waits_as_long_as_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Line, "pause", lambda self, seconds: waited.append(seconds))
    monkeypatch.setattr(module.RateLimiter, "pause", lambda self, seconds: None)
    box, tries = FakeBox(Access.SCORES), []

    def ask() -> FloatArray:
        tries.append(1)
        if len(tries) < 3:
            raise RateLimited("not now", retry_after=7.0)
        return np.zeros((1, 1), dtype=np.float32)

    Calls(box, Ledger()).one(ask, lambda: {"black_box_calls": 1})
    assert len(tries) == 3
    assert all(7.0 <= seconds <= 7.7 for seconds in waited)


def test_a_black_box_that_keeps_failing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Line, "pause", lambda self, seconds: None)
    ledger, asked = Ledger(), []
    calls = Calls(FakeBox(Access.SCORES), ledger)

    def ask() -> None:
        asked.append(1)
        raise ServiceUnavailable("down")

    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            calls.one(ask, lambda: {"black_box_calls": 1})
    with pytest.raises(CircuitOpen, match="12 calls in a row failed"):
        calls.one(ask, lambda: {"black_box_calls": 1})
    assert len(asked) == ledger["black_box_calls"] == 12
