from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from PIL import Image

from llmopt.resources import prompts_root
from llmopt.search.text.archive import Scored
from llmopt.search.text.conversation import (
    Conversation,
    Lists,
    Picture,
    enumerate_names,
    line,
    rephrase,
)
from llmopt.template import Template
from llmopt.testing.world import NAMES


def scored(text: str, logprob: float = -0.5) -> Scored:
    return Scored(
        Template(text), np.array([logprob]), np.array([0]), np.array([True]), fitness=logprob
    )


GOOD = [scored("a small {}.", -0.512), scored("a tiny {}.", -0.7)]
BAD = [scored("a large {}.", -4.0)]


def said(messages: list[object]) -> str:
    return "\n".join(str(m.content) for m in messages)  # type: ignore[attr-defined]


def test_the_first_turn() -> None:
    messages = Conversation(NAMES).turn(Lists(GOOD, BAD), 8, confusions=["ring is taken for cross"])
    system, asked = messages
    assert isinstance(system, SystemMessage)
    assert isinstance(asked, HumanMessage)
    text = str(asked.content)
    assert "circle, square, big star, cross, ring" in text
    assert "- a small {}. (score -0.51, accuracy 100.0%)\n- a tiny {}. (score -0.7" in text
    assert "worst first:\n- a large {}. (score -4.0" in text
    assert "* ring is taken for cross" in text
    assert "write 8 new templates" in text
    assert "\n\n\n" not in text
    assert "$" not in text + str(system.content)


def test_parts_that_are_empty_leave_no_trace() -> None:
    text = said(Conversation(NAMES).turn(Lists(GOOD), 8)[1:])
    assert "worst" not in text
    assert "confuses" not in text
    assert "\n\n\n" not in text


def test_later_turns_send_the_history_and_what_became_of_the_last_proposals() -> None:
    talk = Conversation(NAMES)
    first = talk.turn(Lists(GOOD, BAD), 8)
    talk.heard("- a huge {}.")
    second = talk.turn(Lists(GOOD, BAD), 4, [scored("a huge {}.", -2.0)], ["no slot: write one"])
    assert second[:2] == first[:2]
    assert second[2] == AIMessage("- a huge {}.")
    asked = str(second[3].content)
    assert "Your last templates scored:\n- a huge {}. (score -2.0" in asked
    assert "Not used:\n* no slot: write one" in asked
    assert "Write 4 new templates" in asked
    talk.heard("- a wee {}.")
    third = talk.turn(Lists(GOOD), 4)
    assert len(third) == 6
    assert "(none of them could be used)" in str(third[-1].content)


def test_without_memory_every_turn_stands_alone() -> None:
    talk = Conversation(NAMES, memory=False)
    first = talk.turn(Lists(GOOD, BAD), 8)
    talk.heard("- a huge {}.")
    second = talk.turn(Lists(GOOD, BAD), 8)
    assert second == first
    assert talk.compact() is None


def test_without_scores_none_is_shown() -> None:
    talk = Conversation(NAMES, scores=False)
    talk.turn(Lists(GOOD, BAD), 8)
    talk.heard("- a huge {}.")
    messages = talk.turn(Lists(GOOD, BAD), 8, [scored("a huge {}.", -2.0)])
    assert "- a small {}.\n- a tiny {}." in said(messages)
    for text in ("-0.51", "-2.0", "100.0%"):
        assert text not in said(messages)


def test_old_turns_are_forgotten() -> None:
    talk = Conversation(NAMES, max_turns=3)
    for number in range(6):
        talk.turn(Lists(GOOD), 8)
        talk.heard(f"reply {number}")
    messages = talk.turn(Lists(GOOD), 8)
    assert [m.content for m in messages if isinstance(m, AIMessage)] == [
        "reply 3",
        "reply 4",
        "reply 5",
    ]
    assert len(messages) == 1 + 2 * 3 + 1
    assert len(talk) == 3


def test_compacting_forgets_the_older_half_until_nothing_is_left() -> None:
    talk = Conversation(NAMES)
    for number in range(5):
        talk.turn(Lists(GOOD), 8)
        talk.heard(f"reply {number}")
    messages = talk.turn(Lists(GOOD), 8)
    left = []
    while (shorter := talk.compact()) is not None:
        assert (shorter[0], shorter[-1]) == (messages[0], messages[-1])
        left.append(len(shorter))
    assert left == [2 + 2 * turns for turns in (2, 1, 0)]
    assert len(talk.turn(Lists(GOOD), 8)) == 2


def test_a_reply_nobody_asked_for_is_not_remembered() -> None:
    talk = Conversation(NAMES)
    talk.heard("hello?")
    talk.turn(Lists(GOOD), 8)
    talk.heard("one")
    talk.heard("two")
    assert len(talk) == 1


def test_dollars_in_names_and_templates_are_theirs() -> None:
    names = ["$good", "${classes}", "US$"]
    text = said(Conversation(names).turn(Lists([scored("a $count {} for $5.")]), 8))
    assert "$good, ${classes}, US$" in text
    assert "- a $count {} for $5. (score" in text


def test_long_class_lists_are_cut() -> None:
    names = [f"class_{i}" for i in range(1000)]
    listed = enumerate_names(names)
    assert listed.startswith("class 0, class 1, ")
    assert listed.endswith("class 39 and 960 more")
    assert enumerate_names(["a_b", "c"]) == "a b, c"


def test_rephrased() -> None:
    assert "write 6 such templates" in str(rephrase(6).content)


@pytest.mark.parametrize("path", sorted((prompts_root() / "meta").rglob("*.txt")))
def test_wording_names_no_task(path: Path) -> None:
    text = path.read_text(encoding="utf-8").lower()
    assert not [word for word in ("shape", "small", "circle", "caltech") if word in text]


def test_pictures_come_with_captions_and_small() -> None:
    big = Image.new("L", (1000, 500))
    pictures = [Picture(big, "ring, taken for cross"), Picture(big, "cross, taken for ring")]
    message = Conversation(NAMES).turn(Lists(GOOD), 8, pictures=pictures)[-1]
    text, *images = message.content
    assert isinstance(text, dict)
    assert "ring, taken for cross; cross, taken for ring" in text["text"]
    assert len(images) == 2
    for image in images:
        assert isinstance(image, dict)
        assert image["image_url"]["url"].startswith("data:image/png;base64,")
        assert len(image["image_url"]["url"]) < 20_000
    assert big.size == (1000, 500)


def test_a_scored_line() -> None:
    assert line(scored("a {}.", -1.23456)) == "- a {}. (score -1.23, accuracy 100.0%)"
    assert line(scored("a {}."), scores=False) == "- a {}."
