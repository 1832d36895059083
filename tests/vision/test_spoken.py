"""Answers in words: outside data, brought to classes or to plain words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.vision.spoken import (
    LONGEST,
    RANKS,
    first,
    meanings,
    of_class,
    packed,
    plain,
    said,
    weights,
)

NAMES = ("night stand", "Rocking-Chair", "L-1011")
PROMPTS = [f"a photo of a {name}." for name in NAMES]
MEANT = meanings(PROMPTS, NAMES)


def heard(answer: Any, images: int = 1) -> list[list[str]]:
    found = said(answer, images, range(len(NAMES)), MEANT)
    assert found.shape == (images, RANKS)
    return [[word for word in row if word] for row in found.tolist()]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([1], [of_class(1)]),
        (np.array([2]), [of_class(2)]),
        (["Night_Stand."], [of_class(0)]),
        (["a photo of a rocking chair."], [of_class(1)]),
        ([["stool", "night stand", "NIGHT-STAND", "l 1011"]], ["stool", of_class(0), of_class(2)]),
        ([None], []),
        ([[]], []),
        ([""], []),
        ([["  ", "\u200b", "x\ny"]], ["x y"]),
        ([("a", "b", "c", "d", "e", "f")], ["a", "b", "c", "d", "e"]),
        ([["w" * 1000]], ["w" * LONGEST]),
        ([["\x010"]], ["0"]),
    ],
)
def test_what_is_said(answer: Any, words: list[str]) -> None:
    assert heard(answer) == [words]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ([3], "places among the 3 prompts"),
        ([-1], "places among the 3 prompts"),
        ([["chair", 3]], "must give texts as answers"),
        ([["chair"], ["stool"]], "must give answers to 1 images, not 2"),
        ("chair", "must give an array"),
        ([{"label": "chair"}], "must give an array of numbers"),
        (None, "must give an array"),
        ([[["chair"]]], "must give an array"),
        (np.full((1, RANKS * LONGEST), 0x110000, np.uint32), "not numbers"),
    ],
)
def test_what_is_none(answer: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        heard(answer)


def test_classes_of_the_same_word_are_told_apart_by_place() -> None:
    meant = meanings(["an a-b", "an a b"], ["a-b", "a b"])
    assert said([0, 1], 2, range(2), meant)[:, 0].tolist() == [of_class(0), of_class(1)]
    assert said(["A B", "a-b"], 2, range(2), meant)[:, 0].tolist() == [of_class(0)] * 2


def test_ranks_weigh_one_half_one_third() -> None:
    answers = said([["stool", "night stand"], None], 2, range(3), MEANT)
    columns = {**{of_class(k): k for k in range(3)}, "stool": 3}
    assert weights(answers, columns, 4).tolist() == [[0.5, 0, 0, 1], [0, 0, 0, 0]]
    assert weights(answers, {}, 0).shape == (2, 0)


def test_the_first_class_that_is_named() -> None:
    assert first(said([["stool", "l-1011"], 1][:1], 1, range(3), MEANT)).tolist() == [2]
    with pytest.raises(ValueError, match="must name one of the prompts for image 1, not 'stool'"):
        first(said([["stool"]], 1, range(3), MEANT))


@fuzz(told=st.lists(st.one_of(st.none(), st.text(), st.lists(st.text(), max_size=7)), max_size=4))
def test_any_words_survive_a_file(told: list[Any]) -> None:
    words = [["x"], *told]
    found = said(words, len(words), range(3), MEANT)
    again = said(packed(found), len(words), range(3), MEANT)
    np.testing.assert_array_equal(again, found)
    for row in found:
        for word in row:
            assert word.startswith("\x01") or word == plain(word)


@fuzz(
    told=st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    )
)
def test_anything_else_is_refused_and_no_more(told: Any) -> None:
    try:
        found = said(told, 2, range(3), MEANT)
    except ValueError:
        return
    assert found.shape == (2, RANKS)
