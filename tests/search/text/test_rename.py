"""Codes become words where the images say so, and names that say something stay."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import llmopt
from llmopt.data.shapes import ShapesDataset
from llmopt.search.text.rename import bank, beats_chance, named
from llmopt.search.text.weighing import Shots, convinces
from llmopt.stats import log_likelihoods
from llmopt.task import Labelled, Task

pytestmark = pytest.mark.usefixtures("shared_cache")

SHAPES = ShapesDataset("shapes-solid").classnames
CODES = [f"class_{k:02d}" for k in range(len(SHAPES))]


def task(names: Sequence[str], shots: int, val: int = 0) -> Task:
    """Images of shapes-solid, the first of each class."""
    data = ShapesDataset("shapes-solid")
    (images, labels), (more, marks) = data.split("train"), data.split("test")
    places = [np.flatnonzero(np.asarray(labels) == k) for k in range(len(names))]
    train = [i for own in places for i in own[:shots]]
    left = [i for own in places for i in own[shots : shots + val]]
    return Task.from_images(
        [images[i] for i in train],
        [int(labels[i]) for i in train],
        names,
        val=([images[i] for i in left], [int(labels[i]) for i in left]) if val else None,
        test=(list(more[:200]), [int(k) for k in marks[:200]]),
    )


def run(task: Task, runs: Path) -> llmopt.Run:
    return llmopt.run(task=task, optimizer="rename", model="shapes-tiny", runs=runs)


def test_codes_get_words(tmp_path: Path) -> None:
    found = run(task(CODES, shots=4), tmp_path)
    names = found.predictor.classnames
    assert sum(a == b for a, b in zip(names, SHAPES, strict=True)) >= 10
    assert found.result["baseline"]["test_accuracy"] < 0.2
    assert found.result["best"]["test_accuracy"] > 0.45
    # Each word once, and the names as they were; nothing else.
    assert found.ledger["text_encodings"] <= len(bank()) + len(CODES)
    assert found.ledger["llm_calls"] == 0


def test_of_more_classes_than_words_some_keep_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmopt.search.text.rename.bank", lambda: tuple(SHAPES[:5]))
    names = run(task(CODES, shots=4), tmp_path).predictor.classnames
    assert sum(a == b for a, b in zip(names, SHAPES, strict=True)) >= 4
    assert set(names) <= {*SHAPES[:5], *CODES}
    assert len(set(names)) == len(names)


def test_what_images_say_is_more_than_what_noise_says() -> None:
    """Words chosen for other classes are chosen against an image, and speak for its own."""
    dice, labels = np.random.default_rng(1), np.repeat(np.arange(60), 2)
    shots = Shots(Labelled(tuple(map(str, range(120))), labels), 120, np.bincount(labels))  # type: ignore[arg-type]
    before, scores = dice.normal(size=(120, 60)) * 5, dice.normal(size=(120, 200)) * 5
    then = log_likelihoods(before, labels)

    def convinced(scores: np.ndarray) -> tuple[bool, bool]:
        _, after = named(scores, before, shots)
        gained = log_likelihoods(after, labels)
        rng = np.random.default_rng(2)
        told = convinces(gained, then, after, before, labels)
        return told, beats_chance(gained, scores, before, shots, rng)

    assert convinced(scores) == (True, False)
    scores[np.arange(120), labels] += 10  # the first sixty words are what they show
    assert convinced(scores) == (True, True)


@pytest.mark.parametrize(("shots", "val"), [(1, 1), (4, 0)])
def test_names_that_say_something_stay(tmp_path: Path, shots: int, val: int) -> None:
    found = run(task(list(SHAPES), shots, val), tmp_path)
    assert found.predictor.classnames == tuple(SHAPES)
    assert found.result["best"]["fallback"]


def test_one_image_a_class_proves_nothing(tmp_path: Path) -> None:
    found = run(task(CODES, shots=1), tmp_path)
    assert found.predictor.classnames == tuple(CODES)


def test_some_codes_among_names(tmp_path: Path) -> None:
    mixed = [*CODES[:6], *SHAPES[6:]]
    found = run(task(mixed, shots=4), tmp_path)
    assert found.predictor.classnames[6:] == tuple(SHAPES[6:])
    assert sum(a == b for a, b in zip(found.predictor.classnames[:6], SHAPES, strict=False)) >= 4


def test_the_bank_has_no_word_twice_and_no_slot() -> None:
    assert len(set(map(str.lower, bank()))) == len(bank()) > 800
    assert not any("{" in word or not word.strip() for word in bank())
