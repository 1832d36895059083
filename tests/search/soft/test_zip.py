from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from soft_box import NAMES, Bench, SoftBox, make_task

from llmopt.data.augment import Augmentation
from llmopt.search.soft.machinery.images import fresh_batch
from llmopt.search.soft.machinery.start import soft_start
from llmopt.search.soft.zip import Reparameterisation, Spsa, Zip, clip, segmented_uniform, spsa
from llmopt.search.soft.zip_published import ZipReleased, ZipReleasedSettings
from llmopt.spend.ledger import Caps


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    box = SoftBox()
    with Bench(tmp_path, make_task(box)[0], box) as bench:
        yield bench


def spsa_walk(bench: Bench, settings: ZipReleasedSettings) -> Spsa:
    search, how = bench.search, Augmentation()
    start = soft_start(bench.metered, search.task.start, NAMES)
    return Spsa(
        settings, search, start, lambda step: fresh_batch(search, step, settings.batch, how)
    )


def test_eight_tokens_are_417_numbers_that_start_at_p0() -> None:
    p0 = torch.randn(8, 512, generator=torch.Generator().manual_seed(0))
    space = Reparameterisation(np.random.default_rng(0), p0, rank=5)
    assert len(space.start) == 417
    torch.testing.assert_close(space.contexts(space.start), p0, rtol=0, atol=0)


def test_the_context_is_the_low_rank_matrix_mapped_row_by_row() -> None:
    rng = np.random.default_rng(1)
    p0 = torch.zeros(4, 32)
    space = Reparameterisation(rng, p0, rank=3)
    w = rng.normal(size=(2, len(space.start)))
    m, r, q = 4, 3, 125
    for b in range(2):
        u = w[b, : m * r].reshape(m, r)
        s = w[b, m * r : m * r + r]
        v = w[b, m * r + r : m * r + r + q * r].reshape(q, r)
        shared = w[b, -q:]
        matrix = u @ np.diag(s) @ v.T + np.ones((m, 1)) * shared
        expected = space.fastfood(torch.from_numpy(matrix.astype(np.float32)))
        torch.testing.assert_close(space.contexts(w)[b], expected, rtol=1e-4, atol=1e-5)


def test_directions_are_segmented_uniform() -> None:
    d = segmented_uniform(np.random.default_rng(0), 50, 417)
    assert np.abs(d).min() >= 0.5
    assert np.abs(d).max() <= 1.0
    assert abs((d > 0).mean() - 0.5) < 0.02


def test_spsa_divides_by_the_direction_and_is_unbiased_on_a_quadratic_loss() -> None:
    rng = np.random.default_rng(2)
    dim, w, width = 6, rng.normal(size=6), 0.2
    curvature = np.diag(rng.uniform(0.5, 2, dim))
    curvature[0, 1] = curvature[1, 0] = 0.3

    def loss(points: np.ndarray) -> np.ndarray:
        return 0.5 * np.einsum("ij,jk,ik->i", points, curvature, points)

    d = segmented_uniform(rng, 200_000, dim)
    plus, minus = loss(w + width * d), loss(w - width * d)
    np.testing.assert_allclose(spsa(plus, minus, d, width), curvature @ w, atol=0.05)
    # Multiplied by the direction instead, each entry would shrink by the mean square, 7/12.
    wrong = ((plus - minus) / (2 * width))[:, None] * d
    np.testing.assert_allclose(wrong.mean(axis=0), 7 / 12 * (curvature @ w), atol=0.05)


def test_the_gradient_is_clipped_at_the_root_of_its_dimension() -> None:
    g = np.full(417, 3.0)
    assert np.linalg.norm(clip(g)) == pytest.approx(math.sqrt(417))
    np.testing.assert_allclose(clip(g) / np.linalg.norm(clip(g)), g / np.linalg.norm(g))
    np.testing.assert_array_equal(clip(g / 10), g / 10)


def test_the_released_schedule(bench: Bench) -> None:
    settings = ZipReleasedSettings()
    assert (settings.tokens, settings.rank, settings.directions, settings.batch) == (8, 5, 5, 128)
    bounds = ZipReleased(settings).bounds(bench.search.task)
    assert bounds["soft_prompt_encodings"] == 5000 * len(NAMES)
    assert bounds["image_encodings"] == 500 * 10


def test_a_step_is_as_long_as_the_schedule_says(bench: Bench) -> None:
    settings = ZipReleasedSettings(tokens=2)
    walk = spsa_walk(bench, settings)
    for step in (0, 9):
        before = walk.w.copy()
        walk.advance(step)
        k = step + 1
        longest = 0.01 / (k + 1) ** 0.4 * math.sqrt(len(before))
        assert np.linalg.norm(walk.w - before) <= longest * (1 + 1e-9)


def test_standing_still_is_no_gain(bench: Bench) -> None:
    """Rounding makes the soft prompt a hair likelier than the template it spells."""
    outcome = Zip(budget=60, rate=1e-9, standard_errors=0).run(bench.search)
    assert outcome.fallback
    assert outcome.accuracies is not None


def test_published_calls_are_those_made(tmp_path: Path) -> None:
    box = SoftBox()
    caps = Caps(queries=25 * len(NAMES))
    with Bench(tmp_path, make_task(box)[0], box, caps=caps) as capped:
        outcome = ZipReleased().run(capped.search)
    assert outcome.stop_reason == "budget: queries"
    assert outcome.summary == {"calls_as_published": 20}


def test_both_sides_see_the_same_images(bench: Bench) -> None:
    settings = ZipReleasedSettings(batch=4)
    walk = spsa_walk(bench, settings)
    walk.advance(0)
    assert bench.box.asked["image_encodings"] == 4
    assert bench.box.asked["soft_prompt_encodings"] == 10 * len(NAMES)
