"""What every continuous optimizer promises, in every profile."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from soft_box import NAMES, Bench, SoftBox, make_task

from llmopt.errors import ConfigError
from llmopt.predictor import TextPredictor
from llmopt.search.base import Optimizer, Outcome
from llmopt.search.soft.bbt import Bbt
from llmopt.search.soft.bbt_published import BbtReleased
from llmopt.search.soft.bptvlm import BptVlm
from llmopt.search.soft.bptvlm_published import BptVlmReleased
from llmopt.search.soft.cbbt import Cbbt
from llmopt.search.soft.cbbt_published import CbbtReleased
from llmopt.search.soft.coop import Coop
from llmopt.search.soft.coop_published import CoopReleased
from llmopt.search.soft.craft import Craft
from llmopt.search.soft.craft_published import CraftPaper, CraftReleased
from llmopt.search.soft.zip import Zip, ZipSettings
from llmopt.search.soft.zip_published import ZipReleased
from llmopt.spend.journal import read_journal
from llmopt.spend.ledger import Caps
from llmopt.task import Task, TestSet


@dataclass(frozen=True)
class Case:
    """An optimizer with settings that make it short."""

    kind: type[Optimizer[Any]]
    given: dict[str, Any]

    def __str__(self) -> str:
        return "-".join([self.kind.name, self.kind.form, *(str(v) for v in self.given.values())])

    def make(self) -> Optimizer[Any]:
        return self.kind(**self.given)


SAFE = [
    Case(Craft, {"budget": 60, "population": 8, "dim": 6, "restarts": 2, "head": "none"}),
    Case(Craft, {"budget": 60, "population": 8, "restarts": 1, "views": 2, "head": "bias"}),
    Case(Bbt, {"budget": 60, "population": 8, "dim": 6, "loss": "hinge"}),
    Case(BptVlm, {"budget": 60, "population": 8, "dim": 10}),
    Case(Cbbt, {"budget": 60, "directions": 3, "adapter": False}),
    Case(Cbbt, {"budget": 30, "directions": 3, "own": False, "rank": 4, "views": 1}),
    Case(Zip, {"budget": 60}),
    Case(Coop, {"epochs": 6, "batch": 4}),
    Case(Coop, {"epochs": 4, "class_specific": True, "batch": 4}),
]
PUBLISHED = [
    Case(CraftReleased, {"budget": 60, "population": 10, "dim": 8}),
    Case(CraftPaper, {"budget": 60, "population": 10, "dim": 9, "row": "dtd"}),
    Case(CraftReleased, {"budget": 60, "population": 10, "dim": 9, "row": "imagenet"}),
    Case(BbtReleased, {"budget": 200, "dim": 8}),
    Case(BptVlmReleased, {"budget": 60, "population": 10, "dim": 10}),
    Case(CbbtReleased, {"epochs": 3, "directions": 4, "batch": 4}),
    Case(CbbtReleased, {"epochs": 3, "directions": 4, "adapter": False}),
    Case(ZipReleased, {"budget": 60, "batch": 4}),
    Case(CoopReleased, {"epochs": 4, "batch": 4}),
    Case(CoopReleased, {"epochs": 4, "words": "a photo of a"}),
]
ALL = [*SAFE, *PUBLISHED]
every = pytest.mark.parametrize("case", ALL, ids=str)
safe = pytest.mark.parametrize("case", SAFE, ids=str)


class Killed(BaseException):
    """kill -9, as far as a test can have it."""


class MortalBox(SoftBox):
    """Dies at its n-th call for soft prompts."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def soft_features(
        self, contexts: torch.Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise Killed
        return super().soft_features(contexts, classnames, grad=grad)


def run(case: Case, folder: Path, task: Task, box: SoftBox, **kwargs: Any) -> tuple[Bench, Outcome]:
    with Bench(folder, task, box, **kwargs) as bench:
        return bench, case.make().run(bench.search)


def arrays(outcome: Outcome) -> dict[str, np.ndarray[Any, Any]]:
    return dict(outcome.predictor.state()[0])


def events(folder: Path) -> list[tuple[str, Any]]:
    return [(r["kind"], r["data"]) for r in read_journal(folder / "journal.jsonl")]


def assert_same(a: Outcome, b: Outcome) -> None:
    assert type(a.predictor) is type(b.predictor)
    assert a.stop_reason == b.stop_reason
    assert a.predictor.state()[1] == b.predictor.state()[1]
    assert arrays(a).keys() == arrays(b).keys()
    for name, array in arrays(a).items():
        np.testing.assert_array_equal(array, arrays(b)[name])


@every
def test_the_ledger_is_what_the_box_was_asked(case: Case, tmp_path: Path) -> None:
    box = SoftBox()
    task, _ = make_task(box)
    bench, outcome = run(case, tmp_path, task, box)
    assert bench.spent() == dict(box.asked)
    bounds = case.make().bounds(task)
    for currency in (*box.asked, "pairs_scored"):
        assert bench.ledger[currency] <= bounds[currency], currency
    # A bound that is far from the truth would be of no use to 'llmopt plan'.
    ended_early = "CMA-ES" in outcome.stop_reason
    # At most three contexts are kept for a head, which is not tried where the start is kept.
    least = bounds["soft_prompt_encodings"] - 3 * outcome.fallback * len(NAMES)
    assert ended_early or bench.ledger["soft_prompt_encodings"] >= least
    assert ended_early or bench.ledger["image_encodings"] == bounds["image_encodings"]


@every
@pytest.mark.parametrize("cap", [0, 5, 24, 150])
def test_no_cap_is_passed_by_one_encoding(case: Case, cap: int, tmp_path: Path) -> None:
    box = SoftBox()
    task, test = make_task(box)
    with Bench(tmp_path, task, box, caps=Caps(queries=cap)) as bench:
        outcome = case.make().run(bench.search)
    asked = box.asked["soft_prompt_encodings"] + box.asked["text_encodings"]
    assert asked <= cap
    assert outcome.stop_reason in ("budget: queries", "iterations")
    box2 = SoftBox()
    with Bench(tmp_path / "test", task, box2) as bench:
        assert outcome.predictor.scores(bench.metered, test).shape == (len(test), len(NAMES))


@every
def test_an_interruption_ends_normally(case: Case, tmp_path: Path) -> None:
    box = SoftBox()
    task, _ = make_task(box)
    with Bench(tmp_path, task, box) as bench:
        bench.search.on_progress = lambda progress: bench.ledger.stop()
        outcome = case.make().run(bench.search)
    assert outcome.stop_reason == "interrupted"


@every
@pytest.mark.parametrize("calls", [0, 3, 8])
def test_a_killed_run_ends_like_an_undisturbed_one(case: Case, calls: int, tmp_path: Path) -> None:
    whole_box = SoftBox()
    task, _ = make_task(whole_box)
    whole, expected = run(case, tmp_path / "whole", task, whole_box)
    folder = tmp_path / "killed"
    with contextlib.suppress(Killed):  # short searches are done by then
        run(case, folder, task, MortalBox(calls))
    resumed, found = run(case, folder, task, SoftBox())
    assert_same(expected, found)
    assert resumed.ledger.state() == whole.ledger.state()
    assert events(folder) == events(tmp_path / "whole")
    assert not resumed.journal.diverged


@every
def test_a_seed_decides_everything(case: Case, tmp_path: Path) -> None:
    task, _ = make_task(SoftBox())
    _, first = run(case, tmp_path / "a", task, SoftBox())
    torch.manual_seed(99)
    np.random.seed(99)
    _, second = run(case, tmp_path / "b", task, SoftBox())
    assert_same(first, second)
    _, other = run(case, tmp_path / "c", task, SoftBox(), seed=2)
    assert events(tmp_path / "c") != events(tmp_path / "a")
    assert other is not first


@every
def test_progress_tells_where_the_search_stands(case: Case, tmp_path: Path) -> None:
    box = SoftBox()
    task, _ = make_task(box)
    bench, outcome = run(case, tmp_path, task, box)
    assert bench.told
    last = bench.told[-1]
    assert 1 <= last.step <= last.steps
    assert last.step == last.steps or "CMA-ES" in outcome.stop_reason
    assert last.score is not None
    assert "left" in last.note


@safe
def test_the_start_is_scored_first_and_kept_unless_beaten(case: Case, tmp_path: Path) -> None:
    # The start is the planted template already, so nothing can be convincingly better.
    box = SoftBox()
    task, test = make_task(box, start="one lonely {}.", noise=0.02)
    _, outcome = run(case, tmp_path, task, box)
    if outcome.fallback:
        assert isinstance(outcome.predictor, TextPredictor)
        assert outcome.predictor.templates == (task.start,)
    with Bench(tmp_path / "test", task, box) as bench:
        scores = outcome.predictor.scores(bench.metered, test)
    assert float((scores.argmax(axis=1) == test.labels).mean()) > 0.97


@safe
def test_no_validation_images_are_needed(case: Case, tmp_path: Path) -> None:
    box = SoftBox()
    task, test = make_task(box, shots=1, val=False)
    bench, outcome = run(case, tmp_path, task, box)
    assert bench.told[-1].val_accuracy is None
    assert outcome.predictor.scores(bench.metered, test).shape == (len(test), len(NAMES))


@every
def test_nothing_on_hand_leads_to_test_images(case: Case, tmp_path: Path) -> None:
    box = SoftBox()
    task, _ = make_task(box)
    with Bench(tmp_path, task, box) as bench:
        parts = [*vars(bench.search).values(), *vars(bench.search.task).values()]
    assert not any(isinstance(part, TestSet) for part in parts)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Craft, {"dim": 1}),
        (CraftReleased, {"row": "caltech"}),
        (CraftReleased, {"context": "median"}),
        (Craft, {"head": "residul"}),
        (Craft, {"budget": 3}),
        (Bbt, {"loss": "mse"}),
        (Bbt, {"sigma": 0.0}),
        (BptVlmReleased, {"tokens": 0}),
        (Cbbt, {"directions": 0}),
        (Cbbt, {"eps": 0.0}),
        (Zip, {"width": 0.0}),
        (Zip, {"rank": 0}),
        (Coop, {"momentum": 1.5}),
        (Coop, {"epochs": 0}),
    ],
)
def test_wrong_settings_are_refused_by_name(
    kind: type[Optimizer[Any]], given: dict[str, Any]
) -> None:
    (name,) = given
    with pytest.raises(ConfigError, match=name):
        kind(**given)


def test_a_class_is_one_profile() -> None:
    assert Zip(budget=60, profile="llmopt").settings == ZipSettings(budget=60)
    assert Zip(**Zip(budget="60").as_given()).settings == ZipSettings(budget=60)
    with pytest.raises(ConfigError, match="profile 'llmopt' of 'zip'; for 'released' use"):
        Zip(profile="released")
    with pytest.raises(TypeError, match="not both"):
        Zip(ZipSettings(), budget=60)
