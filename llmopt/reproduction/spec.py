"""What a table of a paper is, as data: read from TOML, and refused where anything is odd.

Figures are not repeated here. An arm names the method and the source whose rows of
``llmopt/comparison/published.csv`` it is set beside.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmopt.comparison.grid import Arm
from llmopt.comparison.published import DATASETS, figures
from llmopt.data.benchmarks.catalog import CATALOG
from llmopt.errors import ConfigError, nearest

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]  # an array of TOML; its items stay strict
Some = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[^,=\n]+$")]
"""What ``--only`` can name."""
Positive = Annotated[int, Field(ge=1)]

_HERE: Final = Path(__file__).parent
_TABLES: Final = _HERE / "tables"


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Backbone(_Strict):
    """A model of the papers.

    Attributes:
        name: as papers write it.
        model, pretrained: as open_clip does.
        hub: where its weights are fetched from; empty where they are not a download.
        megabytes: of that download.
        image_gflops: of one image of 224 × 224 pixels.
    """

    name: Name
    model: Text
    pretrained: str = ""
    hub: str = ""
    megabytes: int = 0
    image_gflops: float = 0.0


class Figures(_Strict):
    """Rows of ``published.csv`` that an arm is set beside.

    Attributes:
        method: as it stands there.
        source: the beginning of its source.
    """

    method: Text
    source: Text

    def find(self, backbone: str, dataset: str, shots: int) -> dict[str, str] | None:
        """The figure on a data set (ours), or None. The mean goes before single seeds."""
        found = [
            row
            for row in figures()
            if row["method"] == self.method
            and row["source"].startswith(self.source)
            and row["backbone"].partition(" (")[0] == backbone
            and row["dataset"] == DATASETS.get(dataset)
            and row["shots"].partition(" ")[0] in (str(shots), "0")
        ]
        return next((row for row in found if not row["seeds"].startswith("seed")), None)


class Contender(_Strict):
    """An arm of a table.

    Attributes:
        name: in the table.
        optimizer: that searches.
        options: other options of a run, and settings of the optimizer.
        figures: published ones to set beside.
        differs: known reasons why ours may differ, of this arm.
        incomparable: why a figure is no expectation, if it is none.
    """

    name: Name
    optimizer: Text
    options: dict[str, str | int | float] = {}
    figures: Many[Figures] = ()
    differs: Many[Text] = ()
    incomparable: str = ""

    def arm(self) -> Arm:
        """As comparisons know it."""
        return Arm(self.name, self.optimizer, {k: str(v) for k, v in self.options.items()})

    @property
    def command(self) -> str:
        """It as ``llmopt compare --optimizer`` takes it."""
        return ",".join([self.optimizer, *(f"{k}={v}" for k, v in self.options.items())])


class Grid(_Strict):
    """One block of runs: everything named here with everything else.

    Attributes:
        arms: names of those that run; all, where none is named.
        backbones, datasets, shots, seeds: sides of the grid.
        also_on: data sets whose test images score what was found, too.
        also_behind: backbones behind which it is scored, too.
    """

    arms: Many[Text] = ()
    backbones: Some[Text]
    datasets: Some[Text]
    shots: Some[Positive]
    seeds: Some[Annotated[int, Field(ge=0)]]
    also_on: Many[Text] = ()
    also_behind: Many[Text] = ()


class Table(_Strict):
    """A table of a paper.

    Attributes:
        name: on the command line; the name of its file.
        title: one line.
        paper: whose.
        about: what it shows, and what could be read of it.
        options: of a run, the same for all arms.
        tolerance: largest difference in points that still counts as the same, by shots.
        tolerance_why: what that rests on.
        differs: known reasons why ours may differ.
        arms: who is in it.
        grids: what is run.
    """

    name: Text
    title: Text
    paper: Text
    about: Text
    options: dict[str, str | int] = {}
    tolerance: dict[str, Annotated[float, Field(gt=0)]]
    tolerance_why: Text
    differs: Many[Text]
    arms: Some[Contender]
    grids: Some[Grid]

    @model_validator(mode="after")
    def _agrees(self) -> Table:
        arms = [arm.name for arm in self.arms]
        if twice := [name for name in arms if arms.count(name) > 1]:
            raise ValueError(f"two arms are called '{twice[0]}'")
        for grid in self.grids:
            _known("arm", grid.arms, arms)
            _known("backbone", (*grid.backbones, *grid.also_behind), backbones())
            _known("data set", (*grid.datasets, *grid.also_on), CATALOG)
            if without := [shots for shots in grid.shots if str(shots) not in self.tolerance]:
                raise ValueError(f"no tolerance is stated for {without[0]} shots")
        for arm in self.arms:
            for wanted in arm.figures:
                if not any(_is_of(row, wanted) for row in figures()):
                    raise ValueError(f"arm '{arm.name}': published.csv has no such figures")
        return self

    def arm(self, name: str) -> Contender:
        """The arm of a name."""
        return next(arm for arm in self.arms if arm.name == name)


def _is_of(row: dict[str, str], wanted: Figures) -> bool:
    return row["method"] == wanted.method and row["source"].startswith(wanted.source)


def _known(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in (all_known := list(known)):
            raise ValueError(f"unknown {what} '{name}'{nearest(name, all_known)}")


@cache
def backbones() -> dict[str, Backbone]:
    """The papers' models by name."""
    listed = _parsed(_HERE / "backbones.toml").get("backbones", [])
    return {one.name: one for one in map(Backbone.model_validate, listed)}


@cache
def table_names() -> tuple[str, ...]:
    """Every table."""
    return tuple(sorted(path.stem for path in _TABLES.glob("*.toml")))


@cache
def read_table(name: str) -> Table:
    """The table of a name.

    Raises:
        ConfigError: there is none; the nearest name is suggested.
    """
    if name not in table_names():
        raise ConfigError(
            f"unknown table '{name}'{nearest(name, table_names())} "
            f"(there are: {', '.join(table_names())})"
        )
    return parse_table(name, (_TABLES / f"{name}.toml").read_text(encoding="utf-8"))


def parse_table(name: str, text: str) -> Table:
    """A table from TOML.

    Raises:
        ConfigError: it is not TOML, or not a table; the place and what is wrong there are named.
    """
    try:
        return Table.model_validate({**tomllib.loads(text), "name": name})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        wrong = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"table '{name}': {f'{where}: ' if where else ''}{wrong}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigError(f"table '{name}' is not valid TOML: {error}") from error


def _parsed(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))
