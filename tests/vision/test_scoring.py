"""Reductions equal what the full logits give, however templates and images are cut into blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmopt.vision import scoring
from llmopt.vision.scoring import Reduction, accuracy, logprob, margin, reduced

N, K, T = 23, 5, 3


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 3, (T, N, K)).astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.random.default_rng(2).integers(K, size=N)


def test_what_the_reductions_are(logits: np.ndarray, labels: np.ndarray) -> None:
    for t in range(T):
        for n in range(N):
            row, true = logits[t, n].tolist(), int(labels[n])
            others = [logit for k, logit in enumerate(row) if k != true]
            assert margin(logits, labels)[t, n] == pytest.approx(row[true] - max(others), abs=1e-5)
            assert accuracy(logits, labels)[t, n] == (row[true] > max(others))
            expected = -F.cross_entropy(torch.tensor(logits[t, n]), torch.tensor(true)).item()
            assert logprob(logits, labels)[t, n] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("reduce", [accuracy, logprob, margin])
@pytest.mark.parametrize("pairs", [1, 7, N, N + 1, 2 * N, 10 * N])
def test_blocks_change_nothing(
    logits: np.ndarray,
    labels: np.ndarray,
    reduce: Reduction,
    pairs: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scoring, "BLOCK_BYTES", pairs * 4 * K)
    largest = 0

    def some(templates: slice, images: slice) -> np.ndarray:
        nonlocal largest
        block = logits[templates, images]
        largest = max(largest, block.nbytes)
        return block

    found = reduced(some, T, labels, K, reduce)
    np.testing.assert_array_equal(found, reduce(logits, labels))
    assert largest <= pairs * 4 * K
