"""As much of a table as is asked for, as cells of a comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, Final

from llmopt.comparison.grid import Cell, make_grid, parse_numbers
from llmopt.data.registry import open_dataset
from llmopt.errors import ConfigError, DatasetError, nearest
from llmopt.reproduction.spec import Backbone, Contender, Grid, Table, backbones
from llmopt.runs.config import RunConfig

Only = Mapping[str, Sequence[str | int]]
"""What of a table: values by side (``dataset``, ``shots``, ``seed``, ``model``, ``arm``)."""

SIDES: Final = {
    "dataset": "datasets", "shots": "shots", "seed": "seeds", "model": "backbones", "arm": "arms",
}  # fmt: skip
_NUMBERS: Final = ("shots", "seed")


@dataclass(frozen=True)
class Item:
    """A cell, and where in its table it stands.

    Attributes:
        cell: of a comparison.
        contender: its arm.
        backbone: its model.
        stands_for: the table's model in whose place that is; its own name, if none was given.
        grid: its block.
    """

    cell: Cell
    contender: Contender
    backbone: Backbone
    stands_for: str
    grid: Grid


@dataclass(frozen=True)
class Choice:
    """A table, or a part of it, with changes of the user's.

    Attributes:
        table: whose.
        only: the part; empty is all of it.
        changes: options of a run that the user sets, the model among them.
    """

    table: Table
    only: Only = dataclasses.field(default_factory=dict)
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @cached_property
    def base(self) -> RunConfig:
        """What all runs share.

        Raises:
            ConfigError: an option is wrong.
        """
        found = RunConfig.make({**self.table.options, **self.changes}, "the options")
        if found.pretrained and not found.model:
            raise ConfigError(f"--pretrained {found.pretrained} is for a --model; give that too")
        return found

    @property
    def root(self) -> Path:
        """Where data sets lie."""
        return Path(self.base.resolved().data_root)

    @property
    def given(self) -> Backbone | None:
        """The model in place of the table's, if there is one.

        A file of weights for the architecture of one of the papers' models stands for that model.
        """
        model, weights = self.base.model, self.base.pretrained
        if not model:
            return None
        same = next((one for one in backbones().values() if one.model == model), None)
        if same and weights == same.pretrained:
            return same
        if same and Path(weights).is_file():
            return same.model_copy(update={"pretrained": weights, "hub": ""})
        return Backbone(name=model, model=model, pretrained=weights)

    def backbones(self, names: Sequence[str]) -> dict[str, Backbone]:
        """The models by the names the table has for them; the given one in place of the first."""
        if self.given:
            return dict.fromkeys(names[:1], self.given)
        return {name: backbones()[name] for name in names}

    @cached_property
    def grids(self) -> list[Grid]:
        """Blocks, cut to what is asked for; empty ones are left out.

        Raises:
            ConfigError: something is asked for that the table does not have.
        """
        every = [self._whole(grid) for grid in self.table.grids]
        for side, wanted in self.only.items():
            if side not in SIDES:
                raise ConfigError(
                    f"--only {side}={wanted[0]}: unknown side '{side}'{nearest(side, SIDES)} "
                    f"(there are: {', '.join(SIDES)})"
                )
            known = list(dict.fromkeys(v for g in every for v in getattr(g, SIDES[side])))
            for value in wanted:
                if value not in known:
                    raise ConfigError(
                        f"--only {side}={value}: table '{self.table.name}' has no such {side}"
                        f"{nearest(str(value), map(str, known))} "
                        f"(there are: {', '.join(map(str, known))})"
                    )
        cut = [
            grid.model_copy(
                update={
                    SIDES[side]: tuple(v for v in getattr(grid, SIDES[side]) if v in wanted)
                    for side, wanted in self.only.items()
                }
            )
            for grid in every
        ]
        found = [grid for grid in cut if all(getattr(grid, side) for side in SIDES.values())]
        if not found:
            asked = ", ".join(f"{k}={v}" for k, values in self.only.items() for v in values)
            raise ConfigError(f"--only {asked}: table '{self.table.name}' has no such run")
        return found

    @cached_property
    def items(self) -> list[Item]:
        """Every run, each once.

        Raises:
            ConfigError: an arm cannot be run as it stands.
        """
        found: dict[Any, Item] = {}
        for item in self._items():
            found.setdefault((item.contender.name, item.backbone.name, item.cell.place), item)
        return list(found.values())

    @cached_property
    def runs(self) -> int:
        """How many runs these are, counted without making any."""
        every: set[tuple[Any, ...]] = set()
        for grid in self.grids:
            models = [one.name for one in self.backbones(grid.backbones).values()]
            every |= set(product(grid.arms, models, grid.datasets, grid.shots, grid.seeds))
        return len(every)

    @property
    def datasets(self) -> list[str]:
        """Every data set that is searched or scored on."""
        named = (name for grid in self.grids for name in (*grid.datasets, *grid.also_on))
        return list(dict.fromkeys(named))

    @property
    def models(self) -> list[Backbone]:
        """Every model that is searched or scored behind."""
        named = [one for grid in self.grids for one in (*grid.backbones, *grid.also_behind)]
        return list(self.backbones(list(dict.fromkeys(named))).values())

    def _whole(self, grid: Grid) -> Grid:
        arms = grid.arms or tuple(arm.name for arm in self.table.arms)
        return grid.model_copy(update={"arms": arms})

    def _items(self) -> Iterator[Item]:
        for grid in self.grids:
            arms = {name: self.table.arm(name) for name in grid.arms}
            for name, backbone in self.backbones(grid.backbones).items():
                base = dataclasses.replace(
                    self.base, model=backbone.model, pretrained=backbone.pretrained
                )
                made = make_grid(
                    base, [a.arm() for a in arms.values()], grid.datasets, grid.shots, grid.seeds
                )
                for cell in made:
                    yield Item(cell, arms[cell.arm.name], backbone, name, grid)


def parse_only(texts: Sequence[str]) -> dict[str, list[str | int]]:
    """``dataset=eurosat,shots=1-4``: a side again adds to it, numbers may be spans.

    Raises:
        ConfigError: it is not of that form.
    """
    found: dict[str, list[str | int]] = {}
    for part in (part for text in texts for part in text.split(",")):
        side, equals, value = (one.strip() for one in part.partition("="))
        if not equals or not side or not value:
            raise ConfigError(f"--only {part!r} is not of the form SIDE=VALUE, as dataset=eurosat")
        values = parse_numbers(value, f"only {side}=") if side in _NUMBERS else (value,)
        found.setdefault(side, []).extend(values)
    return found


def missing_data(names: Sequence[str], root: Path) -> dict[str, str]:
    """Data sets that cannot be opened, and why."""
    missing = {}
    for name in names:
        try:
            open_dataset(name, root)
        except DatasetError as error:
            missing[name] = str(error)
    return missing


def weights_here(backbone: Backbone) -> bool:
    """Whether a model's weights need not be fetched."""
    if not backbone.hub:
        return True
    from huggingface_hub import try_to_load_from_cache

    files = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
    return any(isinstance(try_to_load_from_cache(backbone.hub, one), str) for one in files)
