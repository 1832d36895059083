"""What ``llmopt plan`` says is never exceeded by the run, whole: search, head and measuring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from running import start

from llmopt.runs.compose import compose
from llmopt.runs.config import RunConfig
from llmopt.runs.plan import make_plan

pytestmark = pytest.mark.usefixtures("shared_cache")

TINY = {"budget": 40, "population": 8}
SEARCHES: list[tuple[str, dict[str, Any]]] = [
    ("zeroshot", {}),
    ("random", {"evaluations": 6}),
    ("craft", TINY),
    ("craft", {"profile": "released", "budget": 40, "dim": 8}),
    ("bbt", TINY),
    ("bbt", {"profile": "released", "budget": 40}),
    ("bptvlm", TINY),
    ("cbbt", {"budget": 40}),
    ("cbbt", {"profile": "released", "epochs": 1, "directions": 4}),
    ("zip", {"budget": 40}),
    ("zip", {"profile": "released", "budget": 40}),
    ("coop", {"epochs": 2, "class_specific": True}),
    ("coop", {"profile": "released", "epochs": 2}),
]


RUNS = [
    (optimizer, settings, head)
    for head in ("", "ridge", "bias")
    for optimizer, settings in SEARCHES
    # These train a head of their own.
    if not head or optimizer not in ("craft", "cbbt") or "profile" not in settings
]


@pytest.mark.parametrize(("optimizer", "settings", "head"), RUNS, ids=str)
def test_no_run_spends_more_than_its_plan(
    tmp_path: Path, optimizer: str, settings: dict[str, Any], head: str
) -> None:
    config = RunConfig(
        optimizer=optimizer, settings=settings, shots=2, head=head, runs=str(tmp_path)
    )
    plan = make_plan(compose(config))
    most = {row.name: row.most for row in plan.rows}
    result = start(config)
    spent = result["ledger"]
    assert set(result["baselines"]) == {"subset", "openai"}
    for name, tested in result["evaluation"].items():
        assert name == "cache_hits" or (tested or 0) <= plan.test[name], name
    for name in ("image_encodings", "text_encodings", "soft_prompt_encodings", "pairs_scored"):
        assert spent[name] <= (most.get(name) or 0), name
    assert spent["text_encodings"] + spent["soft_prompt_encodings"] <= (most["queries"] or 0)
    for split in ("train", "val"):
        assert result["best"][f"{split}_accuracy"] is not None


@pytest.mark.parametrize("optimizer", ["craft", "bbt", "bptvlm", "cbbt", "zip"])
@pytest.mark.parametrize("budget", [18, 19, 20, 40, 62])
def test_a_budget_is_not_exceeded_by_one_context(
    tmp_path: Path, optimizer: str, budget: int
) -> None:
    settings: dict[str, Any] = {"budget": budget}
    if optimizer in ("craft", "bbt", "bptvlm"):
        settings["population"] = 8
    if optimizer == "craft":
        settings["head"] = "none"
    if optimizer == "cbbt":
        settings["adapter"] = False
    config = RunConfig(optimizer=optimizer, settings=settings, runs=str(tmp_path))
    result = start(config)
    contexts = result["ledger"]["soft_prompt_encodings"] / result["task"]["classes"]
    assert 1 < contexts <= budget


def test_views_for_a_head_are_in_the_plan_and_in_the_ledger(tmp_path: Path) -> None:
    config = RunConfig(optimizer="zeroshot", shots=4, head="gda", head_views=3, runs=str(tmp_path))
    most = {row.name: row.most for row in make_plan(compose(config)).rows}
    result = start(config)
    assert result["task"]["train_images"] == 48
    assert result["ledger"]["image_encodings"] == 48 * 4 + result["task"]["val_images"]
    for name in ("image_encodings", "text_encodings", "pairs_scored"):
        assert result["ledger"][name] <= (most[name] or 0)
