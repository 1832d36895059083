"""An answer is what it holds, whatever the status it came with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.language.reading import error_inside
from llmopt.remote.failures import status_in


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "402"}, 402),
        ({"status": 503, "code": "x"}, 503),
        ({"code": 200, "type": "rate_limit_error"}, 429),
        ({"code": True, "message": "Rate limit reached"}, 429),
        ({"code": None, "type": "insufficient_quota"}, 402),
        ({"status": "RESOURCE_EXHAUSTED"}, 429),
        ({"message": "Your credit balance is too low"}, 402),
        ({"message": ["odd"]}, 500),
        ({}, 500),
    ],
)
def test_an_error_has_a_status(error: dict[str, Any], status: int) -> None:
    assert status_in(error) == status


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"message": {"content": 'an "error" {}'}}]},
        {"choices": [{"message": {"content": "half a rep"}, "error": {"code": 429}}]},
        {"error": None, "choices": []},
        {"error": ""},
        ["error"],
        "error",
    ],
)
def test_replies_and_rubbish_hold_no_error(answer: Any) -> None:
    assert error_inside(json.dumps(answer).encode()) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "status", "type", "message", "choices", "object"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@fuzz(answer=_JSON, cut=st.integers(0, 40))
def test_any_body(answer: Any, cut: int) -> None:
    body = json.dumps({"error": answer}).encode()
    for one in (body, body[cut:], json.dumps(answer).encode(), body * 2, b"[" * 9999 + body):
        found = error_inside(one)
        assert found is None or 400 <= status_in(found) < 600
