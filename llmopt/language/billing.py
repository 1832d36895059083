"""What one answered call is charged: what the service reports, and never less than what was seen.

A service's own count decides, but not below the fewest tokens that the texts sent and received can
take. Where it counts nothing, the upper bound is charged. Where it takes more than that bound, its
count is recorded as it is, and said: the caps stand on the bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from llmopt.language import records, wire
from llmopt.language.prices import Price, text_least
from llmopt.language.records import Question
from llmopt.language.wire import Usage

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

MOST: Final = 10_000_000
"""Tokens; no model reads or writes more in one call. A larger count is broken itself."""


@dataclass(frozen=True)
class Bill:
    """What a call is charged.

    Attributes:
        charged: by currency.
        estimated: the service's count is missing or cannot be right.
        raised: it counted fewer tokens than its texts hold.
        broken: how it took more than was reserved, as a sentence; empty if it did not.
    """

    charged: dict[str, float]
    estimated: bool = False
    raised: bool = False
    broken: str = ""


def at_least(usage: Usage, sent: Sequence[BaseMessage], answer: AIMessage) -> Usage:
    """A service's count, and not below the fewest tokens that the texts can take."""
    tokens_in = max(usage.tokens_in, sum(map(text_least, wire.texts(sent))))
    tokens_out = max(usage.tokens_out, sum(map(text_least, wire.texts([answer]))))
    return replace(usage, tokens_in=tokens_in, tokens_out=tokens_out)


def bill(question: Question, answer: AIMessage, price: Price | None, *, ours: bool) -> Bill:
    """The bill of an answered call.

    Args:
        question: what was asked, and reserved.
        answer: what came.
        price: of the tokens, if it is known.
        ours: the model is one of ours, whose counts are right.
    """
    usage = wire.usage(answer)
    if usage is None:
        return Bill(question.upper, estimated=True)
    counted = usage if ours else at_least(usage, question.messages, answer)
    taken = {"in": counted.tokens_in, "out": counted.tokens_out}
    reserved = {"in": question.bound.tokens_in, "out": question.bound.tokens_out}
    over = [
        f"{min(taken[way], MOST):,} tokens {way} where {reserved[way]:,} were reserved"
        for way in taken
        if taken[way] > reserved[way]
    ]
    broken = f"a call took {' and '.join(over)}" if over else ""
    if max(taken.values()) > MOST:
        return Bill(question.upper, estimated=True, broken=f"{broken}, or more, as it says")
    raised = taken != {"in": usage.tokens_in, "out": usage.tokens_out}
    cost = (taken["in"], taken["out"], usage.cached, usage.written)
    charged = records.spend(taken["in"], taken["out"], price.cost(*cost) if price else 0.0)
    return Bill(charged, raised, raised, broken)
