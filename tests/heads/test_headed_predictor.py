from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from safetensors.numpy import load_file, save_file

from llmopt.errors import AccessError, BudgetExhausted, ConfigError
from llmopt.heads import bank as banks
from llmopt.heads.bank import Features, default_bank, shrunken
from llmopt.heads.fitted import FittedHead
from llmopt.heads.predictor import AUTO, HeadedPredictor, head_names, with_head
from llmopt.images import Image
from llmopt.predictor import TextPredictor, predictor_from_state, single
from llmopt.spend.ledger import Caps, Ledger
from llmopt.stats import accuracy
from llmopt.task import FewShot, FloatArray, Labelled, Task
from llmopt.template import Template
from llmopt.testing.heads import unit
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.metered import MeteredBox

NAMES = ("cat", "dog", "owl", "fox")
WIDTH = 24


def word(text: str) -> np.ndarray:
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=WIDTH)


@dataclass(frozen=True)
class Animal:
    """A picture that shows a class by something its name does not say."""

    label: int
    number: int

    @property
    def name(self) -> str:
        return f"{NAMES[self.label]}/{self.number}"

    def key(self) -> str:
        return self.name

    def load(self) -> Pillow.Image:
        return Pillow.new("RGB", (8, 8))

    def vector(self) -> np.ndarray:
        rng = np.random.default_rng([self.label, self.number])
        known = 0.25 * word(NAMES[self.label])
        return known + word(f"secret {self.label}") + 0.8 * rng.normal(size=WIDTH)


class WordBox(BlackBox):
    """Texts are sums of random word vectors; views of an image are the image and noise."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @property
    def info(self) -> BoxInfo:
        return BoxInfo("words", "", self._access, "0", logit_scale=20.0)

    def _images(self, images: Sequence[Image]) -> FloatArray:
        rows = []
        for image in images:
            original = image if isinstance(image, Animal) else image.image  # type: ignore[attr-defined]
            noise = 0.0 if original is image else 0.1
            rows.append(original.vector() + noise * word(image.key()))
        return unit(np.array(rows))

    def _texts(self, prompts: Sequence[str]) -> FloatArray:
        return unit(np.array([sum(word(w) for w in p.strip(".").split()) for p in prompts]))

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        self._require(Access.SCORES, "scores")
        logits = 20 * self._images(images) @ self._texts(prompts).T
        if self._access == Access.SCORES:  # a service that returns log-probabilities
            logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return np.asarray(logits, dtype=np.float32)

    def labels(self, images: Sequence[Image], prompts: Sequence[str]) -> np.ndarray:
        return (self._images(images) @ self._texts(prompts).T).argmax(axis=1)

    def image_features(self, images: Sequence[Image]) -> FloatArray:
        self._require(Access.FEATURES, "features")
        return self._images(images)

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        self._require(Access.FEATURES, "features")
        return self._texts(prompts)


def animals(first: int, count: int) -> tuple[tuple[Animal, ...], np.ndarray]:
    labels = np.repeat(np.arange(len(NAMES)), count)
    numbers = np.tile(np.arange(first, first + count), len(NAMES))
    pictures = tuple(Animal(int(k), int(n)) for k, n in zip(labels, numbers, strict=True))
    return pictures, labels


TASK = Task(
    dataset="animals",
    classnames=NAMES,
    train=FewShot(*animals(0, 6)),
    val=FewShot(*animals(100, 3)),
    shots=6,
    seed=1,
    start=Template("a photo of a {}."),
    split_sha256="",
)
TEST = Labelled(*animals(1000, 60))


def metered(access: Access, caps: Caps | None = None) -> tuple[MeteredBox, Ledger]:
    ledger = Ledger(caps)
    return MeteredBox(WordBox(access), ledger), ledger


@pytest.fixture
def small_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banks, "TEMPLATES", 4)
    monkeypatch.setattr(banks, "PHRASES", 24)


def base() -> TextPredictor:
    return single(TASK.start, NAMES)


@pytest.mark.usefixtures("small_bank")
@pytest.mark.parametrize("access", [Access.SCORES, Access.FEATURES])
@pytest.mark.parametrize("views", [0, 2])
def test_heads_help_on_boxes_of_both_levels(access: Access, views: int) -> None:
    box, _ = metered(access)
    predictor, selection = with_head(base(), AUTO, box, TASK, seed=1, views=views)
    assert isinstance(predictor, HeadedPredictor)
    assert not selection.fallback
    assert (predictor.bridge is None) == (access == Access.FEATURES)
    before = accuracy(base().scores(box, TEST), TEST.labels)
    after = accuracy(predictor.scores(box, TEST), TEST.labels)
    assert after > before + 0.1
    assert predictor.describe() == f"a photo of a {{}}. with head '{selection.head.name}'"
    assert predictor.head["name"] == selection.head.name


def test_views_are_paid_for_as_images() -> None:
    box, ledger = metered(Access.FEATURES)
    with_head(base(), ("gda",), box, TASK, seed=1, views=3)
    assert ledger["image_encodings"] == 4 * len(TASK.train) + len(TASK.val)
    assert ledger["text_encodings"] == len(NAMES)


def test_heads_of_scores_need_no_bank() -> None:
    box, ledger = metered(Access.SCORES)
    predictor, _ = with_head(base(), ("bias",), box, TASK, seed=1)
    assert ledger["text_encodings"] == 2 * len(NAMES)
    assert not isinstance(predictor, HeadedPredictor) or predictor.bridge is None


def test_labels_are_too_little_for_most_heads() -> None:
    box, _ = metered(Access.LABELS)
    with pytest.raises(AccessError, match="offers 'labels'; with it you can use: auto, map"):
        with_head(base(), ("gda", "bias"), box, TASK, seed=1)


def test_a_budget_that_does_not_pay_for_heads_says_so() -> None:
    box, _ = metered(Access.FEATURES, Caps(queries=2))
    with pytest.raises(BudgetExhausted):
        with_head(base(), AUTO, box, TASK, seed=1)


def test_without_a_convincing_head_the_predictor_stays_what_it_was() -> None:
    box, _ = metered(Access.FEATURES)
    start = base()
    predictor, selection = with_head(start, AUTO, box, TASK, seed=1, standard_errors=1e6)
    assert predictor is start
    assert selection.fallback


def test_a_task_without_validation_images() -> None:
    box, _ = metered(Access.FEATURES)
    alone = Task("animals", NAMES, TASK.train, FewShot((), np.zeros(0, int)), 6, 1, TASK.start, "")
    _, selection = with_head(base(), ("gda",), box, alone, seed=1)
    assert len(selection.evidence["gda"].hits) == len(TASK.train)


@pytest.mark.usefixtures("small_bank")
@pytest.mark.parametrize("access", [Access.SCORES, Access.FEATURES])
def test_state_survives_a_file(access: Access, tmp_path: Path) -> None:
    box, _ = metered(access)
    predictor, _ = with_head(base(), ("gda",), box, TASK, seed=1)
    tensors, config = predictor.state()
    save_file(tensors, tmp_path / "predictor.safetensors")
    config = json.loads(json.dumps(config))
    assert config["kind"] == "headed"
    tensors = load_file(tmp_path / "predictor.safetensors")
    again = predictor_from_state(tensors, config)
    np.testing.assert_array_equal(again.scores(box, TEST), predictor.scores(box, TEST))
    assert again.describe() == predictor.describe()


def test_a_head_on_features_refuses_a_box_without() -> None:
    head = FittedHead("gda", {}, {})
    box, _ = metered(Access.SCORES)
    with pytest.raises(AccessError, match="head 'gda' needs access level 'features'"):
        HeadedPredictor(base(), head).scores(box, TEST)


def test_names_of_heads() -> None:
    assert head_names("auto") == AUTO
    assert head_names("gda, residual") == ("gda", "residual")
    with pytest.raises(ConfigError, match="did you mean 'ridge'"):
        head_names("gda,rigde")


# --- the bank


def test_the_default_bank_is_of_bounded_size_and_the_same_every_time() -> None:
    few, many = default_bank(NAMES), default_bank([f"class {i}" for i in range(1000)])
    assert len(few.templates) == banks.TEMPLATES
    assert len(many.templates) == 1
    assert len(set(few.phrases)) == banks.PHRASES
    assert few == default_bank(NAMES)
    assert not any("{" in phrase for phrase in few.phrases)


def test_bank_features_do_not_see_constants_of_a_request() -> None:
    probabilities, _ = metered(Access.SCORES)
    logits, _ = metered(Access.FEATURES)
    bank = default_bank(NAMES)
    seen = [bank.scores(box, TEST, base().scores(box, TEST)) for box in (probabilities, logits)]
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-4)


def test_class_embeddings_of_a_bank_reproduce_the_base_scores() -> None:
    """Before anything is normalised, ``phi . t`` is the centred score exactly."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6))
    fitted = Features.fit(scores.astype(np.float32), 500, classes=3)
    coordinates = (scores - fitted.mean) @ fitted.whiten
    centred = scores[:, :3] - fitted.mean[:3]
    for k in range(3):
        against = coordinates @ fitted.text[k]
        assert np.corrcoef(against, centred[:, k])[0, 1] == pytest.approx(1.0, abs=1e-5)
    assert np.linalg.norm(fitted(scores.astype(np.float32)), axis=1) == pytest.approx(1.0)
    again = Features.load(*fitted.save())
    np.testing.assert_array_equal(again.whiten, fitted.whiten)
    assert again.scale == fitted.scale


def test_shrinkage_is_strong_for_few_images_and_weak_for_many() -> None:
    values = np.array([10.0, 1.0, 0.1, 0.0])
    few, many = shrunken(values, 3), shrunken(values, 100_000)
    assert few.sum() == pytest.approx(values.sum())
    assert few.max() / few.min() < 10
    np.testing.assert_allclose(many, values, atol=1e-3)
    np.testing.assert_allclose(shrunken(np.ones(4), 10), np.ones(4))
