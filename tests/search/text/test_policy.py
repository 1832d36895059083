"""What the next turn is for, and when there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llmopt.search.text.archive import Scored
from llmopt.search.text.policy import (
    FLAT,
    Over,
    Turn,
    next_purpose,
    nothing_left,
    separate,
)
from llmopt.search.text.words import Word, Words
from llmopt.template import Template


def best(text: str = "a photo of a small {}.", wrong: int = 0, value: float = -0.3) -> Scored:
    right = np.array([True] * (4 - wrong) + [False] * wrong)
    return Scored(Template(text), np.full(4, value), np.zeros(4, dtype=int), right, value)


def word(text: str, *effects: float) -> Word:
    return Word(text, float(np.mean(effects)), 0.05, 0.5, 1, np.array(effects))


SMALL = word("small {}", 1, 1, 0, 0)
TINY = word("tiny {}", 1, 1, 0, 0)
RED = word("red {}", 0, 0, 1, 1)
FOUND = Words(helped=(SMALL,))


def turns(*held: str) -> list[Turn]:
    """``explore+`` is a turn that gained."""
    return [Turn(name.rstrip("+"), name.endswith("+")) for name in held]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "words", "held", "wanted"),
    [
        pytest.param(best(value=-0.05, wrong=1), FOUND, [], "explore", id="sure but wrong"),
        pytest.param(best(wrong=2), Words(), [], "explore", id="nothing known"),
        pytest.param(best(wrong=2), Words(), ["explore"], "explore", id="nothing found"),
        pytest.param(best(wrong=2), Words(), ["explore"] * 2, "deepen", id="nothing found again"),
        pytest.param(best(wrong=2), Words(), ["explore", "explore", "deepen"], FLAT, id="flat"),
        pytest.param(best(), FOUND, [], "deepen", id="only confidence is missing"),
        pytest.param(best(), FOUND, ["deepen"], "explore", id="synonyms tie"),
        pytest.param(best(), FOUND, ["deepen", "explore"], FLAT, id="two purposes"),
        pytest.param(best(), FOUND, ["deepen", "explore+"], "deepen", id="on from a gain"),
        pytest.param(best(wrong=2), Words((SMALL, RED)), [], "combine", id="two properties"),
        pytest.param(best(wrong=2), Words((SMALL, TINY)), [], "explore", id="two synonyms"),
        pytest.param(best(wrong=2), Words((SMALL, RED)), ["combine"], "explore", id="combined"),
        pytest.param(
            best("a photo of a very small thing that is a {} here."), FOUND, ["deepen"], "explore",
            id="long",
        ),
    ],
)  # fmt: skip
def test_what_comes_next(known: Scored, words: Words, held: list[str], wanted: Any) -> None:
    assert next_purpose(known, words, turns(*held)) == wanted


def test_nothing_is_left_where_all_is_right_and_sure() -> None:
    assert nothing_left(best(value=-0.05))
    assert not nothing_left(best(value=-0.05, wrong=1))
    assert not nothing_left(best(value=-0.2))


def test_a_second_conversation_begins_elsewhere() -> None:
    assert next_purpose(best(wrong=2), FOUND, [], 0) == "explore"
    assert next_purpose(best(wrong=2), FOUND, [], 1) == "deepen"
    assert next_purpose(best(wrong=2), Words(), [], 1) == "explore"


def test_every_conversation_without_gain_ends_within_four_turns() -> None:
    for wrong in (0, 2):
        for words in (Words(), FOUND, Words((SMALL, RED)), Words((SMALL, TINY))):
            held: list[Turn] = []
            while not isinstance(found := next_purpose(best(wrong=wrong), words, held), Over):
                held.append(Turn(found, False))
            assert 2 <= len(held) <= 4


def test_what_could_be_combined() -> None:
    both = Words((SMALL, TINY, RED))
    assert separate(best(wrong=2), both) == ["small {}", "red {}"]
    assert separate(best(wrong=0), both) == []
    assert separate(best("a small red {}.", wrong=2), both) == ["small {}"]
