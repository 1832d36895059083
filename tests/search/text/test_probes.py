"""The first stage of chat: probes of the bank in the start, and the word table they give."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import scripted

from llmopt.search.text.archive import Archive, Scored, front
from llmopt.search.text.chat import Chat
from llmopt.search.text.climbing import ChatSettings
from llmopt.search.text.probes import beside_the_best, families, probe
from llmopt.search.text.words import units, word_table
from llmopt.sentences import Sentence, names_class, probe_bank
from llmopt.spend.ledger import Caps
from llmopt.template import PLAIN, Template
from llmopt.testing.world import NAMES, FakeBox, make_task, stage
from llmopt.vision.base import Access

TASK = make_task(shots=2)
K = len(NAMES)


def opened(folder: Path, most: int = 400, **options: Any) -> tuple[Archive, Any]:
    with stage(folder, options.pop("task", TASK), **options) as s:
        archive = Archive(s.search, "opening")
        probe(s.search, archive, most)
        return archive, s


def test_the_bank_holds_families_of_phrases_each_with_one_slot() -> None:
    bank = probe_bank()
    assert len(bank) >= 14
    phrases = [phrase for family in bank.values() for phrase in family]
    assert len(phrases) == len(set(phrases)) > 300
    for phrase in phrases:
        template = Template(str(Sentence.parse(PLAIN).with_phrase(phrase)))
        assert phrase == "a photo of {}" or template.text != PLAIN
        assert phrase in units(template.text)


@pytest.mark.parametrize(
    ("start", "phrase", "filled"),
    [
        (PLAIN, "small {}", "a photo of a small {}."),
        (PLAIN, "old {}", "a photo of an old {}."),
        (PLAIN, "{} on the left", "a photo of a {} on the left."),
        (PLAIN, "{}, a type of pet", "a photo of a {}, a type of pet."),
        (PLAIN, "a drawing of {}", "a drawing of a {}."),
        ("a centered satellite photo of {}.", "dark {}", "a centered satellite photo of dark {}."),
        ("{}", "red {}", "a red {}."),
        ("a {}, a type of food.", "{}, out of focus", "a {}, a type of food, out of focus."),
    ],
)
def test_a_phrase_goes_where_it_belongs(start: str, phrase: str, filled: str) -> None:
    assert str(Sentence.parse(start).with_phrase(phrase)) == filled


def test_probes_find_the_planted_word_and_its_opposite(tmp_path: Path) -> None:
    archive, s = opened(tmp_path)
    start = archive.find(TASK.start)
    assert start is not None
    table = word_table(archive.ranked(), start, K)
    assert table.helped[0].text == "small {}"
    assert table.helped[0].change > 2 * table.helped[0].error > 0
    assert "large {}" in table.opposite
    assert {word.text for word in table.hurt} >= {"large {}", "big {}"}
    assert len(table.unsure) > 50
    assert len(table.all()) > 300
    assert s.ledger["text_encodings"] == s.box.asked["text_encodings"] == len(archive) * K
    assert s.ledger["llm_calls"] == 0


def test_probes_name_no_class(tmp_path: Path) -> None:
    task = dataclasses.replace(TASK, classnames=("dogs", "square", "Birds", "toy", "sign"))
    with stage(tmp_path, task) as s:
        templates = [t for family in families(s.search) for t in family]
    assert not [t.text for t in templates if names_class(t, task.classnames)]
    texts = {t.text for t in templates}
    assert "a photo of a {}, a type of dog." not in texts
    assert "a photo of a square {}." not in texts
    assert "a photo of a round {}." in texts


@pytest.mark.parametrize("most", [1, 5, 40, 120, 10_000])
def test_no_more_is_scored_than_allowed_and_general_families_go_first(
    tmp_path: Path, most: int
) -> None:
    archive, _ = opened(tmp_path, most)
    texts = {one.template.text for one in archive.ranked()}
    assert 1 <= len(texts) <= most
    assert PLAIN in texts
    if most == 40:
        assert "a photo of a small {}." in texts
        assert not [text for text in texts if "a type of animal" in text]


@pytest.mark.parametrize("queries", [2 * K, 60 * K, 201 * K])
def test_a_cap_on_queries_leaves_half_to_the_conversation(tmp_path: Path, queries: int) -> None:
    archive, s = opened(tmp_path, caps=Caps(queries=queries))
    assert 1 <= len(archive) <= queries / K / 2
    assert s.ledger["text_encodings"] <= queries / 2


def test_probes_alone_end_a_search_that_has_nothing_left_to_gain(tmp_path: Path) -> None:
    model = scripted(then="- a tiny {}.")
    with stage(tmp_path, TASK, FakeBox(scale=30.0), chat=model) as s:
        outcome = Chat(ChatSettings()).run(s.search)
    assert not model.heard
    assert outcome.stop_reason == "nothing left to gain"
    assert outcome.predictor.describe().endswith("a small {}.")
    assert outcome.before is None
    assert outcome.source == "llmopt's own probes"


@pytest.mark.parametrize("access", [Access.LABELS, Access.SCORES, Access.FEATURES])
@pytest.mark.parametrize("probes", [0, 1, 30, 400])
def test_bounds_hold(tmp_path: Path, access: Access, probes: int) -> None:
    flood = "\n".join(f"- a very {i} {{}}." for i in range(60))
    chat = Chat(ChatSettings(probes=probes, iterations=2, proposals=5))
    with stage(tmp_path, TASK, FakeBox(access), chat=scripted(then=flood)) as s:
        chat.run(s.search)
        bounds = chat.bounds(TASK)
        for currency in ("text_encodings", "pairs_scored", "llm_calls"):
            most = bounds[currency] * (1 if access == Access.FEATURES else 2)
            assert s.ledger[currency] <= most, currency


# ------------------------------------------------------------------------------------ word table


def scored(text: str, likelihoods: Any) -> Scored:
    values = np.asarray(likelihoods, dtype=np.float64)
    right = np.exp(values) > 0.5
    return Scored(Template(text), values, np.where(right, 0, 1), right, float(values.mean()))


START = scored(PLAIN, [-1.0, -1.1, -0.9, -1.0])


def test_a_word_is_judged_against_the_same_sentence_without_it() -> None:
    both = scored("a photo of a small old {}.", [-0.2, -0.3, -0.1, -0.2])
    table = word_table(
        [
            START,
            scored("a photo of a small {}.", [-0.2, -0.3, -0.1, -0.2]),
            scored("a photo of an old {}.", [-1.0, -1.1, -0.9, -1.0]),
            both,
        ],
        START,
        3,
    )
    changes = {word.text: word.change for word in table.helped}
    assert changes == pytest.approx({"small {}": 0.8}, abs=0.06)
    assert table.unsure == ("old {}",)


def test_words_that_were_never_apart_are_told_as_such() -> None:
    bad, good = [-8.0, -8.1, -7.9, -8.0], [-0.2, -0.3, -0.1, -0.2]
    rows = [START, scored("a photo of a huge little {}.", bad)]
    rows.append(scored("a photo of a wee {}.", good))
    table = word_table(rows, START, 3)
    found = {word.text: (word.accuracy, word.beside) for word in (*table.helped, *table.hurt)}
    assert found == {"wee": (1.0, ()), "huge": (None, ("little",)), "little": (None, ("huge",))}
    assert not table.opposite  # nobody has seen what either does alone
    apart = word_table([*rows, scored("a photo of a little {}.", good)], START, 3)
    assert [(word.text, word.beside) for word in apart.hurt] == [("huge", ())]
    assert not apart.opposite
    alone = word_table([*rows, scored("a photo of a huge {}.", bad)], START, 3)
    assert alone.opposite == ("huge",)


def test_a_word_takes_no_credit_from_one_that_was_tried_alone() -> None:
    start = scored("a photo of a {}.", [-2.0, -2.1, -1.9, -2.0])
    good = [-1.0, -1.1, -0.9, -1.05]
    company = [scored(f"a photo of a red {word} {{}}.", good) for word in ("cheap", "neat")]
    table = word_table([start, scored("a photo of a red {}.", good), *company], start, 2)
    assert [word.text for word in table.helped] == ["red {}"]
    assert table.helped[0].change == 0.99
    assert {"cheap", "neat"} <= {*table.unsure, *table.unknown}


def test_a_word_takes_no_credit_from_its_company_and_no_blame() -> None:
    """Sixteen lines of one reply: three words are in all of them, three others ruin theirs."""
    start = scored("a photo of a {}.", [-2.0, -2.1, -1.9, -2.0])
    words = [f"w{letter}" for letter in "abcdefghijklmnop"]
    harm = {"wa": 1.6, "wf": 0.9, "wk": 2.1}
    lines = [
        scored(
            f"a photo of a purple lined uniform {word} {{}}.",
            np.array([-1.2, -1.4, -1.0, -1.2])
            - harm.get(word, 0.001 * n) * np.array([1, 0.9, 1.1, 1]),
        )
        for n, word in enumerate(words)
    ]
    table = word_table([start, *lines], start, 2)
    assert {word.text for word in table.helped} == {"purple {}", "lined", "uniform"}
    assert {word.text for word in table.hurt} >= set(harm)
    assert abs(sum(word.change for word in table.helped) - 0.75) < 0.1


def test_words_with_the_very_same_scores_may_be_unknown() -> None:
    same = [
        scored(f"a photo of a {w} {{}}.", [-1.01, -1.13, -0.9, -1.0])
        for w in ["blorp", "zig", "wug", "zap"]
    ]
    table = word_table([*same, scored("a photo of a red {}.", [-3, -3.1, -3, -2.9])], START, 2)
    assert table.unknown == ("blorp", "wug", "zap", "zig")
    assert [word.text for word in table.hurt] == ["red {}"]
    assert table.opposite == ("red {}",)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_table_of_few_images_is_finite(images: int) -> None:
    start = scored(PLAIN, [-1.0] * images)
    table = word_table([scored("a red {}.", [-0.5] * images), start], start, 2)
    for word in (*table.helped, *table.hurt):
        assert np.isfinite([word.change, word.error]).all()
    assert word_table([start], start, 2).all() == frozenset()


def test_units_are_known_phrases_and_other_words() -> None:
    found = units("a drawing of a crimson small {} on the left, a type of pet.")
    assert found == {
        "a drawing of {}",
        "crimson",
        "small {}",
        "{} on the left",
        "{}, a type of pet",
    }
    assert units("{}") == frozenset()


def scored_with(text: str, *likelihoods: float) -> Scored:
    values = np.array(likelihoods)
    right = values > -0.5
    return Scored(Template(text), values, right.astype(np.int64), right, float(values.mean()))


def test_what_helps_the_wrong_images_is_tried_beside_the_best_and_stands_in_the_front() -> None:
    best = scored_with("a red {}.", -0.1, -0.1, -0.1, -0.9)
    plain = scored_with(PLAIN, -0.7, -0.7, -0.7, -0.7)
    solid = scored_with("a solid {}.", -5.0, -5.0, -0.2, -0.1)
    texts = [one.text for one in beside_the_best([best, plain, solid])]
    assert texts[0] == "a red solid {}."
    assert not beside_the_best([scored_with("a red {}.", -0.1, -0.2)])
    assert [one.text for one in front([best, plain, solid])] == ["a red {}.", "a solid {}."]
    assert front([]) == ()
