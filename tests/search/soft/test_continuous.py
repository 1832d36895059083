"""What continuous optimizers promise beyond the contract: close bounds, where they begin."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
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
from llmopt.task import Task


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
    Case(CbbtReleased, {"epochs": 3, "directions": 4, "adapter": "none"}),
    Case(ZipReleased, {"budget": 60, "batch": 4}),
    Case(CoopReleased, {"epochs": 4, "batch": 4}),
    Case(CoopReleased, {"epochs": 4, "words": "a photo of a"}),
]
ALL = [*SAFE, *PUBLISHED]
every = pytest.mark.parametrize("case", ALL, ids=str)
safe = pytest.mark.parametrize("case", SAFE, ids=str)


def run(case: Case, folder: Path, task: Task, box: SoftBox, **kwargs: Any) -> tuple[Bench, Outcome]:
    with Bench(folder, task, box, **kwargs) as bench:
        return bench, case.make().run(bench.search)


@every
def test_bounds_are_close_and_progress_tells_where_it_stands(case: Case, tmp_path: Path) -> None:
    box = SoftBox()
    task, _ = make_task(box)
    bench, outcome = run(case, tmp_path, task, box)
    bounds = case.make().bounds(task)
    # A bound that is far from the truth would be of no use to 'llmopt plan'.
    ended_early = "CMA-ES" in outcome.stop_reason
    # At most three contexts are kept for a head, which is not tried where the start is kept.
    least = bounds["soft_prompt_encodings"] - 3 * outcome.fallback * len(NAMES)
    assert ended_early or bench.ledger["soft_prompt_encodings"] >= least
    assert ended_early or bench.ledger["image_encodings"] == bounds["image_encodings"]

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
