"""Measured accuracies beside published ones, each pair with a verdict.

The verdict is about the difference of the two figures and the table's tolerance alone: ``within``,
``above`` or ``below``. The 95 % interval stands beside it and says how sure our own figure is;
nothing is known of the published one's. Where the two answer different questions the verdict is
``not comparable``, with the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from llmopt.comparison.paired import accuracy
from llmopt.data.benchmarks.catalog import CATALOG
from llmopt.figures import plain
from llmopt.reproduction.choice import Choice, Item
from llmopt.reproduction.spec import Figures

Verdict = Literal["within", "above", "below", "not comparable", "missing", "failed", "not run"]

AVERAGE: Final = "average"
"""In place of a data set: over all of a block's."""

_NO_LANGUAGE_MODEL: Final = ("builtin", "replay")


class Place(NamedTuple):
    """Where a figure stands, over all seeds.

    Attributes:
        arm, model, dataset, shots: of the search; ``model`` as papers name it.
        on, behind: what it was scored on and behind, where that is not the same.
    """

    arm: str
    model: str
    dataset: str
    shots: int
    on: str = ""
    behind: str = ""

    @property
    def scored_on(self) -> str:
        """The data set whose test images were used."""
        return self.on or self.dataset

    @property
    def scored_behind(self) -> str:
        """The model behind which it was scored."""
        return self.behind or self.model


@dataclass(frozen=True)
class Reading:
    """One run, scored once.

    Attributes:
        seed: of the run.
        accuracy: a fraction.
        images: test images.
        capped: the search ended at a cap.
        llm: the language model that was asked; empty where none was.
        folder: of the run.
    """

    seed: int
    accuracy: float
    images: int
    capped: bool
    llm: str
    folder: Path


@dataclass(frozen=True)
class Row:
    """A figure of ours beside a published one. Accuracies are in per cent.

    Attributes:
        place: which.
        seeds: those that were measured.
        wanted: how many there would be.
        accuracy: mean over seeds; None while there is none.
        interval: 95 %; the wider of over seeds, where there are several, and over images.
        published: the figure; None where none could be read.
        source: of it.
        tolerance: in points.
        verdict: on the difference.
        reasons: why it is not comparable, or why there is nothing yet.
        folders: the runs.
    """

    place: Place
    seeds: tuple[int, ...]
    wanted: int
    accuracy: float | None
    interval: tuple[float, float] | None
    published: float | None
    source: str
    tolerance: float
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    @property
    def difference(self) -> float | None:
        """Ours less theirs, in points."""
        if self.accuracy is None or self.published is None:
            return None
        return self.accuracy - self.published

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        found = {**self.place._asdict(), **plain(self), "difference": self.difference}
        del found["place"]
        return found


def rows(
    choice: Choice,
    readings: Mapping[Place, Sequence[Reading]],
    lacking: Mapping[Place, tuple[Verdict, str]],
) -> list[Row]:
    """Every figure of a table in its order, averages after the data sets they are over.

    Args:
        choice: of the table.
        readings: what was measured.
        lacking: why nothing was, where nothing was.
    """
    seeds: dict[Place, set[int]] = {}
    items: dict[Place, Item] = {}
    for item in choice.items:
        for place in places(item, choice):
            seeds.setdefault(place, set()).add(item.cell.config.seed)
            items[place] = item
    found: dict[tuple[Place, Figures | None], Row] = {}
    for place, item in items.items():
        for figures in item.contender.figures or (None,):
            row = _known(choice, place, item, figures, len(seeds[place]))
            if here := readings.get(place):
                row = _measured(row, item, here)
            elif place in lacking:
                verdict, why = lacking[place]
                row = replace(row, verdict=verdict, reasons=(why,))
            found[place, figures] = row
    groups: dict[Any, list[Row]] = {}
    for (place, figures), row in found.items():
        if not place.on and not place.behind:
            key = place.arm, place.model, place.shots, figures, items[place].stands_for
            groups.setdefault(key, []).append(row)
    means = [
        _average(members)
        for (arm, _, shots, _, model), members in groups.items()
        if _whole(choice, arm, model, shots, members)
    ]
    return [*found.values(), *means]


def places(item: Item, choice: Choice) -> list[Place]:
    """Where the run of a cell is scored: its own test images first."""
    dataset, shots, _ = item.cell.place
    own = Place(item.contender.name, item.backbone.name, dataset, shots)
    behind = [one.name for one in choice.backbones(item.grid.also_behind).values()]
    return [
        own,
        *(own._replace(on=name) for name in item.grid.also_on),
        *(own._replace(behind=name) for name in behind if name != own.model),
    ]


def _known(choice: Choice, place: Place, item: Item, figures: Figures | None, wanted: int) -> Row:
    """What is known of a figure before anything is run."""
    model = place.behind or item.stands_for
    figure = figures and figures.find(model, place.scored_on, place.shots)
    return Row(
        place,
        seeds=(),
        wanted=wanted,
        accuracy=None,
        interval=None,
        published=float(figure["accuracy"]) if figure else None,
        source=figure["source"] if figure else "",
        tolerance=choice.table.tolerance[str(place.shots)],
        verdict="not run",
    )


def _measured(row: Row, item: Item, readings: Sequence[Reading]) -> Row:
    """A figure with what was measured."""
    hits = [np.arange(one.images) < round(one.accuracy * one.images) for one in readings]
    mean, low, high = accuracy(np.stack(hits))
    row = replace(
        row,
        seeds=tuple(one.seed for one in readings),
        accuracy=100 * mean,
        interval=(100 * low, 100 * high),
        folders=tuple(str(one.folder) for one in readings),
        reasons=tuple(_incomparable(row, item, readings)),
    )
    return replace(row, verdict=_verdict(row))


def _verdict(row: Row) -> Verdict:
    if row.reasons or row.difference is None:
        return "not comparable"
    if abs(row.difference) <= row.tolerance + 1e-9:
        return "within"
    return "above" if row.difference > 0 else "below"


def _incomparable(row: Row, item: Item, readings: Sequence[Reading]) -> Iterator[str]:
    """Why our figure and theirs answer different questions."""
    if row.published is None:
        yield "no such figure could be read"
    if item.contender.incomparable:
        yield item.contender.incomparable
    if item.backbone.name != item.stands_for:
        yield f"behind {item.backbone.name}, not {item.stands_for}"
    expected = CATALOG[row.place.scored_on].sizes[2]
    if expected and (other := {one.images for one in readings} - {expected}):
        yield f"{min(other):,} test images here, {expected:,} in the published set"
    if capped := sum(one.capped for one in readings):
        yield f"{capped} of {len(readings)} searches ended at a cap"
    if idle := {one.llm for one in readings if one.llm.split(":")[0] in _NO_LANGUAGE_MODEL}:
        yield f"'{min(idle)}' is no language model"


def _whole(choice: Choice, arm: str, model: str, shots: int, members: Sequence[Row]) -> bool:
    """Whether every data set of a block is measured."""
    names = {
        name
        for grid in choice.table.grids
        if model in grid.backbones and shots in grid.shots and arm in (grid.arms or (arm,))
        for name in grid.datasets
    }
    return len(names) > 1 and names == {r.place.dataset for r in members if r.seeds}


def _average(members: Sequence[Row]) -> Row:
    """The mean of figures over data sets, the intervals as those of independent ones."""
    count = len(members)
    ours = np.array([row.accuracy for row in members], dtype=np.float64)
    bounds = np.array([row.interval for row in members], dtype=np.float64)
    low, high = np.sqrt(((bounds.T - ours) ** 2).sum(axis=1)) / count
    published = [row.published for row in members if row.published is not None]
    whole = len(published) == count
    odd = sum(row.verdict == "not comparable" for row in members)
    row = replace(
        members[0],
        place=members[0].place._replace(dataset=AVERAGE),
        seeds=min((row.seeds for row in members), key=len),
        accuracy=float(ours.mean()),
        interval=(float(ours.mean() - low), float(ours.mean() + high)),
        published=float(np.mean(published)) if whole else None,
        source=f"mean of {count} figures: {members[0].source}" if whole else "",
        reasons=(f"{odd} of its {count} figures are not comparable",) if odd else (),
        folders=(),
    )
    return replace(row, verdict=_verdict(row))
