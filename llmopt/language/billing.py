"""What one answered call is charged: what the service reports, and never less than what was seen.

A service's own count decides, but not below the fewest tokens that the texts sent and received can
take. Where it counts nothing, the upper bound is charged. Where it takes more than that bound, its
count is recorded as it is, and said: the caps stand on the bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llmopt.language import records, wire
from llmopt.language.prices import Price, text_least
from llmopt.language.records import Question

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

_MOST: Final = 10_000_000
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
    taken = {"in": usage.tokens_in, "out": usage.tokens_out}
    if not ours:
        taken["in"] = max(taken["in"], sum(map(text_least, wire.texts(question.messages))))
        taken["out"] = max(taken["out"], sum(map(text_least, wire.texts([answer]))))
    reserved = {"in": question.bound.tokens_in, "out": question.bound.tokens_out}
    over = [
        f"{min(taken[way], _MOST):,} tokens {way} where {reserved[way]:,} were reserved"
        for way in taken
        if taken[way] > reserved[way]
    ]
    broken = f"a call took {' and '.join(over)}" if over else ""
    if max(taken.values()) > _MOST:
        return Bill(question.upper, estimated=True, broken=f"{broken}, or more, as it says")
    raised = taken != {"in": usage.tokens_in, "out": usage.tokens_out}
    cost = (taken["in"], taken["out"], usage.cached, usage.written)
    charged = records.spend(taken["in"], taken["out"], price.cost(*cost) if price else 0.0)
    return Bill(charged, raised, raised, broken)
