"""Reductions equal what the full logits give, however the images are cut into blocks."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from llmopt.blackbox import scoring
from llmopt.blackbox.scoring import score_templates

N, K, T, D, SCALE, BIAS = 23, 5, 3, 8, 30.0, -10.0


@pytest.fixture
def features() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = F.normalize(torch.randn(N, D, generator=generator), dim=-1)
    text = F.normalize(torch.randn(T, K, D, generator=generator), dim=-1)
    return images, text, torch.randint(K, (N,), generator=generator)


def test_logits(features: tuple[torch.Tensor, ...]) -> None:
    images, text, _ = features
    logits = score_templates(images, iter(text), SCALE, logit_bias=BIAS)
    expected = SCALE * torch.einsum("nd,tkd->tnk", images, text) + BIAS
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("block_bytes", [1, 4 * K * 7, 2**20])
def test_reductions(
    features: tuple[torch.Tensor, ...], block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_BLOCK_BYTES", block_bytes)
    images, text, labels = features
    logits = score_templates(images, text, SCALE)
    accuracy = score_templates(images, text, SCALE, labels, "accuracy")
    logprob = score_templates(images, text, SCALE, labels, "logprob")
    margin = score_templates(images, text, SCALE, labels, "margin")
    for t in range(T):
        for n in range(N):
            row, true = logits[t, n].tolist(), int(labels[n])
            others = [logit for k, logit in enumerate(row) if k != true]
            assert margin[t, n].item() == pytest.approx(row[true] - max(others), abs=1e-4)
            assert accuracy[t, n].item() == float(row[true] > max(others))
            expected = -F.cross_entropy(logits[t, n], labels[n]).item()
            assert logprob[t, n].item() == pytest.approx(expected, abs=1e-4)


def test_logits_may_serve_in_a_gradient(features: tuple[torch.Tensor, ...]) -> None:
    images, text, _ = features
    weight = torch.ones(K, requires_grad=True)
    (score_templates(images, text, SCALE) * weight).sum().backward()
    assert weight.grad is not None


def test_mistakes(features: tuple[torch.Tensor, ...]) -> None:
    images, text, _ = features
    with pytest.raises(ValueError, match="needs labels"):
        score_templates(images, text, SCALE, reduce="margin")
    with pytest.raises(ValueError, match="no templates"):
        score_templates(images, [], SCALE)
