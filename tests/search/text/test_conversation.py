from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from PIL import Image

from llmopt.language.builtin import read_scores
from llmopt.resources import read_prompt
from llmopt.search.text.archive import Scored
from llmopt.search.text.conversation import (
    WORDS_SHOWN,
    Batch,
    Conversation,
    Known,
    Picture,
    by_place,
    change_of,
    enumerate_names,
    line,
    rephrase,
)
from llmopt.search.text.feedback import (
    SHEET_BYTES,
    contact_sheet,
    rejections,
    wins_and_losses,
)
from llmopt.search.text.replies import parse_reply
from llmopt.search.text.words import Word, Words
from llmopt.template import PLAIN, Template
from llmopt.testing.world import NAMES, make_task


def scored(text: str, logprob: float = -0.5, right: int = 4) -> Scored:
    values = np.array([logprob - 0.01, logprob + 0.01, logprob - 0.02, logprob + 0.02])
    return Scored(Template(text), values, np.zeros(4, dtype=int), np.arange(4) < right, logprob)


def word(text: str, change: float) -> Word:
    return Word(text, change, 0.05, 0.5, 1, np.full(4, change))


START = scored(PLAIN, -0.9, right=2)
SMALL, TINY = scored("a small {}.", -0.512), scored("a tiny {}.", -0.512)
WORDS = Words(
    helped=(word("small {}", 0.39), word("tiny {}", 0.38)),
    hurt=(word("large {}", -4.0), word("{} at night", -0.4)),
    opposite=("large {}",),
    unsure=("a drawing of {}", "red {}", "{}, a type of pet", "odd"),
    unknown=("blorp {}",),
)
KNOWN = Known(START, [SMALL, TINY, START], WORDS, ["ring is taken for cross (3 images)"])


def said(messages: list[Any]) -> str:
    return "\n".join(str(m.content) for m in messages)


def first(**options: Any) -> str:
    return str(Conversation(NAMES, **options).turn("explore", 16, KNOWN)[-1].content)


def test_the_first_turn() -> None:
    system, asked = Conversation(NAMES, "x-rays of toys").turn("explore", 16, KNOWN)
    assert isinstance(system, SystemMessage)
    assert isinstance(asked, HumanMessage)
    text = str(asked.content)
    for part in (
        "in their owner's words: x-rays of toys\n",
        "circle, square, big star, cross, ring",
        "All figures are of 4 labelled images.",
        "\n- a photo of a {}. (score -0.90, accuracy 50.0%)\n",
        "* ring is taken for cross (3 images)",
        "Words that helped, each with its change in score against the start:\n"
        "* small {}: +0.39 ± 0.05, accuracy 50.0%\n* tiny {}: +0.38",
        "Words that hurt:\n* {} at night: -0.40 ± 0.05",
        "the opposite of them may be true:\n* large {}: -4.00",
        "can't tell from noise:\n* opening: a drawing of\n* before {}: red\n"
        "* after a comma: a type of pet\n* anywhere: odd\n",
        "may not know them:\n* before {}: blorp\n",
        "- a small {}. (score -0.51, accuracy 100.0%, and 1 more wording like it)\n",
        "This turn explores. Write 16 new templates",
    ):
        assert part in text, part
    assert "\n\n\n" not in text
    assert "$" not in text + str(system.content)


def test_words_without_figures_stand_under_what_they_did() -> None:
    def many(of: str, sign: int) -> tuple[Word, ...]:
        return tuple(word(f"{of}{n} {{}}", sign * (1 - n / 100)) for n in range(WORDS_SHOWN + 2))

    words = Words(many("good", 1), many("bad", -1), unsure=("odd {}",))
    text = said(Conversation(NAMES).turn("explore", 8, Known(START, [START], words))[1:])
    assert f"* good{WORDS_SHOWN - 1} {{}}: +0.8" in text
    for title, names in {
        "helped less:": ("good12", "good13"),
        "hurt less:": ("bad12", "bad13"),
        "can't tell from noise:": ("odd",),
    }.items():
        assert f"{title}\n* before {{}}: {'; '.join(names)}\n" in text


def test_words_that_were_never_apart_are_said_to_be() -> None:
    pair = replace(word("huge", -0.6), accuracy=None, beside=("little", "sunset"))
    text = said(
        Conversation(NAMES).turn("explore", 8, Known(START, [START], Words((), (pair,))))[1:]
    )
    assert "Words that hurt:\n* huge: -0.60 ± 0.05, always beside little, sunset\n" in text


def test_parts_that_are_empty_leave_no_trace() -> None:
    bare = Known(START, [START], Words())
    text = said(Conversation(NAMES).turn("explore", 8, bare)[1:])
    for part in ("owner", "confuses", "hurt", "like it", "best so far", "$"):
        assert part not in text
    assert "No word helped beyond its noise." in text
    assert "No template is better than the start beyond noise." in text
    assert "\n\n\n" not in text


def test_what_each_turn_is_for_is_said() -> None:
    half = scored("a small {}.", -0.6, right=2)
    both = Words(helped=(word("small {}", 0.3), word("red {}", 0.3)))
    known = Known(START, [half, START], both)
    for purpose, part in {
        "explore": "This turn explores.",
        "deepen": 'This turn deepens what works best so far: "a small {}."',
        "combine": 'on different images: "small {}", "red {}". Write 9 new',
        "simplify": 'Write 9 templates with fewer words than "a small {}."',
    }.items():
        text = said(Conversation(NAMES).turn(purpose, 9, known))  # type: ignore[arg-type]
        assert part in text
        assert "$" not in text


def test_conversations_at_the_same_time_begin_elsewhere() -> None:
    texts = {said(Conversation(NAMES).turn("explore", 9, Known(START, [START], WORDS, number=n)))
             for n in range(4)}  # fmt: skip
    assert len(texts) == 4


def test_later_turns_send_the_history_and_what_became_of_the_last_proposals() -> None:
    talk = Conversation(NAMES)
    opening = talk.turn("explore", 8, KNOWN)
    talk.heard("- a huge {}.")
    huge, wee = scored("a huge {}.", -2.0, right=1), scored("a wee {}.", -0.5)
    batch = Batch([huge, wee], SMALL, ["The best of them, “x”, is it."], ["{} {}: two slots"])
    newer = Words((*WORDS.helped, word("wee", 0.4)), WORDS.hurt, WORDS.opposite, WORDS.unsure)
    second = talk.turn("deepen", 4, Known(START, [wee, SMALL, START], newer), batch)
    assert second[:2] == opening
    assert second[2] == AIMessage("- a huge {}.")
    asked = str(second[3].content)
    assert (
        'against the best before them, "a small {}.":\n'
        "- a wee {}. (score -0.50, accuracy 100.0%, +0.01, within noise)\n"
        "- a huge {}. (score -2.00, accuracy 25.0%, -1.49 ± 0.00)\n" in asked
    ) or "- a wee {}. (score -0.50, accuracy 100.0%, +0.01 ± 0.00)" in asked
    assert "The best of them, “x”, is it.\n" in asked
    assert "Without a score:\n* {} {}: two slots" in asked
    assert "* wee: +0.40" in asked
    assert "* small {}" not in asked  # it was told before
    assert "a type of pet" not in asked
    assert "Write 4 new templates" in asked
    talk.heard("nothing")
    third = talk.turn("explore", 4, KNOWN, Batch((), SMALL))
    assert len(third) == 6
    assert "None of your last templates could be used." in str(third[-1].content)


def test_ties_are_said_to_change_nothing() -> None:
    talk = Conversation(NAMES)
    talk.turn("deepen", 8, KNOWN)
    talk.heard("- a wee {}.")
    text = said(talk.turn("explore", 8, KNOWN, Batch([SMALL, TINY], SMALL)))
    assert "All of them tie: the words in which they differ change nothing." in text


def test_without_memory_every_turn_stands_alone() -> None:
    talk = Conversation(NAMES, memory=False)
    opening = talk.turn("explore", 8, KNOWN)
    talk.heard("- a huge {}.")
    assert talk.turn("explore", 8, KNOWN) == opening
    assert talk.compact() is None


def test_without_scores_none_is_shown() -> None:
    talk = Conversation(NAMES, scores=False)
    talk.turn("explore", 8, KNOWN)
    talk.heard("- a huge {}.")
    messages = talk.turn("explore", 8, KNOWN, Batch([scored("a huge {}.", -2.0)], SMALL))
    assert "- a small {}.\n" in said(messages)
    assert "* small {}\n" in said(messages)
    for text in ("-0.51", "0.39", "100.0%"):
        assert text not in said(messages)


def test_old_turns_are_forgotten() -> None:
    talk = Conversation(NAMES, max_turns=3)
    for number in range(6):
        talk.turn("explore", 8, KNOWN)
        talk.heard(f"reply {number}")
    messages = talk.turn("explore", 8, KNOWN)
    replies = [m.content for m in messages if isinstance(m, AIMessage)]
    assert replies == ["reply 3", "reply 4", "reply 5"]
    assert len(messages) == 1 + 2 * 3 + 1
    assert len(talk) == 3


def test_compacting_forgets_the_older_half_until_nothing_is_left() -> None:
    talk = Conversation(NAMES)
    for number in range(5):
        talk.turn("explore", 8, KNOWN)
        talk.heard(f"reply {number}")
    messages = talk.turn("explore", 8, KNOWN)
    left = []
    while (shorter := talk.compact()) is not None:
        assert (shorter[0], shorter[-1]) == (messages[0], messages[-1])
        left.append(len(shorter))
    assert left == [2 + 2 * turns for turns in (2, 1, 0)]
    again = talk.turn("explore", 8, KNOWN)
    assert len(again) == 2
    assert "* small {}: +0.39" in said(again)  # what was forgotten is told again


def test_a_reply_nobody_asked_for_is_not_remembered() -> None:
    talk = Conversation(NAMES)
    talk.heard("hello?")
    talk.turn("explore", 8, KNOWN)
    talk.heard("one")
    talk.heard("two")
    assert len(talk) == 1


def test_dollars_in_names_and_templates_are_theirs() -> None:
    names = ["$good", "${classes}", "US$"]
    known = Known(START, [scored("a $count {} for $5."), START], WORDS)
    text = said(Conversation(names, "$purpose").turn("deepen", 8, known))
    assert "$good, ${classes}, US$" in text
    assert "- a $count {} for $5. (score" in text
    assert "words: $purpose" in text
    assert '"a $count {} for $5."' in text


def test_long_class_lists_are_cut() -> None:
    names = [f"class_{i}" for i in range(1000)]
    listed = enumerate_names(names)
    assert listed.startswith("class 0, class 1, ")
    assert listed.endswith("class 39 and 960 more")
    assert enumerate_names(["a_b", "c"]) == "a b, c"


def test_rephrased() -> None:
    assert "write 6 such templates" in str(rephrase(6).content)


@pytest.mark.parametrize("name", ["system", "first", "next", "rephrase", "turns/explore"])
def test_wording_names_no_task(name: str) -> None:
    text = read_prompt(f"meta/{name}.txt").lower()
    assert not [word for word in ("shape", "small", "circle", "caltech") if word in text]


def test_the_built_in_rewriter_reads_what_is_said() -> None:
    scores = read_scores([str(m.content) for m in Conversation(NAMES).turn("explore", 8, KNOWN)])
    assert scores["a photo of a {}."] == -0.9
    assert scores["a small {}."] == -0.51
    assert scores["a photo of a small {}."] == pytest.approx(-0.51)
    assert scores["a photo of a large {}."] == pytest.approx(-4.9)
    assert scores["a drawing of a {}."] == scores["a photo of a {}, a type of pet."] == -0.9


def test_pictures_come_with_captions() -> None:
    known = Known(START, [START], Words(), pictures=[Picture(b"one", "ring"), Picture(b"2", "bar")])
    message = Conversation(NAMES).turn("explore", 8, known)[-1]
    text, *images = message.content
    assert isinstance(text, dict)
    assert "1. ring\n2. bar" in text["text"]
    for image in images:
        assert isinstance(image, dict)
        assert image["image_url"]["url"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("images", [1, 2, 6])
def test_contact_sheets_are_bounded(images: int) -> None:
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 255, (300, 500, 3), dtype=np.uint8))] * images
    assert 500 < len(contact_sheet(noise)) <= SHEET_BYTES


def test_a_scored_line() -> None:
    assert line(scored("a {}.", -1.23456)) == "- a {}. (score -1.23, accuracy 100.0%)"
    assert line(scored("a {}.", -0.0123), "x") == "- a {}. (score -0.012, accuracy 100.0%, x)"


def test_changes_within_noise_are_said_to_be() -> None:
    noisy = Scored(PLAIN_T, np.array([-1.0, -0.1, -0.9, -0.1]), np.zeros(4), np.ones(4) > 0, -0.5)
    assert change_of(noisy, SMALL).endswith("within noise")
    assert change_of(SMALL, START) == "+0.39 ± 0.00"


PLAIN_T = Template(PLAIN)


def test_rejections_come_once_with_their_reason() -> None:
    parsed = parse_reply("- {} and {}\n- {} or {}\n- a ring {}.\n- a wee {}.", NAMES)
    told = rejections(parsed, [Template("a wee {}.")], [Template("an odd {}.")])
    assert len(told) == 4
    assert told[0].startswith("{} and {}: it has 2 '{}'")
    assert told[0].endswith("(and 1 more like it)")
    assert told[2:] == [
        "tried before: a wee {}.",
        "clearly worse than the best on a few images: an odd {}.",
    ]


def test_wins_and_losses_have_counts_and_a_name() -> None:
    task = make_task(shots=1)
    before, after = (
        Scored(Template(text), np.zeros(5), np.zeros(5), np.array(right) > 0, value)
        for text, right, value in (("a {}.", [1, 1, 0, 0, 0], -1), ("a b {}.", [0, 1, 1, 1, 0], 0))
    )
    assert wins_and_losses([after], before, task) == [
        'The best of them, "a b {}.", wins 2 images (big star, cross) and loses 1 image (circle).'
    ]
    assert wins_and_losses([before], before, task) == [
        'The best of them, "a {}.", is right on the same images.'
    ]
    assert wins_and_losses([], before, task) == []


def test_words_by_place() -> None:
    assert by_place([]) == []
    assert by_place(["{} at night", "red {}"]) == ["* before {}: red", "* after {}: at night"]
