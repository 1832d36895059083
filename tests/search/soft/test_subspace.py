from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from soft_box import Bench, SoftBox, make_task

from llmopt.errors import ConfigError
from llmopt.search.soft.machinery.fastfood import Fastfood, walsh_hadamard
from llmopt.search.soft.machinery.subspace import (
    Subspace,
    bbt_std,
    gaussian,
    orthonormal,
    word_axes,
)


def test_the_scale_rule_starts_at_the_size_of_words() -> None:
    rng = np.random.default_rng(0)
    std = bbt_std(0.02, dim=200, sigma=0.5, alpha=1.0)
    for projection in (
        gaussian(rng, 2048, 200, std),
        orthonormal(rng, 2048, 200, 0.02, 0.5, 1.0),
    ):
        moved = projection.numpy() @ rng.normal(0, 0.5, (200, 400))
        assert moved.std() == pytest.approx(0.02, rel=0.03)


def test_orthonormal_columns_have_one_length() -> None:
    projection = orthonormal(np.random.default_rng(1), 64, 16, 1.0, 1.0, 1.0).double()
    gram = projection.T @ projection
    torch.testing.assert_close(gram, torch.eye(16).double() * gram[0, 0], atol=1e-5, rtol=1e-5)


def test_the_origin_is_at_zero() -> None:
    origin = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    subspace = Subspace(origin, gaussian(np.random.default_rng(0), 15, 4, 1.0))
    torch.testing.assert_close(subspace.contexts(np.zeros(4)), origin)
    z = np.random.default_rng(2).normal(size=(6, 4))
    many = subspace.contexts(z)
    assert many.shape == (6, 3, 5)
    torch.testing.assert_close(many[2], subspace.contexts(z[2]))


def test_word_axes(tmp_path: Path) -> None:
    box = SoftBox()
    with Bench(tmp_path, make_task(box)[0], box) as bench:
        axes = word_axes(bench.metered, 6)
        with pytest.raises(ConfigError, match="rank=99"):
            word_axes(bench.metered, 99)
    torch.testing.assert_close(axes @ axes.T, torch.eye(6), atol=1e-5, rtol=0)
    assert not box.asked


@pytest.mark.parametrize("length", [1, 2, 8, 64])
def test_walsh_hadamard(length: int) -> None:
    x = torch.randn(3, 2, length, generator=torch.Generator().manual_seed(0)).double()
    expected = x @ torch.from_numpy(hadamard(length).astype(float))
    torch.testing.assert_close(walsh_hadamard(x), expected)


def test_fastfood_maps_each_row_by_itself() -> None:
    rows, inputs, outputs = 3, 10, 12
    fastfood = Fastfood(np.random.default_rng(0), rows, inputs, outputs)
    x = torch.randn(4, rows, inputs, generator=torch.Generator().manual_seed(0))
    h = torch.from_numpy(hadamard(fastfood.length).astype(np.float32))
    expected = torch.empty(4, rows, outputs)
    for b in range(4):
        for i in range(rows):
            padded = torch.zeros(fastfood.length)
            padded[:inputs] = x[b, i]
            mixed = (h @ (fastfood.signs[i] * padded))[fastfood.order[i]]
            expected[b, i] = (h @ (fastfood.gauss[i] * mixed))[:outputs]
    torch.testing.assert_close(fastfood(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(62, 512), (62, 96), (62, 640), (125, 32)])
def test_fastfood_keeps_norms_on_average(inputs: int, outputs: int) -> None:
    fastfood = Fastfood(np.random.default_rng(0), 200, inputs, outputs)
    x = torch.nn.functional.normalize(
        torch.randn(200, inputs, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    assert float(fastfood(x).square().sum(-1).mean()) == pytest.approx(1, rel=0.15)
