"""What chat models that see really say: sentences, lists, JSON, other words, nothing."""

from __future__ import annotations

import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.vision.services.reading import read
from llmopt.vision.spoken import LONGEST, RANKS

OPTIONS = ("circle", "square", "triangle", "star", "bar", "big star", "crane, bird", "puppy")


@pytest.mark.parametrize(
    ("reply", "answers"),
    [
        ("circle", ["circle"]),
        ("Big_Star.", ["big star"]),
        ("crane, bird", ["crane, bird"]),
        ("It is a circle.", ["circle"]),
        ("circles", ["circle"]),
        ("dog", ["puppy"]),
        ("The small object in the picture is a **star**.", ["star"]),
        ("1. star\n2. big star\n3) circle", ["star", "big star", "circle"]),
        ("star, circle, bar", ["star", "circle", "bar"]),
        ('{"answer": "bar"}', ["bar"]),
        ('```json\n{"answers": ["bar", {"x": "circle"}]}\n```', ["bar", "circle"]),
        ("It's not a circle, it's a square.", ["square"]),
        ("<think>a circle?</think>square", ["square"]),
        ("The image shows a circle and a star.\nAnswer: triangle", ["triangle"]),
        (r"\boxed{bar}", ["bar"]),
        ("disc, circle", ["disc", "circle"]),
        ("a blob", ["blob"]),
        ("I'm sorry, I can't say whether this is a circle or a square.", []),
        ("None of the above", []),
        ("Unknown", []),
        ("", []),
        ("[" * 5000, ["[" * LONGEST]),
    ],
)
def test_replies(reply: str, answers: list[str]) -> None:
    assert read(reply, OPTIONS) == answers


@fuzz(
    reply=st.text(max_size=300)
    | st.lists(st.sampled_from([*OPTIONS, "not", "{", '["', "\n", "1.", "answer:", "or"])).map(
        " ".join
    ),
    options=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5, unique=True),
)
def test_any_reply_is_read_as_options_and_short_words(reply: str, options: list[str]) -> None:
    for known in (options, OPTIONS):
        found = read(reply, known)
        assert len(found) <= RANKS
        assert all(one in known or 0 < len(one) <= LONGEST for one in found)
