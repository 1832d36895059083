"""A head for boxes that answer in words: what they say is mapped to what they mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from safetensors.numpy import load_file, save_file

import llmopt
from llmopt.errors import AccessError, ModelError
from llmopt.heads.answer_map import AnswerMap, AnswerMapSettings
from llmopt.heads.base import Shots
from llmopt.heads.predictor import AUTO, HeadedPredictor, with_head
from llmopt.heads.select import select
from llmopt.images import Image
from llmopt.predictor import TextPredictor, predictor_from_state, single
from llmopt.spend.ledger import Ledger
from llmopt.stats import accuracy
from llmopt.task import FewShot, Labelled, Task, TestSet
from llmopt.template import Template
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.metered import MeteredBox

NAMES = ("cat", "dog", "owl", "night_stand")
SAID = (["cat", "kitten"], ["cat", "puppy"], ["bird of prey", "Owl"], ["stool", "night-stand"])
"""What is usually said of each class: dogs are called cats, owls second."""


@dataclass(frozen=True)
class Picture:
    label: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.label}/{self.number}"

    def key(self) -> str:
        return self.name

    def load(self) -> Pillow.Image:
        return Pillow.new("RGB", (8, 8))


class Speaker(BlackBox):
    """Says what is usual, but one time in ten nothing and one time in ten something else."""

    def __init__(self, access: Access = Access.LABELS) -> None:
        self._access, self.calls = access, 0

    @property
    def info(self) -> BoxInfo:
        return BoxInfo("speaker", "", self._access, "0")

    def answers(self, images: Sequence[Image], prompts: Sequence[str]) -> list[Any]:
        self.calls += 1
        return [self.answer(*map(int, image.name.split("/"))) for image in images]

    @staticmethod
    def answer(label: int, number: int) -> Any:
        draw = np.random.default_rng([label, number]).random()
        return None if draw < 0.1 else "a unicorn" if draw < 0.2 else SAID[label]


def pictures(first: int, count: int) -> tuple[tuple[Picture, ...], np.ndarray]:
    labels = np.repeat(np.arange(len(NAMES)), count)
    numbers = np.tile(np.arange(first, first + count), len(NAMES))
    both = zip(labels, numbers, strict=True)
    return tuple(Picture(int(k), int(n)) for k, n in both), labels


NOBODY = FewShot((), np.zeros(0, int))
TASK = Task(
    "animals", NAMES, FewShot(*pictures(0, 8)), NOBODY, 8, 1, Template("a photo of a {}."), ""
)
TEST = Labelled(*pictures(1000, 60))
BASE = single(TASK.start, NAMES)


def fitted(names: Sequence[str] = AUTO, base: TextPredictor = BASE) -> HeadedPredictor:
    predictor, _ = with_head(base, names, MeteredBox(Speaker(), Ledger()), TASK, seed=1)
    assert isinstance(predictor, HeadedPredictor)
    return predictor


@pytest.mark.parametrize("names", [AUTO, ("map",), ("gda", "map")])
def test_answers_are_mapped_to_what_they_mean(names: tuple[str, ...]) -> None:
    box = MeteredBox(Speaker(), Ledger())
    predictor = fitted(names)
    assert predictor.fitted.name == "map"
    assert predictor.access == Access.LABELS
    before = accuracy(BASE.scores(box, TEST), TEST.labels)
    after = accuracy(predictor.scores(box, TEST), TEST.labels)
    assert after > before + 0.1
    assert after > 0.75


def test_it_asks_nothing_that_is_not_asked_anyway() -> None:
    ledger, speaker = Ledger(), Speaker()
    box = MeteredBox(speaker, ledger)
    BASE.scores(box, TASK.train)
    spent, calls = ledger.snapshot(), speaker.calls
    with_head(BASE, AUTO, box, TASK, seed=1)
    assert speaker.calls == calls
    assert ledger["pairs_scored"] == spent["pairs_scored"]


def test_words_of_new_images_that_were_never_heard_count_for_nothing() -> None:
    predictor = fitted()
    assert predictor.bridge is not None
    assert {"kitten", "puppy", "bird of prey", "stool", "a unicorn"} == set(predictor.bridge.words)  # type: ignore[union-attr]

    class Strange(Speaker):
        def answers(self, images: Sequence[Image], prompts: Sequence[str]) -> list[Any]:
            return [["jabberwock", None][image.name.startswith("0")] for image in images]

    scores = predictor.scores(MeteredBox(Strange(), Ledger()), TEST)
    np.testing.assert_array_equal(scores, np.zeros_like(scores))


def test_several_templates_are_heard_together() -> None:
    two = TextPredictor((TASK.start, Template("this is a {}.")), NAMES, (0.75, 0.25))
    predictor = fitted(base=two)
    box = MeteredBox(Speaker(), Ledger())
    one = fitted().scores(box, TEST)
    np.testing.assert_array_equal(predictor.scores(box, TEST).argmax(1), one.argmax(1))


def test_it_survives_a_file(tmp_path: Path) -> None:
    predictor = fitted()
    tensors, config = predictor.state()
    save_file(tensors, tmp_path / "predictor.safetensors")
    again = predictor_from_state(
        load_file(tmp_path / "predictor.safetensors"), json.loads(json.dumps(config))
    )
    box = MeteredBox(Speaker(), Ledger())
    np.testing.assert_array_equal(again.scores(box, TEST), predictor.scores(box, TEST))
    assert again.describe() == "a photo of a {}. with head 'map'"
    with pytest.raises(TypeError, match="list of texts"):
        predictor_from_state(tensors, {**config, "words": "cat"})


def test_a_box_that_means_what_it_says_is_left_alone() -> None:
    class Honest(Speaker):
        def labels(self, images: Sequence[Image], prompts: Sequence[str]) -> Any:
            return [int(image.name.split("/")[0]) for image in images]

        def answers(self, images: Sequence[Image], prompts: Sequence[str]) -> Any:
            return BlackBox.answers(self, images, prompts)

    box = MeteredBox(Honest(), Ledger())
    predictor, selection = with_head(BASE, AUTO, box, TASK, seed=1)
    assert predictor is BASE
    assert selection.fallback


def test_at_one_shot_answers_stay_as_they_are() -> None:
    few = replace(TASK, train=FewShot(*pictures(0, 1)), shots=1)
    _, selection = with_head(BASE, AUTO, MeteredBox(Speaker(), Ledger()), few, seed=1)
    assert selection.fallback
    assert "cannot judge" in selection.reason


def test_answers_that_mean_nothing_are_left_alone() -> None:
    taken = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        labels, said = np.repeat(np.arange(4), 8), rng.integers(6, size=32)
        features = np.eye(6, dtype=np.float32)[said][:, None]
        base = np.ascontiguousarray(8 * features[..., :4])
        shots = Shots(base, labels, features, np.eye(4, 6, dtype=np.float32), 1.0)
        taken += not select([AnswerMap()], shots, seed).fallback
    assert taken <= 2


def test_without_shots_of_a_class_its_name_is_believed() -> None:
    features = np.eye(3, dtype=np.float32)[[0, 0]][:, None]
    shots = Shots(features, np.array([0, 0]), features, np.eye(3, dtype=np.float32), 1.0)
    head = AnswerMap(AnswerMapSettings(kappas=(1.0,), powers=(1.0,), slip=0.3))
    weights = head.fit(shots, {"kappa": 1.0, "power": 1.0}, 0)["weights"]
    assert np.exp(weights).sum(axis=1) == pytest.approx(np.ones(3))
    assert weights.argmax(axis=1).tolist() == [0, 1, 2]


def test_each_head_is_for_its_level() -> None:
    told = "head 'gda' is not for speaker, which offers 'labels'.*map"
    with pytest.raises(AccessError, match=told):
        with_head(BASE, ("gda",), MeteredBox(Speaker(), Ledger()), TASK, seed=1)
    scores = MeteredBox(Speaker(Access.SCORES), Ledger())
    with pytest.raises(AccessError, match="head 'map' is not for speaker, which offers 'scores'"):
        with_head(BASE, ("map",), scores, TASK, seed=1)
    with pytest.raises(AccessError, match="head 'map' reads answers, but speaker offers 'scores'"):
        fitted().scores(scores, TEST)


def test_an_answer_that_is_none_names_the_box() -> None:
    class Odd(Speaker):
        @staticmethod
        def answer(label: int, number: int) -> Any:
            return ["cat", 7]

    with pytest.raises(
        ModelError, match="'speaker' must give texts as answers, not \\['cat', 7\\]"
    ):
        BASE.scores(MeteredBox(Odd(), Ledger()), TASK.train)


def test_a_head_of_another_level_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    speaker = Speaker()
    with pytest.raises(AccessError, match="head 'ridge' is not for speaker"):
        llmopt.run(task=TASK, model=speaker, optimizer="zeroshot", head="ridge", runs=str(tmp_path))
    assert speaker.calls == 0


def test_a_run_maps_what_a_function_says(tmp_path: Path) -> None:
    task = replace(TASK, test=TestSet(TEST.images, TEST.labels))
    options = {"optimizer": "zeroshot", "head": "auto", "runs": str(tmp_path)}
    run = llmopt.run(task=task, model=Speaker(), **options)
    assert run.result["best"]["head"]["name"] == "map"
    assert run.result["gain"]["test_accuracy"] > 0.1
    again = llmopt.evaluate(run, task=task, model=Speaker())
    assert again["best_accuracy"] == run.result["best"]["test_accuracy"]
