from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from soft_box import NAMES, Bench, SoftBox, make_task

from llmopt.search.soft.bbt_published import BbtReleased, BbtReleasedSettings
from llmopt.search.soft.bptvlm_published import BptVlmReleased, BptVlmReleasedSettings
from llmopt.search.soft.machinery.evolution import Evolution, hinge
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import soft_start


def test_the_released_settings() -> None:
    s = BbtReleasedSettings()
    assert (s.dim, s.population, s.sigma, s.alpha) == (500, 20, 1.0, 1.0)
    task, _ = make_task(SoftBox())
    bounds = BbtReleased(s).bounds(task)
    # 8,000 calls, and a look at the validation images every 100.
    assert bounds["soft_prompt_encodings"] == (8000 + 80) * len(NAMES)


def test_hinge() -> None:
    scores = torch.tensor([[[5.0, 1.0, 0.0], [0.0, 3.0, 2.0]], [[1.0, 1.0, 0.0], [9.0, 0.0, 0.0]]])
    labels = torch.tensor([0, 1])
    expected = torch.tensor([(0 + 1) / 2, (2 + 11) / 2], dtype=torch.float64)
    torch.testing.assert_close(hinge(scores, labels), expected)


def test_without_validation_images_the_lowest_loss_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = SoftBox()
    task, _ = make_task(box, val=False)
    walks: list[Evolution] = []
    init = Evolution.__init__
    monkeypatch.setattr(
        Evolution, "__init__", lambda self, *a, **k: (init(self, *a, **k), walks.append(self))[0]
    )
    settings = BbtReleasedSettings(budget=200, dim=10)
    with Bench(tmp_path, task, box) as bench:
        outcome = BbtReleased(settings).run(bench.search)
    assert isinstance(outcome.predictor, SoftPredictor)
    np.testing.assert_array_equal(outcome.predictor.context, walks[0].best_context.numpy())


def test_before_the_first_look_the_lowest_loss_is_kept(tmp_path: Path) -> None:
    box = SoftBox()
    with Bench(tmp_path, make_task(box)[0], box) as bench:
        outcome = BbtReleased(budget=40, dim=8).run(bench.search)
    start = soft_start(bench.metered, bench.search.task.start, NAMES).context.numpy()
    assert np.abs(outcome.predictor.context - start).max() > 1e-3


def test_bptvlm_as_released(tmp_path: Path) -> None:
    s = BptVlmReleasedSettings()
    assert (s.dim, s.population, s.tokens, s.sigma) == (500, 30, 8, 1.0)
    box = SoftBox()
    task, _ = make_task(box)
    for dataset, budget in (("dtd", 36_000), ("eurosat", 25_200), ("caltech101", 3_600)):
        bounds = BptVlmReleased(s).bounds(dataclasses.replace(task, dataset=dataset))
        assert bounds["soft_prompt_encodings"] == budget * len(NAMES)
    settings = BptVlmReleasedSettings(budget=60, dim=12)
    with Bench(tmp_path, task, box) as bench:
        outcome = BptVlmReleased(settings).run(bench.search)
    assert isinstance(outcome.predictor, SoftPredictor)
    assert outcome.predictor.context.shape == (8, 16)
