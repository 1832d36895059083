"""What a call is charged, whatever its service counts."""

from __future__ import annotations

from typing import Any

import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from llmopt.language import records
from llmopt.language.billing import bill
from llmopt.language.prices import Price, call_bound, text_least
from llmopt.language.records import Question

PRICE = Price(1.0, 4.0, cache_read=0.1)


def asked(text: str = "Write two templates, please.", reply_tokens: int = 100) -> Question:
    messages = [HumanMessage(text)]
    bound = call_bound(messages, reply_tokens)
    usd = PRICE.bound(bound.tokens_in, bound.tokens_out)
    upper = records.spend(bound.tokens_in, bound.tokens_out, usd)
    return Question(messages, [], "main", 0, 0, bound, upper, "")


def answer(text: str, tokens_in: int, tokens_out: int, **more: Any) -> AIMessage:
    usage: Any = {"input_tokens": tokens_in, "output_tokens": tokens_out, "total_tokens": 0}
    return AIMessage(text, usage_metadata=usage, **more)


@pytest.mark.parametrize(
    ("text", "least"),
    [
        ("", 0),
        ("a", 1),
        ("- a tiny {}.\n- a  photo of a {}.", 10),
        ("x" * 128, 1),
        ("x" * 129, 2),
        ("字" * 128, 3),
        (" " * 300, 3),
    ],
)
def test_the_fewest_tokens_of_a_text(text: str, least: int) -> None:
    assert text_least(text) == least


def test_a_count_that_can_be_right_is_believed() -> None:
    due = bill(asked(), answer("- a tiny {}.", 12, 7), PRICE, ours=False)
    assert due.charged == records.spend(12, 7, (12 + 4 * 7) / 1e6)
    assert (due.estimated, due.raised, due.broken) == (False, False, "")


def test_reasoning_beside_a_reply_was_received_too_but_once() -> None:
    thought = {"reasoning_content": "one two three", "reasoning": "one two three"}
    reply = answer("- a {}", 12, 1, additional_kwargs=thought)
    assert bill(asked(), reply, PRICE, ours=False).charged["llm_tokens_out"] == 6


def test_ours_are_believed() -> None:
    assert bill(asked(), answer("- a tiny {}.", 1, 0), PRICE, ours=True).raised is False


@pytest.mark.parametrize("tokens", [10_000_001, 10**15, 10**30])
def test_a_count_beyond_belief_is_charged_at_the_bound_and_said(tokens: int) -> None:
    question = asked()
    due = bill(question, answer("- a {}", 12, tokens), PRICE, ours=False)
    assert due.charged == question.upper
    assert "10,000,000 tokens out where 100 were reserved, or more" in due.broken


_COUNTS = st.one_of(st.integers(-5, 200), st.integers(0, 10**20), st.none(), st.text(max_size=3))


@fuzz(
    text=st.text(max_size=200),
    tokens_in=_COUNTS,
    tokens_out=_COUNTS,
    details=st.dictionaries(st.sampled_from(["cache_read", "cache_creation"]), _COUNTS),
)
def test_any_count_is_charged_between_what_was_seen_and_what_is_said(
    text: str, tokens_in: Any, tokens_out: Any, details: dict[str, Any]
) -> None:
    question = asked()
    reply = AIMessage(text)
    told: Any = {"input_tokens": tokens_in, "output_tokens": tokens_out}
    reply.usage_metadata = {**told, "input_token_details": details}
    due = bill(question, reply, PRICE, ours=False)
    assert due.charged["llm_tokens_out"] >= min(text_least(text), 100)
    assert due.charged["llm_tokens_in"] >= 4
    assert 0 <= due.charged["llm_usd"] < 1e3
    over = any(due.charged[name] > question.upper[name] for name in question.upper)
    assert bool(due.broken) or not over
