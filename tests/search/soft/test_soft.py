from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from soft_box import NAMES, PLAIN, Bench, SoftBox, make_task

from llmopt.data.augment import Augmentation
from llmopt.errors import BudgetExhausted, ConfigError
from llmopt.predictor import single
from llmopt.search.soft.machinery.ending import Ending
from llmopt.search.soft.machinery.images import Encoded, fresh_batch
from llmopt.search.soft.machinery.schedules import (
    check_budget,
    check_choice,
    cosine_rate,
    per_epoch,
)
from llmopt.search.soft.machinery.scoring import cross_entropy, kl, score, soft_text
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import soft_start
from llmopt.spend.ledger import Caps
from llmopt.template import Template


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    box = SoftBox()
    with Bench(tmp_path, make_task(box)[0], box) as bench:
        yield bench


@pytest.mark.parametrize("text", [PLAIN, "one {}.", "a {} on the left.", "itap of a  {} ."])
def test_a_soft_start_scores_like_its_template(bench: Bench, text: str) -> None:
    template, task = Template(text), bench.search.task
    start = soft_start(bench.metered, template, NAMES)
    soft = SoftPredictor(start.context.numpy(), start.names)
    expected = single(template, NAMES).scores(bench.metered, task.train)
    np.testing.assert_allclose(
        soft.scores(bench.metered, task.train), expected, atol=1e-5 * bench.box.info.logit_scale
    )


@pytest.mark.parametrize("text", ["{} texture.", "{}", "a photo of {}", "the big_{}."])
def test_every_template_has_a_soft_start(bench: Bench, text: str) -> None:
    start = soft_start(bench.metered, Template(text), NAMES)
    assert start.context.ndim == 2
    assert len(start.context) >= 1
    assert not any(name.endswith(".") for name in start.names)


def test_a_soft_predictor_survives_a_file(bench: Bench, tmp_path: Path) -> None:
    before = SoftPredictor(np.random.default_rng(0).normal(size=(3, 16)).astype("f4"), NAMES)
    arrays, config = before.state()
    save_file(arrays, tmp_path / "p.safetensors")
    after = SoftPredictor.from_state(
        load_file(tmp_path / "p.safetensors"), json.loads(json.dumps(config))
    )
    images = bench.search.task.val
    np.testing.assert_array_equal(
        before.scores(bench.metered, images), after.scores(bench.metered, images)
    )
    assert config["kind"] == "soft"
    assert "names[k] + '.'" in config["recipe"]
    assert after.soft_prompt == {"tokens": 3, "width": 16, "class_specific": False}
    assert after.describe() == "soft prompt of 3 vectors"


def test_heads_find_the_class_embeddings_of_a_soft_prompt(bench: Bench) -> None:
    start = soft_start(bench.metered, Template(PLAIN), NAMES)
    soft = SoftPredictor(start.context.numpy(), start.names)
    assert soft.linear
    expected = single(Template(PLAIN), NAMES).text_matrix(bench.metered)
    for images in (bench.search.task.train, None):
        np.testing.assert_allclose(soft.text_matrix(bench.metered, images), expected, atol=1e-6)


def test_scoring_in_pieces_is_scoring_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Encoded.of(bench.metered, bench.search.task.train)
    contexts = torch.randn(7, 2, 16, generator=torch.Generator().manual_seed(1))
    whole = score(bench.metered, images, contexts, NAMES)
    monkeypatch.setattr("llmopt.search.soft.machinery.scoring._WORKSPACE", 400)
    before = bench.ledger["black_box_calls"]
    pieces = score(bench.metered, images, contexts, NAMES)
    assert bench.ledger["black_box_calls"] - before > 1
    torch.testing.assert_close(whole, pieces)


def test_soft_text_reads_off_the_features(bench: Bench) -> None:
    start = soft_start(bench.metered, Template(PLAIN), NAMES)
    text = soft_text(bench.metered, 12, start.context, start.names)
    expected = bench.metered.text_features([Template(PLAIN)], NAMES)[0]
    np.testing.assert_allclose(text.numpy(), expected, atol=1e-6)


def test_losses_are_per_candidate() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    other = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 4])
    for b in range(3):
        expected = torch.nn.functional.cross_entropy(scores[b], labels)
        torch.testing.assert_close(cross_entropy(scores, labels)[b], expected)
        target, of = scores[b].log_softmax(-1), other[b].log_softmax(-1)
        divergence = torch.nn.functional.kl_div(of, target, log_target=True, reduction="batchmean")
        torch.testing.assert_close(kl(scores, other)[b], divergence)
    assert float(kl(scores, scores).abs().max()) < 1e-6
    assert not torch.allclose(kl(scores, other), kl(other, scores))


def test_fresh_batches_pass_over_all_images_and_drop_a_small_last_one(bench: Bench) -> None:
    assert per_epoch(10, 4) == 2
    assert per_epoch(3, 32) == 1
    how = Augmentation()
    first = [fresh_batch(bench.search, step, 4, how) for step in range(2)]
    again = fresh_batch(bench.search, 0, 4, how)
    np.testing.assert_array_equal(first[0].features, again.features)
    assert bench.ledger["image_encodings"] == 12  # none is kept
    second = fresh_batch(bench.search, 2, 4, how)
    assert bench.ledger["image_encodings"] == 16
    assert not np.array_equal(first[0].features, second.features)
    assert len(fresh_batch(bench.search, 0, 32, how)) == 10


def test_the_learning_rate_falls_to_zero() -> None:
    rates = [cosine_rate(epoch, 50, 2e-3) for epoch in range(51)]
    assert rates[0] == 2e-3
    assert rates[1] == pytest.approx(2e-3 * 0.5 * (1 + np.cos(np.pi / 50)))
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rates[50] == pytest.approx(0, abs=1e-9)


def test_endings() -> None:
    with Ending() as ending:
        raise BudgetExhausted("queries", 10)
    assert ending.reason == "budget: queries"
    with Ending() as ending:
        raise BudgetExhausted("interrupted", 0)
    assert ending.reason == "interrupted"
    with pytest.raises(ZeroDivisionError), Ending():
        _ = 1 / 0


def test_settings_are_refused_by_name_value_and_range() -> None:
    with pytest.raises(ConfigError, match=r"setting budget=1 must be 2 or more"):
        check_budget(1, 2)
    check_budget(None, 2)
    with pytest.raises(ConfigError, match=r"must be one of: ce, hinge; did you mean 'hinge'"):
        check_choice("loss", "hinges", ("ce", "hinge"))


def test_a_cap_is_reached_before_it_is_passed(tmp_path: Path) -> None:
    box = SoftBox()
    with Bench(tmp_path, make_task(box)[0], box, Caps(queries=9)) as bench:
        images = Encoded.of(bench.metered, bench.search.task.train)
        with pytest.raises(BudgetExhausted):
            score(bench.metered, images, torch.zeros(2, 1, 16), NAMES)
    assert box.asked["soft_prompt_encodings"] == 0
