from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.resources import read_lines
from llmopt.sentences import PLAIN_FRAME, Sentence, phrase_features, vocabulary
from llmopt.template import Template

WORDS = st.sampled_from(
    ["a", "an", "the", "one", "A", "photo", "of", "small", "origami", "red", "{}", "left,", "in",
     "close-up", "it's", ",", ".", "100%"]
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a photo of a {}.", ("a photo of", "a", (), "", "")),
        ("a {}.", ("", "a", (), "", "")),
        ("{}", ("", "", (), "", "")),
        ("a photo of a small {}.", ("a photo of", "a", ("small",), "", "")),
        (
            "a photo of the small red {} on the left, a type of pet.",
            ("a photo of", "the", ("small", "red"), "on the left", "a type of pet"),
        ),
        ("itap of my {}", ("itap of my", "", (), "", "")),
        ("a {}, a type of pet.", ("", "a", (), "", "a type of pet")),
        ("a low resolution photo of one {}.", ("a low resolution photo of", "one", (), "", "")),
    ],
)
def test_taken_apart(text: str, parts: tuple[object, ...]) -> None:
    found = Sentence.parse(text)
    assert (found.frame, found.article, found.before, found.after, found.tail) == parts


@pytest.mark.parametrize("name", ["generic.txt", "clip_subset.txt", "captions.txt"])
def test_our_own_templates_lose_nothing(name: str) -> None:
    def words(text: str) -> list[str]:
        return re.findall(r"[^\s,]+|,", text.removesuffix("."))

    for line in read_lines(f"templates/{name}"):
        again = str(Sentence.parse(line))
        # The article agrees with what follows, whatever it was ("a origami").
        assert [w for w in words(again) if w not in ("a", "an")] == [
            w for w in words(line) if w not in ("a", "an")
        ]


@given(st.lists(WORDS, max_size=8), st.lists(WORDS, max_size=8))
def test_whatever_is_taken_apart_reads_as_a_template_again(
    left: list[str], right: list[str]
) -> None:
    text = " ".join([*left, "{}", *right]).replace("{} {}", "{}")
    if text.count("{}") != 1:
        text = text.replace("{}", "", text.count("{}") - 1)
    sentence = Sentence.parse(text)
    once = Template(str(sentence)).text
    assert Template(str(Sentence.parse(once))).text.count("{}") == 1
    assert len(sentence) == len(str(sentence).split())
    for shorter in sentence.shorter().values():
        Template(str(shorter))


@given(
    st.sampled_from(vocabulary()["frame"]),
    st.lists(st.sampled_from(vocabulary()["before"]), max_size=3),
    st.sampled_from(["", *vocabulary()["after"]]),
    st.sampled_from(["", *vocabulary()["tail"]]),
)
def test_sentences_of_the_vocabulary_come_back_unchanged(
    frame: str, before: list[str], after: str, tail: str
) -> None:
    sentence = Sentence(frame, "a", tuple(before), after, tail)
    text = str(sentence)
    assert str(Sentence.parse(text)) == text
    for phrase in filter(None, [frame, *before, after, tail]):
        assert phrase in text


def test_the_article_agrees() -> None:
    assert str(Sentence("a photo of", "a", ("old",), "", "")) == "a photo of an old {}."
    assert str(Sentence("a photo of", "an", ("small",), "", "")) == "a photo of a small {}."
    assert str(Sentence("", "the", ("old",), "", "")) == "the old {}."


def test_shorter_leaves_out_one_phrase_at_a_time() -> None:
    sentence = Sentence.parse("a sketch of a small red {} on the left, a type of pet.")
    shorter = {name: str(one) for name, one in sentence.shorter().items()}
    assert shorter == {
        "frame a sketch of": "a photo of a small red {} on the left, a type of pet.",
        "before small": "a sketch of a red {} on the left, a type of pet.",
        "before red": "a sketch of a small {} on the left, a type of pet.",
        "after on the left": "a sketch of a small red {}, a type of pet.",
        "tail a type of pet": "a sketch of a small red {} on the left.",
    }
    assert Sentence.parse(f"{PLAIN_FRAME} a {{}}.").shorter() == {}


def test_features_name_phrases_and_words() -> None:
    found = Sentence.parse("a sketch of a small {} on the left.").features()
    assert found == {
        "frame a sketch of",
        "before small",
        "word small",
        "after on the left",
        "word on",
        "word the",
        "word left",
    }
    assert phrase_features("frame", "a sketch of") == {"frame a sketch of"}
    assert "word small" in phrase_features("before", "small")


def test_phrases_of_several_words_stay_together() -> None:
    compound = next(p for p in vocabulary()["before"] if " " in p or "-" in p)
    parsed = Sentence.parse(f"a photo of a {compound} small {{}}.")
    assert parsed.before == (compound, "small")
