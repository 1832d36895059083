from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from soft_box import NAMES, Bench, SoftBox, make_task

from llmopt.data.augment import Augmentation
from llmopt.errors import AccessError, ConfigError
from llmopt.predictor import single
from llmopt.search.soft.coop import Coop, CoopSettings, Sgd
from llmopt.search.soft.coop_published import CoopReleased, CoopReleasedSettings
from llmopt.search.soft.machinery.images import fresh_batch
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import soft_start
from llmopt.vision.openclip import OpenClipBlackBox


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    box = SoftBox()
    with Bench(tmp_path, make_task(box)[0], box) as bench:
        yield bench


@pytest.mark.parametrize(("shots", "epochs"), [(1, 50), (2, 100), (4, 100), (8, 200), (16, 200)])
def test_the_released_schedule(shots: int, epochs: int) -> None:
    box = SoftBox()
    task, _ = make_task(box, shots=shots)
    s = CoopReleasedSettings()
    assert (s.tokens, s.rate, s.momentum, s.decay, s.batch) == (16, 2e-3, 0.9, 5e-4, 32)
    steps = epochs * max(1, 5 * shots // 32)
    bounds = CoopReleased(s).bounds(task)
    assert bounds["soft_prompt_encodings"] == steps * len(NAMES)
    assert bounds["image_encodings"] == steps * min(32, 5 * shots)


def test_a_random_start_or_words(bench: Bench) -> None:
    coop = CoopReleased()
    start = coop._start(bench.search)
    assert start.context.shape == (16, 16)
    assert float(start.context.std()) == pytest.approx(0.02, rel=0.2)
    words = CoopReleased(words="a photo of a")
    expected = bench.metered.embed_text("a photo of a")
    np.testing.assert_array_equal(words._start(bench.search).context.numpy(), expected)


def test_one_step_is_sgd_on_the_cross_entropy(bench: Bench) -> None:
    settings = CoopReleasedSettings()
    start = soft_start(bench.metered, bench.search.task.start, NAMES)
    images = fresh_batch(bench.search, 0, 64, Augmentation(scale=(0.08, 1.0), flip=False))
    walk = Sgd(settings, bench.search, start, lambda number: images, 1, lambda epoch: 1e-5)
    p = start.context.clone().requires_grad_()
    logits = bench.metered.soft_logits(images.features, p[None], start.names, grad=True)[0]
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, images.labels), p)
    walk.advance(0)
    expected = start.context - 1e-5 * (gradient + 5e-4 * start.context)
    torch.testing.assert_close(walk.context, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("class_specific", [False, True])
def test_it_finds_a_planted_prompt(tmp_path: Path, class_specific: bool) -> None:
    box = SoftBox()
    task, test = make_task(box, shots=4)
    settings = CoopSettings(class_specific=class_specific, epochs=60)
    with Bench(tmp_path, task, box) as bench:
        outcome = Coop(settings).run(bench.search)
        scores = outcome.predictor.scores(bench.metered, test)
        plain = single(task.start, NAMES).scores(bench.metered, test)
    assert isinstance(outcome.predictor, SoftPredictor)
    assert outcome.predictor.context.ndim == (3 if class_specific else 2)
    gain = (scores.argmax(1) == test.labels).mean() - (plain.argmax(1) == test.labels).mean()
    assert gain > 0.1


def test_a_box_without_gradients_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    box = SoftBox()
    box.gives_gradients = False
    task, _ = make_task(box)
    with pytest.raises(AccessError, match=r"'coop' needs gradients.*craft"):
        Coop(CoopSettings()).check(box, task)
    assert not box.asked


def test_too_many_vectors_are_refused_before_anything_is_spent() -> None:
    box = OpenClipBlackBox(device="cpu")
    task, _ = make_task(SoftBox())
    optimizer = CoopReleased(tokens=64)
    with pytest.raises(ConfigError, match=r"tokens=64 leaves no room.*'circle'.* is the most"):
        optimizer.check(box, task)
