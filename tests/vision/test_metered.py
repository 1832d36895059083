"""The metered box counts what the box behind it really does, and stops before a cap is passed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llmopt.errors import AccessError, BudgetExhausted, ModelError
from llmopt.predictor import TextPredictor
from llmopt.spend.ledger import Caps, Ledger
from llmopt.task import Labelled
from llmopt.template import Template
from llmopt.testing.world import NAMES, FakeBox, pictures
from llmopt.vision import metered as metered_module
from llmopt.vision.base import Access
from llmopt.vision.feature_cache import FeatureCache
from llmopt.vision.kept import KeptAnswers
from llmopt.vision.metered import MeteredBox
from llmopt.vision.spoken import of_class

TRAIN, VAL = pictures("train", 2), pictures("val", 1)
ALL = Labelled(TRAIN.images + VAL.images, np.concatenate([TRAIN.labels, VAL.labels]))
TEMPLATES = [Template(t) for t in ("a photo of a {}.", "a small {}.", "itap of a {}.")]
K = len(NAMES)


def metered(
    access: Access = Access.FEATURES, caps: Caps | None = None, **options: Any
) -> tuple[MeteredBox, FakeBox, Ledger]:
    box, ledger = FakeBox(access), Ledger(caps, clock=lambda: 0.0)
    return MeteredBox(box, ledger, **options), box, ledger


@pytest.mark.parametrize("access", list(Access))
def test_scores_are_those_of_the_box(access: Access) -> None:
    box, _, _ = metered(access)
    found = box.score_templates(TRAIN, TEMPLATES, NAMES)
    assert found.shape == (3, len(TRAIN), K)
    assert found.dtype == np.float32
    direct = FakeBox(max(access, Access.SCORES))
    for scores, template in zip(found, TEMPLATES, strict=True):
        expected = direct.scores(TRAIN.images, template.fill_all(NAMES))
        if access == Access.LABELS:
            assert set(np.unique(scores)) == {0.0, 1.0}
            assert scores.sum(axis=1).tolist() == [1.0] * len(TRAIN)
            assert scores.argmax(axis=1).tolist() == expected.argmax(axis=1).tolist()
        else:
            np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize("access", list(Access))
def test_every_use_is_counted_as_the_box_counts_it(access: Access) -> None:
    box, behind, ledger = metered(access)
    for images in (TRAIN, VAL, TRAIN):
        box.score_templates(images, TEMPLATES, NAMES)
        behind.agrees_with(ledger)
    # A box that takes images and prompts together gets all images again with each template.
    assert ledger["image_encodings"] == len(ALL) * (1 if access >= Access.FEATURES else 3)
    assert ledger["pairs_scored"] == 3 * K * len(ALL)
    if access >= Access.FEATURES:
        assert ledger["text_encodings"] == 3 * K
        box.image_features(TRAIN)
        box.text_features(TEMPLATES, NAMES)
        behind.agrees_with(ledger)


def test_soft_prompts_are_counted_each_time() -> None:
    box, behind, ledger = metered(Access.SOFT)
    contexts = torch.tensor(np.stack([box.embed_text("a photo of a")] * 4))
    visual = box.image_features(TRAIN)
    for _ in range(2):
        logits = box.soft_logits(visual, contexts, NAMES)
    assert logits.shape == (4, len(TRAIN), K)
    assert ledger["soft_prompt_encodings"] == 2 * 4 * K
    assert ledger["pairs_scored"] == 2 * 4 * K * len(TRAIN)
    behind.agrees_with(ledger)
    # The context is the text of the template, so the scores are the template's.
    text = box.score_templates(TRAIN, [Template("a photo of a {}.")], NAMES)[0]
    np.testing.assert_allclose(logits[0].numpy(), text, rtol=1e-4, atol=1e-4)


def test_soft_gradients_reach_the_contexts_only_when_asked_for() -> None:
    box, _, _ = metered(Access.SOFT)
    visual = box.image_features(TRAIN)
    contexts = torch.tensor(box.embed_text("a photo of a"))[None].requires_grad_()
    assert not box.soft_logits(visual, contexts, NAMES).requires_grad
    box.soft_logits(visual, contexts, NAMES, grad=True).sum().backward()
    assert contexts.grad is not None
    assert contexts.grad.abs().sum() > 0


@pytest.mark.parametrize("access", list(Access))
def test_what_differs_in_case_or_space_only_is_free(access: Access) -> None:
    box, behind, ledger = metered(access)
    first = box.score_templates(TRAIN, [Template("a photo of a {}.")], NAMES)
    before = ledger.state()
    again = box.score_templates(TRAIN, [Template("A  Photo of a\t{}.")], NAMES)
    after = ledger.state()
    assert after.pop("cache_hits") == before.pop("cache_hits") + K + (
        len(TRAIN) if access >= Access.FEATURES else 0
    )
    assert after == before
    np.testing.assert_array_equal(first, again)
    behind.agrees_with(ledger)


def test_duplicates_within_one_call_are_paid_for_once() -> None:
    box, behind, ledger = metered()
    box.text_features([TEMPLATES[0], Template("a PHOTO of a {}.")], [*NAMES, NAMES[0]])
    assert ledger["text_encodings"] == behind.asked["text_encodings"] == K
    assert ledger["cache_hits"] == K + 2


def test_an_image_is_encoded_once_however_it_is_grouped() -> None:
    box, behind, ledger = metered()
    box.image_features(TRAIN)
    found = box.image_features(ALL)
    np.testing.assert_array_equal(found, FakeBox().image_features(ALL.images))
    box.image_features(TRAIN.subset([3, 3, 1]))
    assert ledger["image_encodings"] == behind.asked["image_encodings"] == len(ALL)
    assert ledger["black_box_calls"] == behind.asked["black_box_calls"] == 2
    assert ledger["cache_hits"] == len(TRAIN) + 3


def test_the_same_picture_under_two_names_is_paid_for_once() -> None:
    twice = Labelled(TRAIN.images + TRAIN.images, np.concatenate([TRAIN.labels, TRAIN.labels]))
    box, behind, ledger = metered()
    assert len(box.image_features(twice)) == 2 * len(TRAIN)
    assert ledger["image_encodings"] == behind.asked["image_encodings"] == len(TRAIN)


def test_pairs_are_counted_for_each_set_of_images_once() -> None:
    box, _, ledger = metered()
    for images in (TRAIN, VAL, TRAIN, VAL):
        box.score_templates(images, TEMPLATES[:1], NAMES)
    assert ledger["pairs_scored"] == K * (len(TRAIN) + len(VAL))
    assert ledger["text_encodings"] == K


def test_what_leaves_a_small_text_cache_is_paid_for_again() -> None:
    rows = 4 * 12 * K * 2  # two templates
    box, behind, ledger = metered(text_cache_bytes=rows)
    box.text_features(TEMPLATES, NAMES)
    box.text_features(TEMPLATES[1:], NAMES)
    assert ledger["text_encodings"] == 3 * K
    box.text_features(TEMPLATES[:1], NAMES)
    assert ledger["text_encodings"] == behind.asked["text_encodings"] == 4 * K


@pytest.mark.parametrize("block", [1, 5, 2 * K, 100])
def test_many_prompts_are_encoded_in_blocks_and_are_one_call(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known ones, new ones and equal ones side by side, whatever most of them are."""
    monkeypatch.setattr(metered_module, "BLOCK", block)
    box, behind, ledger = metered()
    sizes = []
    ask = behind.text_features
    monkeypatch.setattr(behind, "text_features", lambda some: sizes.append(len(some)) or ask(some))
    for number, templates in enumerate(
        [TEMPLATES[:1], TEMPLATES[:2] * 2, TEMPLATES[1:], [*TEMPLATES, Template("the {}.")]], 1
    ):
        found = box.text_features(templates, NAMES)
        direct = FakeBox().text_features([p for t in templates for p in t.fill_all(NAMES)])
        np.testing.assert_array_equal(found.reshape(len(direct), -1), direct)
        assert ledger["black_box_calls"] == number
        assert ledger["text_encodings"] == sum(sizes) == number * K
    assert max(sizes) <= block
    assert len(set(behind.prompts)) == len(behind.prompts) == 4 * K
    box.text_features(TEMPLATES, NAMES)
    assert sum(sizes) == ledger["text_encodings"] == 4 * K


def test_features_of_another_length_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    box, behind, _ = metered()
    box.image_features(TRAIN)
    monkeypatch.setattr(behind, "_read", lambda prompts: np.ones((len(prompts), 7), np.float32))
    with pytest.raises(ModelError, match=rf"shape \({K}, 12\), not \({K}, 7\)"):
        box.text_features(TEMPLATES[:1], NAMES)


@pytest.mark.parametrize("access", list(Access))
@pytest.mark.parametrize("cap", range(0, 3 * K + 2))
def test_a_cap_is_never_passed_and_nothing_is_done_for_nothing(access: Access, cap: int) -> None:
    box, behind, ledger = metered(access, Caps(queries=cap))
    done = min(cap // K, 3)
    for template in TEMPLATES[:done]:
        box.score_templates(TRAIN, [template], NAMES)
    for template in TEMPLATES[done:]:
        with pytest.raises(BudgetExhausted) as spent:
            box.score_templates(TRAIN, [template], NAMES)
        assert (spent.value.currency, spent.value.cap) == ("queries", cap)
    assert ledger["text_encodings"] == done * K <= cap
    assert behind.asked["text_encodings"] == done * K
    assert behind.asked["pairs_scored"] in (0, done * K * len(TRAIN))


def test_all_or_nothing_of_one_call_is_spent() -> None:
    box, behind, ledger = metered(caps=Caps(queries=2 * K))
    box.image_features(TRAIN)
    with pytest.raises(BudgetExhausted):
        box.text_features(TEMPLATES, NAMES)
    assert behind.asked["text_encodings"] == ledger["text_encodings"] == 0
    assert len(box.text_features(TEMPLATES[:2], NAMES)) == 2
    with pytest.raises(BudgetExhausted):
        box.text_features(TEMPLATES, NAMES)
    assert len(box.text_features(TEMPLATES[:2], NAMES)) == 2


def test_soft_prompts_share_the_cap_on_queries() -> None:
    box, behind, ledger = metered(Access.SOFT, Caps(queries=3 * K))
    visual = box.image_features(TRAIN)
    box.text_features(TEMPLATES[:1], NAMES)
    contexts = torch.tensor(box.embed_text("a photo of a"))[None]
    box.soft_logits(visual, contexts.repeat(2, 1, 1), NAMES)
    with pytest.raises(BudgetExhausted):
        box.soft_logits(visual, contexts, NAMES)
    assert ledger["soft_prompt_encodings"] == behind.asked["soft_prompt_encodings"] == 2 * K


def test_a_stopped_run_may_look_at_what_it_paid_for() -> None:
    box, behind, ledger = metered()
    first = box.score_templates(TRAIN, TEMPLATES[:1], NAMES)
    ledger.stop()
    np.testing.assert_array_equal(box.score_templates(TRAIN, TEMPLATES[:1], NAMES), first)
    with pytest.raises(BudgetExhausted) as stopped:
        box.score_templates(TRAIN, TEMPLATES, NAMES)
    assert stopped.value.currency == "interrupted"
    assert behind.asked["text_encodings"] == K


@pytest.mark.parametrize(
    ("access", "use"),
    [
        (Access.LABELS, lambda box: box.image_features(TRAIN)),
        (Access.SCORES, lambda box: box.image_features(TRAIN)),
        (Access.SCORES, lambda box: box.text_features(TEMPLATES, NAMES)),
        (Access.FEATURES, lambda box: box.embed_text("a photo")),
        (Access.FEATURES, lambda box: box.embedding_std),
        (
            Access.FEATURES,
            lambda box: box.soft_logits(np.ones((1, 12), np.float32), torch.zeros(1, 2, 9), NAMES),
        ),
    ],
)
def test_what_the_box_does_not_offer_is_an_access_error(
    access: Access, use: Callable[[MeteredBox], object]
) -> None:
    box, _, _ = metered(access)
    with pytest.raises(AccessError, match=f"fake .*'{access}'"):
        use(box)


def test_an_ensemble_averages_embeddings_or_scores() -> None:
    weights = (0.75, 0.25)
    predictor = TextPredictor(tuple(TEMPLATES[:2]), NAMES, weights)
    box, _, _ = metered(Access.FEATURES)
    text = box.text_features(TEMPLATES[:2], NAMES)
    mean = weights[0] * text[0] + weights[1] * text[1]
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(
        predictor.scores(box, TRAIN), 10 * box.image_features(TRAIN) @ mean.T, rtol=1e-5
    )
    by_scores, _, _ = metered(Access.SCORES)
    each = by_scores.score_templates(TRAIN, TEMPLATES[:2], NAMES)
    np.testing.assert_allclose(
        predictor.scores(by_scores, TRAIN), 0.75 * each[0] + 0.25 * each[1], rtol=1e-5
    )


def test_features_on_disk_save_work_but_no_ledger_units(tmp_path: Path) -> None:
    _, first, spent = metered(features=FeatureCache(tmp_path))
    for box, ledger in ((first, spent), (FakeBox(), Ledger(clock=lambda: 0.0))):
        MeteredBox(box, ledger, FeatureCache(tmp_path)).image_features(TRAIN)
        assert ledger["image_encodings"] == len(TRAIN)
    assert first.asked["image_encodings"] == len(TRAIN)
    assert box.asked["image_encodings"] == 0


def test_threads_pay_for_nothing_twice() -> None:
    box, behind, ledger = metered()
    found: list[Any] = []

    def work() -> None:
        found.append(box.score_templates(TRAIN, TEMPLATES, NAMES))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all((one == found[0]).all() for one in found)
    assert ledger["text_encodings"] == 3 * K
    behind.agrees_with(ledger)


def test_time_in_the_box_is_measured() -> None:
    now = [0.0]
    behind = FakeBox()

    def later() -> None:
        now[0] += 2.0

    behind.before = later
    box = MeteredBox(behind, Ledger(clock=lambda: now[0]))
    box.score_templates(TRAIN, TEMPLATES, NAMES)
    assert box.seconds == 4.0  # images, texts


def test_answers_in_words_are_asked_for_once_and_kept(tmp_path: Path) -> None:
    """Also by another sitting; over several calls and templates, ranks and strange words too."""
    asked: list[str] = []

    class Speaker(FakeBox):
        def answers(self, images: Any, prompts: Any) -> Any:
            asked.extend(prompts)
            return [["a unicorn", prompts[len(image.key()) % K]] for image in images]

    def sitting() -> tuple[Any, Any, float]:
        ledger = Ledger(None, clock=lambda: 0.0)
        box = MeteredBox(Speaker(Access.LABELS), ledger, kept=KeptAnswers(tmp_path, "speaker"))
        scores = box.score_templates(TRAIN, TEMPLATES, NAMES)
        return scores, box.answers(TRAIN, TEMPLATES[0], NAMES), ledger["black_box_calls"]

    scores, answers, calls = sitting()
    assert set(np.unique(scores)) == {0.0, 0.5}
    assert answers[:, 0].tolist() == ["a unicorn"] * len(TRAIN)
    assert answers[0, 1] == of_class(int(scores[0, 0].argmax()))
    before = len(asked)
    again = sitting()
    assert len(asked) == before
    np.testing.assert_array_equal(again[0], scores)
    np.testing.assert_array_equal(again[1], answers)
    assert again[2] == calls
