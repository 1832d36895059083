from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from llmopt.errors import ConfigError
from llmopt.heads import adapter, residual, tip_f
from llmopt.heads.base import folds
from llmopt.heads.fitted import FittedHead
from llmopt.heads.select import best
from llmopt.heads.tip import Tip
from llmopt.heads.training import TrainedHead
from llmopt.testing.heads import world

SHORT = (1, 6)
TRAINED: list[TrainedHead[Any, Any]] = [
    residual.Residual(residual.ResidualSettings(steps=SHORT, hidden=16)),
    residual.Residual(residual.ResidualSettings(steps=SHORT, hidden=16, start="released")),
    adapter.Adapter(adapter.AdapterSettings(steps=SHORT)),
    adapter.Adapter(adapter.AdapterSettings(steps=SHORT, start="released")),
    tip_f.TipF(tip_f.TipFSettings(steps=SHORT, betas=(3.0,))),
]
each_head = pytest.mark.parametrize("head", TRAINED, ids=lambda h: f"{h.name}-{h.settings}"[:40])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- losses


def test_kl_has_its_target_first_and_holds_it_fixed() -> None:
    target = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    other = torch.tensor([[0.0, 1.0, 0.5]], requires_grad=True)
    q, p = target.softmax(-1), other.softmax(-1)
    expected = (q * (q / p).log()).sum()
    value = residual.kl(target, other)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    assert target.grad is None
    assert other.grad is not None


def test_head_phase_pulls_the_refined_prediction_towards_the_raw_one() -> None:
    raw = torch.randn(6, 4, generator=generator(), requires_grad=True)
    refined = torch.randn(6, 4, generator=generator(1), requires_grad=True)
    labels = torch.arange(6) % 4
    loss = residual.refinement_loss(raw, refined, labels, 0.5)
    q, log_refined = raw.softmax(-1), refined.log_softmax(-1)
    divergence = (q * (raw.log_softmax(-1) - log_refined)).sum(-1).mean()
    expected = F.cross_entropy(refined, labels) + 0.5 * divergence
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert raw.grad is None
    plain = residual.refinement_loss(raw, refined, labels, 0.0)
    torch.testing.assert_close(plain, F.cross_entropy(refined, labels))


# --- starts


def test_a_zero_start_refines_nothing() -> None:
    scores = 30 * torch.randn(5, 7, generator=generator())
    head = residual.Refinement(7, 16, generator())
    torch.testing.assert_close(head(scores), scores, atol=1e-5, rtol=0)
    warm = residual.Refinement(7, 16, generator(), temperature=4.0)
    torch.testing.assert_close(warm(scores), scores / 4, atol=1e-5, rtol=0)


def test_the_released_start_is_pytorchs_and_a_residual_of_the_raw_scores() -> None:
    head = residual.Refinement(7, 4096, generator(), start="released")
    first, second = torch.nn.Linear(7, 4096), torch.nn.Linear(4096, 7)
    for mine, reference in [
        (head.w1, first.weight),
        (head.b1, first.bias),
        (head.w2, second.weight),
    ]:
        assert mine.shape == reference.shape
        assert mine.std().item() == pytest.approx(reference.std().item(), rel=0.05)
    scores = torch.randn(3, 7, generator=generator())
    hidden = F.relu(scores @ head.w1.T + head.b1)
    torch.testing.assert_close(head(scores), scores + hidden @ head.w2.T + head.b2)


def test_a_zero_start_of_the_adapter_moves_nothing_and_can_learn() -> None:
    features = F.normalize(torch.randn(5, 8, generator=generator()), dim=-1)
    module = adapter.Bottleneck(8, 2, 0.2, generator())
    moved = module(features)
    torch.testing.assert_close(moved, features, atol=1e-6, rtol=0)
    (moved * torch.randn(5, 8, generator=generator(1))).sum().backward()
    assert module.w2.grad is not None
    assert module.w2.grad.abs().max() > 0


def test_unknown_starts_are_refused() -> None:
    for settings in (residual.ResidualSettings, adapter.AdapterSettings):
        with pytest.raises(ConfigError, match="start='warm' must be one of: zero, released"):
            settings(start="warm")


def test_refinement_goes_through_arrays_and_back() -> None:
    head = residual.Refinement(
        3, 4, generator(), "released", np.ones(3, np.float32), 2.0, temperature=3.0
    )
    again = residual.Refinement(3, 4, generator(9))
    again.load(head.arrays())
    scores = torch.randn(2, 3, generator=generator(1))
    torch.testing.assert_close(again(scores), head(scores))


# --- training


@each_head
def test_training_repeats_and_what_is_kept_scores_as_what_was_trained(
    head: TrainedHead[Any, Any],
) -> None:
    few, test = world()
    config = {**head.options(few, 0), "steps": 6}
    tensors = head.fit(few, config, seed=3)
    again = head.fit(few, config, seed=3)
    assert all(np.array_equal(tensors[name], again[name]) for name in tensors)
    assert all(array.dtype == np.float32 for array in tensors.values())

    _, module = next(head._train(few, config, (6,), [3]))
    assert test.plain_features is not None
    base, seen = torch.from_numpy(test.plain.copy()), torch.from_numpy(test.plain_features.copy())
    with torch.no_grad():
        labels = torch.from_numpy(test.labels)
        corrected = base + torch.from_numpy(head.correct(tensors, test.plain, test.plain_features))
        divisor = float(config["temperature"])
        expected = F.cross_entropy(corrected / divisor, labels).item()
        if isinstance(head, residual.Residual):
            torch.testing.assert_close(module(base) * divisor, corrected, atol=1e-4, rtol=1e-4)
        else:
            assert head.loss(module, base, seen, labels).item() == pytest.approx(expected, rel=1e-4)


@each_head
def test_an_image_is_scored_by_a_fit_on_other_folds(
    head: TrainedHead[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, _ = world(shots=6)
    options, fold = head.options(few, 0), folds(few.labels, 5, 0)
    monkeypatch.setattr(head, "options", lambda *_: options)
    monkeypatch.setattr("llmopt.heads.training.folds", lambda *_: fold)
    candidates = list(head.held_out(few, seed=0))
    assert [config["steps"] for config, _ in candidates] == list(SHORT)
    np.testing.assert_array_equal(candidates[-1][1], list(head.held_out(few, seed=0))[-1][1])

    # The label of an image changes what is said of other folds, not of its own.
    labels = few.labels.copy()
    labels[0] = 1
    _, before = candidates[-1]
    _, after = list(head.held_out(replace(few, labels=labels), seed=0))[-1]
    own = fold == fold[0]
    np.testing.assert_array_equal(after[own], before[own])
    assert not np.array_equal(after[~own], before[~own])


def test_training_lowers_the_loss_on_its_images() -> None:
    few, _ = world(shots=6)
    for head in TRAINED:
        options = head.options(few, 0)
        losses = []
        for _, module in head._train(few, options, SHORT, [0]):
            fitted = FittedHead(head.name, head.arrays(module), {}, 1.0, options["temperature"])
            scores = torch.from_numpy(fitted.scores(few.plain, few.plain_features))
            losses.append(F.cross_entropy(scores, torch.from_numpy(few.labels)).item())
        assert losses[1] < losses[0]


def test_tip_f_starts_where_tip_ends() -> None:
    few, test = world()
    head = tip_f.TipF()
    options = head.options(few, 0)
    found = best(Tip(), few, 0, views=(few.views,))
    module = head.build(few, options, generator())
    assert test.plain_features is not None
    added = module(torch.from_numpy(test.plain_features.copy())).detach().numpy()
    tensors = Tip().fit(few, found.config, 0)
    expected = found.alpha * Tip.correct(tensors, test.plain, test.plain_features)
    np.testing.assert_allclose(added, expected, rtol=1e-4, atol=1e-5)
