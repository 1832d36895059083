"""What the next turn of a conversation is for, decided from what is known by then.

First wide, then deep, then two good things at once; and over as soon as nothing is left to gain, or
two turns of different purpose in a row gained nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmopt.search.base import NOTHING_LEFT
from llmopt.search.text.archive import Scored
from llmopt.search.text.selection import is_better
from llmopt.search.text.words import Words, units

Purpose = Literal["explore", "deepen", "combine", "simplify"]
"""Many properties nobody tried; one property in other words; two together; fewer words."""

CEILING = -0.1
"""Nats: with every image right and the right class at 90 % on average, little is left to gain."""
LONG = 8
"""Words of a template that could be said with fewer."""
WIDE = 2
"""Turns that look for a first property before anything else is tried."""


@dataclass(frozen=True)
class Turn:
    """A turn that was held.

    Attributes:
        purpose: what it was for.
        gained: whether it found anything better, beyond noise, than was known before.
    """

    purpose: Purpose
    gained: bool


@dataclass(frozen=True)
class Over:
    """No further turn, and why."""

    reason: str


DONE = Over(NOTHING_LEFT)
FLAT = Over("two turns of different purpose in a row gained nothing")


def nothing_left(best: Scored) -> bool:
    """Whether the few shots leave nothing to gain."""
    return best.accuracy == 1 and best.logprob >= CEILING


def next_purpose(
    best: Scored, words: Words, turns: Sequence[Turn], number: int = 0
) -> Purpose | Over:
    """What comes next in a conversation.

    Args:
        best: the best template that it knows.
        words: the word table.
        turns: held in it so far.
        number: of the conversation; the second begins where the first does not.
    """
    flat = since_gain(turns)
    if len(set(flat)) > 1:
        return FLAT
    order = wanted(best, words)
    if number % 2 and not turns and words.helped:
        order = order[1:] + order[:1]
    for purpose in order:
        allowed = WIDE if purpose == "explore" and not words.helped else 1
        if flat.count(purpose) < allowed:
            return purpose
    return FLAT


def wanted(best: Scored, words: Words) -> list[Purpose]:
    """Purposes worth a turn, the most promising first."""
    order: list[Purpose] = []
    if len(separate(best, words)) > 1:
        order.append("combine")
    if words.helped and best.accuracy == 1:
        order += ["deepen", "explore"]
    else:
        order += ["explore", "deepen"]
    if best.template.length[0] > LONG:
        order.append("simplify")
    return order


def separate(best: Scored, words: Words) -> list[str]:
    """Helpful words that say two things: one that the best template has, then those it lacks.

    A synonym helps the images that are right already; another property helps those still wrong.
    """
    had, wrong = units(best.template.text), ~best.correct
    if not wrong.any():
        return []
    inside = [one.text for one in words.helped if one.text in had][:1]
    outside = [
        one.text
        for one in words.helped
        if one.text not in had and one.effects[wrong].mean() > max(0.0, one.change / 4)
    ]
    return [*inside, *outside]


def since_gain(turns: Sequence[Turn]) -> list[Purpose]:
    """Purposes of the turns since the last that gained anything."""
    flat: list[Purpose] = []
    for turn in reversed(turns):
        if turn.gained:
            break
        flat.append(turn.purpose)
    return flat[::-1]


def gained(before: Scored, after: Scored) -> bool:
    """Whether the best of a turn is better than the best before it, beyond noise."""
    return is_better(after.likelihoods, before.likelihoods)
