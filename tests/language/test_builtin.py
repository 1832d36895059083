"""The built-in rewriter sees messages only, as a language model would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from llmopt.language.builtin import BuiltinRewriter, propose, read_scores
from llmopt.resources import read_lines
from llmopt.search.text.archive import Scored
from llmopt.search.text.conversation import Conversation, Known, line, rephrase
from llmopt.search.text.published_messages import opening
from llmopt.search.text.replies import parse_reply
from llmopt.search.text.words import Words
from llmopt.template import PLAIN, Template
from llmopt.testing.world import NAMES


def scored(text: str, logprob: float) -> Scored:
    return Scored(
        Template(text),
        likelihoods=np.array([logprob, logprob]),
        predicted=np.array([0, 1]),
        correct=np.array([True, False]),
        fitness=logprob,
    )


CAPTIONS = read_lines("templates/captions.txt")[:6]
GOOD = [scored("a small red {}.", -0.512), scored("a small {} on the left.", -0.6)]
START = scored(PLAIN, -2.0)
BAD = [scored(text, -3.0 - i / 10) for i, text in enumerate(CAPTIONS)]


def ask(messages: list[object], seed: int = 0) -> list[str]:
    reply = BuiltinRewriter(seed=seed).invoke(messages)  # type: ignore[arg-type]
    return [row.removeprefix("- ") for row in str(reply.content).splitlines()]


def turn(count: int = 8, scores: bool = True) -> list[object]:
    talk = Conversation(NAMES, scores=scores)
    return list(talk.turn("explore", count, Known(START, GOOD, Words())))


def test_what_conversations_write_it_reads() -> None:
    texts = [str(m.content) for m in turn()]  # type: ignore[attr-defined]
    read = read_scores(texts)
    assert read == {one.template.text: one.score for one in [START, *GOOD]}
    assert list(read) == [one.template.text for one in [START, *GOOD]]
    unscored = read_scores([str(turn(scores=False)[-1].content)])  # type: ignore[attr-defined]
    assert unscored == {one.template.text: 1.0 for one in GOOD}


def test_newer_scores_replace_older_ones() -> None:
    old, new = line(scored("a {}.", -2.0)), line(scored("a {}.", -1.0))
    assert read_scores([old, new]) == {"a {}.": -1.0}


def test_lists_without_scores_are_read_by_their_place() -> None:
    (message,) = opening(GOOD, BAD, "good+bad", 1)
    read = read_scores([str(message.content)])
    assert {text for text, value in read.items() if value > 0} == {g.template.text for g in GOOD}
    assert {text for text, value in read.items() if value < 0} == set(CAPTIONS)


def test_templates_with_numbers_and_parentheses_are_read_whole() -> None:
    text = "a photo (2.5, 100%) of a {} (score 7)."
    assert read_scores([line(scored(text, -1.25))]) == {text: -1.25}


@pytest.mark.parametrize("count", [1, 2, 8, 30])
@pytest.mark.parametrize("scores", [True, False])
def test_proposals_are_valid_new_and_as_many_as_asked_for(count: int, scores: bool) -> None:
    texts = ask(turn(count, scores))
    assert len(texts) == len({t.lower() for t in texts}) == count
    shown = {one.template.text.lower() for one in [*GOOD, *BAD]}
    for text in texts:
        assert Template(text).text == text
        assert text.lower() not in shown
        assert len(text.split()) <= 15
    parsed = parse_reply("\n".join(f"- {t}" for t in texts), NAMES)
    assert [t.text for t in parsed.templates] == texts
    assert parsed.rejected == ()


def test_the_reply_follows_messages_and_seed_and_nothing_else() -> None:
    np.random.seed(0)
    first = ask(turn(), seed=3)
    np.random.seed(1)
    assert ask(turn(), seed=3) == first
    assert ask(turn(), seed=4) != first
    assert ask([*turn(), rephrase(8)], seed=3) != first


def test_the_number_asked_for_last_counts() -> None:
    assert len(ask([*turn(8), AIMessage("no"), HumanMessage("Write 3 new templates.")])) == 3
    assert len(ask([HumanMessage("Please write 5 such templates")])) == 5


@pytest.mark.parametrize(
    ("part", "planted"),
    [
        ("before", "a photo of a striped {}."),
        ("after", "a photo of a {} under water."),
        ("tail", "a photo of a {}, a type of pet."),
        ("frame", "a sketch of a {}."),
    ],
)
def test_what_helped_is_written_again(part: str, planted: str) -> None:
    phrase = {"before": "striped", "after": "under water", "tail": "a type of pet"}.get(
        part, "sketch"
    )
    scores = dict.fromkeys(CAPTIONS, -3.0) | {PLAIN: -2.5, planted: -0.2}
    rng = np.random.default_rng(1)
    found = [text for _ in range(5) for text in propose(scores, 8, rng)]
    without = dict.fromkeys([*CAPTIONS, PLAIN], -3.0)
    control = [text for _ in range(5) for text in propose(without, 8, np.random.default_rng(1))]
    share = sum(phrase in text for text in found) / len(found)
    assert share > 0.25
    assert share > 4 * sum(phrase in text for text in control) / len(control)


def test_what_hurt_is_avoided() -> None:
    helped = {f"a photo of a {word} small {{}}.": -0.3 for word in ("wet", "dry", "old", "new")}
    hurt = {f"a photo of a {word} huge {{}}.": -3.0 for word in ("wet", "dry", "old", "new")}
    found = [
        text for seed in range(5) for text in propose(helped | hurt, 8, np.random.default_rng(seed))
    ]
    small = sum("small" in text for text in found)
    assert small > 10 * sum("huge" in text for text in found)


def test_scores_matter_and_not_only_the_order() -> None:
    texts = [PLAIN, "a small {}.", "a large {}.", *CAPTIONS]
    close = {text: -1.0 - 0.001 * i for i, text in enumerate(texts)}
    apart = {text: -1.0 - 5.0 * (i == 0) for i, text in enumerate(texts)}
    assert propose(close, 8, np.random.default_rng(1)) != propose(
        apart, 8, np.random.default_rng(1)
    )


def test_no_scores_at_all() -> None:
    for messages in (
        [HumanMessage("hello")],
        [SystemMessage("you are kind"), HumanMessage("")],
        [HumanMessage([{"type": "text", "text": "Write 2 templates"}])],
    ):
        texts = ask(list(messages))
        assert texts
        for text in texts:
            Template(text)


def test_all_ties() -> None:
    texts = propose(dict.fromkeys(CAPTIONS, -1.0), 8, np.random.default_rng(0))
    assert len(set(texts)) == 8


@settings(max_examples=40)
@given(st.lists(st.text(max_size=60), max_size=4), st.integers(0, 2**32))
def test_any_messages_get_templates(texts: list[str], seed: int) -> None:
    for text in ask([HumanMessage(text) for text in [*texts, "Write 2 templates."]], seed):
        Template(text)


def test_words_are_counted_as_tokens() -> None:
    reply = BuiltinRewriter().invoke(turn())  # type: ignore[arg-type]
    words = sum(len(str(m.content).split()) for m in turn())  # type: ignore[attr-defined]
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["input_tokens"] == words
    assert reply.usage_metadata["output_tokens"] == len(str(reply.content).split())
