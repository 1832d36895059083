from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from soft_box import NAMES, PLAIN, Bench, SoftBox, make_task

from llmopt.heads.predictor import HeadedPredictor
from llmopt.predictor import single
from llmopt.search.soft.craft import Craft, CraftSettings
from llmopt.search.soft.craft_published import (
    TABLE,
    Alternation,
    CraftPaperSettings,
    CraftReleased,
    CraftReleasedSettings,
)
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.trail import Trail
from llmopt.template import Template


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    box = SoftBox()
    with Bench(tmp_path, make_task(box)[0], box) as bench:
        yield bench


def alternation(bench: Bench, **given: object) -> Alternation:
    return Alternation(
        CraftReleasedSettings(**{"population": 6, "dim": 8, "budget": 60, **given}), bench.search
    )


# --- the released configuration ------------------------------------------------------------------


def test_the_published_profiles_differ_as_documented() -> None:
    released = CraftReleasedSettings()
    paper = CraftPaperSettings()
    assert (released.dim, released.population, released.lr) == (512, 40, 1e-3)
    assert (released.consistency, paper.consistency) == ("released", "paper")
    assert (released.context, paper.context) == ("draws", "mean")
    assert (released.decay, paper.decay) == (0.0, 0.01)
    assert (released.feature_norm, paper.feature_norm) == (10.0, 1.0)


def test_the_table_by_data_set(bench: Bench) -> None:
    assert TABLE["oxford_pets"].batch == 64
    assert TABLE["food101"].weight == 1
    assert TABLE["dtd"].std == 1
    assert TABLE["dtd"].sigma == 0.02
    assert TABLE["fgvc_aircraft"].bound == 0
    assert TABLE["imagenet"].hidden == 512
    assert len(TABLE) == 11
    task = dataclasses.replace(bench.search.task, dataset="eurosat")
    settings = CraftReleasedSettings()
    assert settings.line(task) is TABLE["eurosat"]
    assert settings.line(bench.search.task) is TABLE["caltech101"]
    other = CraftReleasedSettings(row="dtd")
    assert other.line(task) is TABLE["dtd"]


@pytest.mark.parametrize(
    ("shots", "dataset", "expected"),
    [
        (1, "dtd", 2000),
        (2, "dtd", 4000),
        (4, "dtd", 4000),
        (8, "dtd", 8000),
        (16, "dtd", 8000),
        (1, "imagenet", 2000),
        (16, "imagenet", 4000),
    ],
)
def test_budgets_by_shots(bench: Bench, shots: int, dataset: str, expected: int) -> None:
    task = dataclasses.replace(bench.search.task, shots=shots, dataset=dataset)
    assert CraftReleasedSettings().evaluations(task) == expected


def test_the_bounds_are_those_of_the_papers_arithmetic() -> None:
    # EuroSAT at 16 shots: 8,000 counted contexts and 200 more for the head, 200 * 160 images.
    box = SoftBox()
    task, _ = make_task(box, shots=32)  # 160 images of 5 classes
    task = dataclasses.replace(task, dataset="eurosat", shots=16)
    bounds = CraftReleased().bounds(task)
    assert bounds["soft_prompt_encodings"] == (8000 + 200) * 5
    assert bounds["image_encodings"] == 160 + 32_000


# --- zero-shot parity ----------------------------------------------------------------------------


def test_z_zero_and_a_zero_head_are_zero_shot_of_the_plain_template(bench: Bench) -> None:
    task = dataclasses.replace(bench.search.task, start=Template("itap of my {}."))
    bench.search.task = task
    walk = alternation(bench)
    with torch.no_grad():
        walk.head.w2.zero_()
        walk.head.b2.zero_()
    images = Encoded.of(bench.metered, task.train)
    context = walk.subspace.contexts(np.zeros((1, 8)))
    raw = bench.metered.soft_logits(images.features, context, walk.start.names)[0]
    expected = single(Template(PLAIN), NAMES).scores(bench.metered, task.train)
    tolerance = 1e-5 * bench.box.info.logit_scale
    np.testing.assert_allclose(walk.head(raw).detach().numpy(), expected, atol=tolerance)


def test_the_default_starts_at_the_users_template(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    visit = Trail.visit

    def watch(self: Trail, context: torch.Tensor) -> torch.Tensor:
        seen.append(visit(self, context))
        return seen[-1]

    monkeypatch.setattr(Trail, "visit", watch)
    Craft(CraftSettings(budget=20, population=4, dim=4, head="none")).run(bench.search)
    task = bench.search.task
    expected = single(task.start, NAMES).scores(bench.metered, task.train)
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-5 * bench.box.info.logit_scale)


# --- the two phases ------------------------------------------------------------------------------


def divergence(target: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    p, q = target.softmax(-1), other.softmax(-1)
    return (p * (p / q).log()).sum(-1).mean(-1)


@pytest.mark.parametrize("profile", ["released", "paper"])
def test_the_prompt_is_pulled_in_the_direction_of_its_profile(bench: Bench, profile: str) -> None:
    walk = alternation(bench, consistency=profile, row="food101")  # w = 1
    images = Encoded.of(bench.metered, bench.search.task.train)
    asked: list[np.ndarray] = []
    ask = walk.cma.ask
    walk.cma.ask = lambda: asked.append(ask()) or asked[-1]  # type: ignore[func-returns-value]
    fitness = walk._prompt_phase(images)

    raw = bench.metered.soft_logits(
        images.features, walk.subspace.contexts(asked[0]), walk.start.names
    ).double()
    refined = walk.head(raw.float()).detach().double()
    expected = torch.stack(
        [torch.nn.functional.cross_entropy(scores, images.labels) for scores in raw]
    )
    pull = divergence(refined, raw) if profile == "released" else divergence(raw, refined)
    other = divergence(raw, refined) if profile == "released" else divergence(refined, raw)
    np.testing.assert_allclose(fitness, (expected + pull).numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(fitness, (expected + other).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_the_head_is_pulled_towards_the_raw_prediction(
    bench: Bench, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = alternation(bench, feature_norm=3.0)
    before = [p.detach().clone() for p in walk.head.parameters()]
    losses: list[torch.Tensor] = []
    backward = torch.autograd.backward
    monkeypatch.setattr(
        torch.autograd, "backward", lambda loss: (losses.append(loss.detach()), backward(loss))
    )
    walk._head_phase(0, weight)
    images = walk._encode(1)
    raw = (
        3.0
        * bench.metered.soft_logits(images.features, walk.context[None], walk.start.names)[
            0
        ].double()
    )
    hidden = torch.relu(raw @ before[0].double().T + before[1].double())
    refined = raw + hidden @ before[2].double().T + before[3].double()
    expected = torch.nn.functional.cross_entropy(refined, images.labels)
    expected = expected + weight * divergence(raw, refined)
    assert float(losses[0]) == pytest.approx(float(expected), rel=1e-4)


def test_the_heads_pull_is_switched_off_after_its_share_of_the_budget(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = alternation(bench)  # caltech101's row: w = 0.1, n = 4; 60 evaluations, 6 a generation
    weights: list[float] = []
    monkeypatch.setattr(walk, "_head_phase", lambda turn, weight: weights.append(weight) or 0.0)
    walk.run()
    assert weights == [0.1, 0.1, *[0.0] * 8]


def test_the_context_is_the_mean_of_fresh_draws_or_of_the_distribution(bench: Bench) -> None:
    images = Encoded.of(bench.metered, bench.search.task.train)
    paper = alternation(bench, context="mean")
    paper._prompt_phase(images)
    torch.testing.assert_close(paper.context, paper.subspace.contexts(paper.cma.mean))

    released = alternation(bench)
    before = bench.ledger["soft_prompt_encodings"]
    released._prompt_phase(images)
    assert bench.ledger["soft_prompt_encodings"] - before == 6 * len(NAMES)  # draws are not scored
    assert released.cma.state()["cma.drawn"].tolist() == [1]
    mean = released.subspace.contexts(released.cma.mean)
    assert not torch.allclose(released.context, mean)


def test_the_last_context_and_head_are_the_result(bench: Bench) -> None:
    walk = alternation(bench)
    outcome = walk.run()
    assert isinstance(outcome.predictor, HeadedPredictor)
    assert isinstance(outcome.predictor.base, SoftPredictor)
    np.testing.assert_array_equal(outcome.predictor.base.context, walk.context.numpy())
    np.testing.assert_array_equal(
        outcome.predictor.fitted.tensors["w1"], walk.head.w1.detach().numpy()
    )
    assert outcome.summary["evaluations_as_published"] == 60


def test_images_are_encoded_anew_for_every_epoch_of_the_head(bench: Bench) -> None:
    alternation(bench).run()
    assert bench.ledger["image_encodings"] == (1 + 10) * len(bench.search.task.train)


def test_the_imagenet_variant_keeps_the_best_ever(bench: Bench) -> None:
    walk = alternation(bench, row="imagenet")
    limit = 1 / np.sqrt(walk.settings.dim)
    assert float(walk.subspace.projection.abs().max()) <= limit
    assert walk.head.w1.shape[0] == 512
    walk.run()
    assert walk.cma.state()["cma.told"].min() == walk.best
    assert walk.cma.state()["cma.drawn"].sum() == 0


def test_without_its_head_it_is_the_prompt_search_of_the_papers_bbt_rows(bench: Bench) -> None:
    walk = alternation(bench, head="none", row="food101")  # w = 1 pulls nothing without a head
    asked: list[np.ndarray] = []
    ask = walk.cma.ask
    walk.cma.ask = lambda: asked.append(ask()) or asked[-1]  # type: ignore[func-returns-value]
    outcome = walk.run()
    task = bench.search.task
    assert isinstance(outcome.predictor, SoftPredictor)
    assert bench.ledger["soft_prompt_encodings"] == 60 * len(NAMES)
    assert bench.ledger["image_encodings"] == len(task.train)  # in one view, encoded once
    bounds = CraftReleased(population=6, dim=8, budget=60, head="none").bounds(task)
    assert bounds["soft_prompt_encodings"] == 60 * len(NAMES)
    assert bounds["image_encodings"] == len(task.train)

    images = walk._encode(0)
    contexts = walk.subspace.contexts(asked[0])
    scores = bench.metered.soft_logits(images.features, contexts, walk.start.names).double().numpy()
    likelihood = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    own = likelihood[:, np.arange(len(task.train)), images.labels.numpy()]
    np.testing.assert_allclose(
        walk.cma.state()["cma.told"][0], -np.log(own).mean(axis=1), rtol=1e-5
    )


# --- the default ---------------------------------------------------------------------------------


def test_the_default_finds_a_planted_prompt(tmp_path: Path) -> None:
    gains = []
    for seed in (1, 2, 3):
        box = SoftBox()
        task, test = make_task(box, shots=4, seed=seed)
        with Bench(tmp_path / str(seed), task, box, seed=seed) as bench:
            outcome = Craft(CraftSettings(budget=680, dim=16, head="none")).run(bench.search)
            scores = outcome.predictor.scores(bench.metered, test)
            plain = single(task.start, NAMES).scores(bench.metered, test)
        hits, before = (s.argmax(axis=1) == test.labels for s in (scores, plain))
        gains.append(hits.mean() - before.mean())
    assert np.mean(gains) > 0.1
    assert min(gains) >= 0


def test_views_of_the_training_images_are_encoded_once(bench: Bench) -> None:
    Craft(CraftSettings(budget=40, population=8, dim=4, views=3, head="bias")).run(bench.search)
    task = bench.search.task
    assert bench.ledger["image_encodings"] == 4 * len(task.train) + len(task.val)
