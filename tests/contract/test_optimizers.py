"""Every optimizer passes the contract, in each of its forms. A new one is picked up from the list.

Give it a line in ``SMALL`` if its defaults take more than a second on ten images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmopt.errors import ConfigError
from llmopt.runs.config import RunConfig
from llmopt.search import OPTIMIZERS, forms, make_optimizer
from llmopt.search.base import Optimizer
from llmopt.testing import OptimizerContract
from llmopt.testing.optimizers import Whole, identity, run
from llmopt.testing.world import make_task

SMALL: dict[tuple[str, str], dict[str, Any]] = {
    ("chat", "conversation"): {
        "probes": 0,
        "restarts": 2,
        "iterations": 2,
        "pool": 4,
        "proposals": 3,
    },
    ("chat", "released"): {"restarts": 2, "iterations": 2, "pool": 4},
    ("chat", "paper"): {"restarts": 2, "resets": 2, "iterations": 2, "pool": 4, "k": 2},
    ("describe", "asked"): {"captions": 3, "batch": 2},
    ("describe", "file"): {"file": str(Path(__file__).parent / "descriptions.json")},
    ("auto", ""): {"budget": 48},
    ("random", ""): {"evaluations": 12},
    ("handcrafted", ""): {"templates": "subset"},
    ("craft", "llmopt"): {"budget": 102, "head": "bias"},
    ("craft", "released"): {"budget": 60, "population": 10, "dim": 8},
    ("craft", "paper"): {"budget": 60, "population": 10, "dim": 9, "row": "dtd"},
    ("cbbt", "llmopt"): {"budget": 102, "adapter": False},
    ("cbbt", "released"): {"epochs": 3, "directions": 4, "batch": 4},
    ("zip", "llmopt"): {"budget": 66},
    ("zip", "released"): {"budget": 60, "batch": 4},
    ("bbt", "llmopt"): {"budget": 102},
    ("bbt", "released"): {"budget": 200, "dim": 8},
    ("bptvlm", "llmopt"): {"budget": 93, "dim": 20},
    ("bptvlm", "released"): {"budget": 60, "population": 10, "dim": 10},
    ("coop", "llmopt"): {"epochs": 3},
    ("coop", "released"): {"epochs": 4, "batch": 4},
}
NAMES = [name for name in OPTIMIZERS.names() if OPTIMIZERS.get(name).name == name]  # no aliases
CASES = [(name, form, SMALL.get((name, form), {})) for name in NAMES for form in forms(name)]
# What takes another way through the code.
CASES += [
    ("auto", "", {"budget": 40, "soft": 34}),
    ("craft", "llmopt", {"budget": 60, "population": 8, "restarts": 1, "views": 2, "head": "none"}),
    ("craft", "released", {"budget": 60, "population": 10, "dim": 9, "row": "imagenet"}),
    ("craft", "released", {"budget": 60, "population": 10, "dim": 8, "head": "none"}),
    ("bbt", "llmopt", {"budget": 60, "population": 8, "dim": 6, "loss": "hinge"}),
    ("cbbt", "llmopt", {"budget": 30, "own": False, "rank": 4, "adapter": False}),
    ("cbbt", "released", {"epochs": 3, "directions": 4, "adapter": "none"}),
    ("cbbt", "released", {"epochs": 13, "directions": 2, "adapter": "tip", "batch": 8}),
    ("coop", "llmopt", {"epochs": 4, "class_specific": True, "batch": 4}),
    ("coop", "released", {"epochs": 4, "words": "a photo of a"}),
]


def told(case: tuple[str, str, dict[str, Any]]) -> str:
    name, form, given = case
    more = "" if given == SMALL.get((name, form), {}) else "-".join(map(str, given.values()))
    return "-".join(filter(None, [name, form, more]))


class TestOptimizers(OptimizerContract):
    @pytest.fixture(params=CASES, ids=told)
    def optimizer(self, request: pytest.FixtureRequest) -> Optimizer[Any]:
        name, form, given = request.param
        return make_optimizer(name, {"profile": form, **given} if form else given)

    def test_another_seed_ends_otherwise(
        self, optimizer: Optimizer[Any], whole: Whole, tmp_path: Path
    ) -> None:
        other, _ = run(optimizer, tmp_path, seed=2, task=make_task(shots=2, seed=2))
        assert optimizer.name == "zeroshot" or identity(other) != identity(whole.outcome)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_listed_under_its_name_and_by_profile(name: str) -> None:
    kind = OPTIMIZERS.get(name)
    assert kind.name == name
    with pytest.raises(ConfigError, match=f"unknown name 'nonesuch' in the settings of '{name}'"):
        make_optimizer(name, {"nonesuch": 1})
    if kind.FORMS:
        with pytest.raises(ConfigError, match="unknown profile"):
            make_optimizer(name, {"profile": "nonesuch"})
    for form in forms(name):
        RunConfig(optimizer=name, settings={"profile": form} if form else {}).to_toml()
