"""What a table takes, before anything is run: data, weights, GPU hours, the language model.

Bounds are those of ``llmopt plan``, of tasks of the sizes that the catalogue states, so that a plan
needs no data and is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image as PillowImage

from llmopt.data.benchmarks.catalog import CATALOG
from llmopt.data.benchmarks.handcrafted import templates_for
from llmopt.data.fewshot import MAX_VAL_SHOTS
from llmopt.figures import plain
from llmopt.reproduction.choice import Choice, Item, missing_data, weights_here
from llmopt.reproduction.spec import read_table, table_names
from llmopt.runs.compose import Given, compose
from llmopt.runs.config import RunConfig
from llmopt.runs.plan import make_plan
from llmopt.spend.currency import Spend
from llmopt.task import FewShot, Task, TestSet
from llmopt.template import Template

PROMPT_TOKENS: Final = 16
"""Of a prompt, on average; those that prompts share are computed once."""

TOKEN_GFLOPS: Final = 0.076
"""Of one token in CLIP's text tower of 12 layers and width 512."""

TFLOPS: Final = 10.0
"""Of a GPU that computes in fp32, sustained: about half of what an A100 can without TF32."""

COUNTED: Final = ("image_encodings", "text_encodings", "soft_prompt_encodings", "llm_calls")
"""What makes up the cost of a table."""

_TEST: Final = 10_000  # images, where the catalogue does not know


@dataclass(frozen=True)
class Need:
    """Something that must be here.

    Attributes:
        name: of a data set or model.
        here: whether it is.
        note: how it is got, where it is not.
    """

    name: str
    here: bool
    note: str = ""


@dataclass
class Cost:
    """What runs take at most; grows by :meth:`add`.

    Attributes:
        spend: of searches, their tests, and where else they are scored.
        gflops: of that.
        llm: the language model that would be asked; empty where none is, or only a free one.
        llm_runs: runs that ask it.
        usd: what that can cost; None where its price is not known.
        tokens: what it reads and writes at most.
    """

    spend: Spend = field(default_factory=Spend)
    gflops: float = 0.0
    llm: str = ""
    llm_runs: int = 0
    usd: float | None = 0.0
    tokens: float = 0.0

    def hours(self, tflops: float) -> float:
        """Of a GPU that sustains so much."""
        return self.gflops / tflops / 1000 / 3600

    def add(self, choice: Choice, item: Item, count: int) -> None:
        """So many runs like this one."""
        config = item.cell.config
        given = Given(task=_phantom(config))
        setup = compose(given.named_in(config), given)
        plan = make_plan(setup)
        most = {row.name: row.most for row in plan.rows}
        searched = Spend(**{name: most.get(name) for name in COUNTED})
        tested = Spend(**{name: plan.test[name] for name in COUNTED})
        test = CATALOG[config.dataset].sizes[2] or _TEST
        more = test - 1 + sum(CATALOG[name].sizes[2] or _TEST for name in item.grid.also_on)
        spent = searched + tested + Spend(image_encodings=more)
        self.spend += Spend(**{name: count * amount for name, amount in spent.items()})
        behind = [
            one.image_gflops
            for one in choice.backbones(item.grid.also_behind).values()
            if one.name != item.backbone.name
        ]
        of_images = spent["image_encodings"] * item.backbone.image_gflops + test * sum(behind)
        self.gflops += count * (of_images + spent.queries * PROMPT_TOKENS * TOKEN_GFLOPS)
        if setup.llm is not None and not setup.llm.free:
            usd = most.get("llm_usd")
            self.llm, self.llm_runs = setup.llm.spec, self.llm_runs + count
            self.tokens += count * (most.get("llm_tokens") or 0)
            if usd is None or self.usd is None:
                self.usd = None
            else:
                self.usd += count * min(usd, plan.config.max_usd or usd)


@dataclass(frozen=True)
class Needs:
    """What a table, or a part of it, takes at most, and what of it is here.

    Attributes:
        choice: what was asked for.
        data, weights: what must be here.
        cost: of all runs.
        tflops: the rate that GPU hours go by.
    """

    choice: Choice
    data: tuple[Need, ...]
    weights: tuple[Need, ...]
    cost: Cost
    tflops: float

    def to_json(self) -> dict[str, Any]:
        """What ``llmopt reproduce plan --json`` prints."""
        cost = self.cost
        asked = {"name": cost.llm, "runs": cost.llm_runs, "tokens": cost.tokens, "usd": cost.usd}
        return {
            "schema": 1,
            "table": self.choice.table.name,
            "runs": self.choice.runs,
            "data": plain(self.data),
            "weights": plain(self.weights),
            "upper_bounds": {name: int(most) for name, most in cost.spend.items() if most},
            "gpu_hours": cost.hours(self.tflops),
            "rate": rate(self.tflops),
            "llm": asked if cost.llm else None,
        }


@dataclass(frozen=True)
class Listed:
    """A table, and what of it is here.

    Attributes:
        choice: all of it.
        data, weights: what must be here.
    """

    choice: Choice
    data: tuple[Need, ...]
    weights: tuple[Need, ...]

    def to_json(self) -> dict[str, Any]:
        """What ``llmopt reproduce list --json`` prints, for each."""
        table = self.choice.table
        about = {"table": table.name, "title": table.title, "paper": table.paper}
        runs = {"runs": self.choice.runs}
        return about | runs | {"data": plain(self.data), "weights": plain(self.weights)}


def list_tables(root: Path) -> list[Listed]:
    """Every table, with what of it lies below a data root; each data set is opened once."""
    choices = [Choice(read_table(name)) for name in table_names()]
    missing = missing_data(list(dict.fromkeys(d for c in choices for d in c.datasets)), root)
    return [Listed(one, _data(one, missing), weights(one)) for one in choices]


def rate(tflops: float) -> str:
    """What GPU hours go by, in words."""
    return (
        f"{tflops:g} TFLOP/s sustained, {PROMPT_TOKENS} tokens a prompt; decoding of images, "
        "gradients and the training of heads come on top"
    )


def plan_table(choice: Choice, tflops: float = TFLOPS) -> Needs:
    """What a table takes. Opens no model and spends nothing.

    Args:
        choice: the table, or a part of it.
        tflops: what the GPU sustains.

    Raises:
        UserError: as the runs themselves would.
    """
    data = _data(choice, missing_data(choice.datasets, choice.root))
    return Needs(choice, data, weights(choice), cost_of(choice), tflops)


def _data(choice: Choice, missing: Mapping[str, str]) -> tuple[Need, ...]:
    return tuple(Need(name, name not in missing, missing.get(name, "")) for name in choice.datasets)


def cost_of(choice: Choice) -> Cost:
    """What the runs of a table take at most."""
    total = Cost()
    for item, count in _alike(choice):
        total.add(choice, item, count)
    return total


def weights(choice: Choice) -> tuple[Need, ...]:
    """The models' weights."""
    return tuple(
        Need(f"{one.model} {one.pretrained}".strip(), True)
        if weights_here(one)
        else Need(
            f"{one.model} {one.pretrained}",
            False,
            f"fetched once by the first run ({one.megabytes} MB), or now by 'llmopt models show "
            f"{one.model} --pretrained {one.pretrained}'",
        )
        for one in choice.models
    )


def _alike(choice: Choice) -> list[tuple[Item, int]]:
    """Runs that take the same, which seeds do, once each, and how many they are."""
    counts: dict[tuple[Any, ...], tuple[Item, int]] = {}
    for item in choice.items:
        dataset, shots, _ = item.cell.place
        key = item.contender.name, item.backbone.name, dataset, shots
        _, before = counts.get(key, (item, 0))
        counts[key] = item, before + 1
    return list(counts.values())


class _Phantom:
    """An image of which nothing is known but that it is one."""

    name = "phantom"

    def key(self) -> str:
        """The same for all."""
        return self.name

    def load(self) -> PillowImage.Image:
        """Never asked for: a plan opens no image."""
        raise NotImplementedError


def _phantom(config: RunConfig) -> Task:
    """A task of the size that a data set of the catalogue gives at so many shots.

    It has a single test image: each costs the same, and there are many.
    """
    entry = CATALOG[config.dataset]
    classes = entry.classes

    def images(count: int) -> Any:
        return (_Phantom(),) * count, np.arange(count, dtype=np.int64) % classes

    held = 0 if entry.sizes[1] == 0 else min(config.shots, MAX_VAL_SHOTS)
    return Task(
        dataset=entry.key,
        classnames=tuple(f"the class of number {number}" for number in range(classes)),
        train=FewShot(*images(config.shots * classes)),
        val=FewShot(*images(held * classes)),
        shots=config.shots,
        seed=config.seed,
        start=Template(config.template),
        split_sha256="",
        handcrafted=templates_for(entry.key),
        test=TestSet(*images(1)),
    )
