from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from soft_box import NAMES, Bench, SoftBox, make_task

from llmopt.data.augment import Augmentation
from llmopt.heads.predictor import HeadedPredictor
from llmopt.search.soft.cbbt import CbbtSettings, Descent, class_wise, orthogonal, two_sided
from llmopt.search.soft.cbbt_published import (
    CbbtReleased,
    CbbtReleasedSettings,
    Training,
    one_sided,
    released_words,
    sphere,
)
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.point import Point
from llmopt.search.soft.machinery.scoring import cross_entropy
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import soft_start
from llmopt.search.soft.machinery.trail import Trail
from llmopt.template import Template


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    box = SoftBox()
    with Bench(tmp_path, make_task(box)[0], box) as bench:
        yield bench


# --- the estimators ------------------------------------------------------------------------------


@pytest.mark.parametrize(("dim", "factor"), [(40, 1.0), (1000, 1.0), (2048, 1000 / 2048)])
def test_the_published_estimate_of_a_linear_loss(dim: int, factor: float) -> None:
    rng = np.random.default_rng(0)
    slope = rng.normal(size=dim) / np.sqrt(dim)
    eps = max(1 / dim, 0.001)
    # The mean over all directions: a complete orthogonal set has it exactly.
    u = orthogonal(rng, dim, dim)
    np.testing.assert_allclose(one_sided(eps * u @ slope, 0.0, u, eps), factor * slope, atol=1e-9)


def test_the_published_estimate_is_unbiased_over_random_directions() -> None:
    rng = np.random.default_rng(1)
    slope, dim = rng.normal(size=10), 10
    u = sphere(rng, 200_000, dim)
    eps = max(1 / dim, 0.001)
    np.testing.assert_allclose(one_sided(eps * u @ slope, 0.0, u, eps), slope, atol=0.03)


def test_two_sides_are_exact_on_a_quadratic_loss() -> None:
    rng = np.random.default_rng(2)
    dim, p, eps = 12, rng.normal(size=12), 0.3
    curvature = rng.normal(size=(dim, dim))
    curvature = curvature @ curvature.T

    def loss(points: np.ndarray) -> np.ndarray:
        return 0.5 * np.einsum("ij,jk,ik->i", points, curvature, points)

    u = orthogonal(rng, dim, dim)
    found = two_sided(loss(p + eps * u), loss(p - eps * u), u, eps)
    np.testing.assert_allclose(found, curvature @ p, rtol=1e-9)
    one = one_sided(loss(p + eps * u), float(loss(p[None])[0]), u, eps) * eps * dim
    assert np.abs(one - curvature @ p).max() > 0.1


def test_directions_are_unit_and_orthogonal() -> None:
    rng = np.random.default_rng(3)
    np.testing.assert_allclose(np.linalg.norm(sphere(rng, 5, 7), axis=1), 1)
    u = orthogonal(rng, 10, 7)
    np.testing.assert_allclose(u[:7] @ u[:7].T, np.eye(7), atol=1e-12)
    np.testing.assert_allclose(u[7:] @ u[7:].T, np.eye(3), atol=1e-12)
    first = np.stack([orthogonal(rng, 2, 5)[0] for _ in range(4000)])
    np.testing.assert_allclose(first.mean(axis=0), 0, atol=0.04)
    np.testing.assert_allclose(first.T @ first / 4000, np.eye(5) / 5, atol=0.02)


def test_class_wise_directions_give_the_gradient_of_all_classes() -> None:
    # Class k's score of image n is linear, <a_nk, p>, so its sum over the images is <v_k, p>.
    rng = np.random.default_rng(4)
    classes, dim, eps = 3, 5, 0.1
    v = rng.normal(size=(classes, dim))
    u = np.stack([orthogonal(rng, dim, dim) for _ in range(classes)], axis=1)  # (q, K, D)
    plus = eps * np.einsum("qkd,kd->qk", u, v)
    np.testing.assert_allclose(class_wise(plus, -plus, u, eps), v.sum(axis=0), rtol=1e-9)


@pytest.mark.parametrize("own", [True, False])
def test_the_search_estimates_the_true_gradient(bench: Bench, own: bool) -> None:
    task = bench.search.task
    start = soft_start(bench.metered, Template("old {}."), NAMES)
    trail = Trail(bench.search, start.names)
    count = start.context.numel()
    # A complete set of directions is exact; sets of their own for the classes are not complete.
    directions = 16 * count if own else count
    settings = CbbtSettings(directions=directions, own=own, eps=0.002)
    walk = Descent(settings, bench.search, start, 10, trail.fit)
    scores = trail.visit(start.context)
    rng = np.random.default_rng(0)
    found = walk._own(rng, scores) if own else walk._shared(rng)

    p = start.context.clone().requires_grad_()
    features = bench.metered.image_features(task.train)
    logits = bench.metered.soft_logits(features, p[None], start.names, grad=True)
    (true,) = torch.autograd.grad(cross_entropy(logits, trail.fit.labels)[0], p)
    expected = true.numpy().ravel()
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > (0.97 if own else 0.999)
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(expected), rel=0.1)


# --- the point -----------------------------------------------------------------------------------


def test_a_few_axes_leave_the_start_in_place() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 8, generator=generator)
    axes = torch.linalg.qr(torch.randn(8, 2, generator=generator))[0].T.contiguous()
    point = Point(start, axes, rate=0.1, decay=0.0)
    assert point.w.shape == (3, 2)
    torch.testing.assert_close(point.contexts(), start)
    point.descend(np.ones(6), 0.1, clip=5.0)
    moved = point.contexts() - start
    torch.testing.assert_close(moved @ axes.T @ axes, moved, atol=1e-5, rtol=0)
    assert point.contexts(np.zeros((4, 2, 6))).shape == (4, 2, 3, 8)


# --- as published --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "words"),
    [(1, "a"), (2, "a photo"), (4, "a photo of a"), (3, "a photo of a"),
     (8, "a photo of a a photo of a")],
)  # fmt: skip
def test_the_released_start(tokens: int, words: str) -> None:
    assert released_words(tokens) == words


def test_the_released_step_size_and_epochs(bench: Bench) -> None:
    settings = CbbtReleasedSettings()
    assert (settings.directions, settings.batch, settings.rate) == (256, 32, 2e-3)
    walk = Training(settings, bench.search, 150)
    assert walk.eps == 1 / 16
    bounds = CbbtReleased(settings).bounds(bench.search.task)
    # 10 images are one batch: 150 epochs of 257 contexts, and one an epoch for the adapter.
    assert bounds["soft_prompt_encodings"] == 150 * 258 * len(NAMES)
    assert bounds["image_encodings"] == 150 * 10


def test_the_adapter_moves_the_features_by_a_fifth(bench: Bench) -> None:
    settings = CbbtReleasedSettings(epochs=2, directions=4)
    outcome = CbbtReleased(settings).run(bench.search)
    assert isinstance(outcome.predictor, HeadedPredictor)
    prompt, head = outcome.predictor.base, outcome.predictor.fitted
    assert isinstance(prompt, SoftPredictor)
    assert head.name == "adapter"
    images = Encoded.of(bench.metered, bench.search.task.train)
    moved = np.maximum(
        np.maximum(images.features @ head.tensors["w1"].T, 0) @ head.tensors["w2"].T, 0
    )
    mixed = 0.2 * moved + 0.8 * images.features
    mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
    context = torch.from_numpy(prompt.context)[None]
    expected = bench.metered.soft_logits(mixed, context, prompt.names)[0]
    scores = outcome.predictor.scores(bench.metered, bench.search.task.train)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-4)


def test_the_adapter_learns_beside_the_prompt(bench: Bench) -> None:
    settings = CbbtReleasedSettings(directions=4, rate=0.02, clip=1e-12, flip=False)
    walk = Training(settings, bench.search, 20)
    walk.how = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0))  # a crop is another class here
    losses = [walk.advance(step) for step in range(20)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.05
