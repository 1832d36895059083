"""One thread computes for all: together where it can, in turns, and a bad piece spoils no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from llmopt.testing.world import FakeBox
from llmopt.vision.base import Access
from llmopt.vision.server import inference
from llmopt.vision.server.inference import Busy, Inference


class SlowBox(FakeBox):
    """Waits until it may go; tells what it was asked."""

    def __init__(self) -> None:
        super().__init__(Access.FEATURES)
        self.asked: list[list[str]] = []
        self.go = threading.Event()

    def text_features(self, prompts: Sequence[str]) -> Any:
        self.go.wait(10)
        self.asked.append(list(prompts))
        if "bad" in prompts:
            raise ValueError("bad")
        return np.array([[len(prompt), 1.0] for prompt in prompts], np.float32)


def run(asks: dict[str, list[list[str]]]) -> tuple[list[list[str]], list[Any]]:
    """What the box was asked, once the first request kept it busy, and the answers in order."""
    box = SlowBox()
    one = Inference(box)

    async def work() -> list[Any]:
        first = asyncio.create_task(one.texts("first", ["first"]))
        await asyncio.sleep(0.05)
        rest = [
            asyncio.create_task(one.texts(client, prompts))
            for client, requests in asks.items()
            for prompts in requests
        ]
        await asyncio.sleep(0.05)
        box.go.set()
        found = await asyncio.gather(*rest, return_exceptions=True)
        await first
        return list(found)

    try:
        found = asyncio.run(work())
    finally:
        box.go.set()
        one.close()
    return box.asked[1:], found


def test_what_several_ask_for_is_computed_together() -> None:
    asked, found = run({"a": [["x", "yy"]], "b": [["zzz"]]})
    assert asked == [["x", "yy", "zzz"]]
    assert found[0].tolist() == [[1, 1], [2, 1]]
    assert found[1].tolist() == [[3, 1]]


def test_a_client_alone_has_its_requests_computed_together() -> None:
    asked, found = run({"a": [["x"], ["yy"], ["zzz"]]})
    assert asked == [["x", "yy", "zzz"]]
    assert [one.tolist() for one in found] == [[[1, 1]], [[2, 1]], [[3, 1]]]


def test_nobody_waits_for_all_of_anothers_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(inference.MOST, "texts", 2)
    asked, found = run({"a": [["1", "2", "3", "4", "5", "6"]], "b": [["x"]]})
    assert asked.index(["x"]) == 1
    assert len(found[0]) == 6


def test_a_bad_one_spoils_no_other() -> None:
    asked, found = run({"a": [["x"]], "b": [["bad"]], "c": [["yy"]]})
    assert asked == [["x", "bad", "yy"], ["x"], ["bad"], ["yy"]]
    assert isinstance(found[1], ValueError)
    assert (found[0].tolist(), found[2].tolist()) == ([[1, 1]], [[2, 1]])


def test_too_much_waiting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "WAITING", 2)
    _, found = run({"a": [["x"], ["y"], ["z"]], "b": [["w"]]})
    assert [isinstance(one, Busy) for one in found] == [False, False, True, False]
