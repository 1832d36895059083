"""What a chart shows, apart from how it is drawn: marks on two axes, or matrices of shares.

The page draws it as SVG (:mod:`llmopt.report.svg`), picture files with matplotlib
(:mod:`llmopt.report.picture`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

COLOURS: Final = {
    "ink": "#1b1f24",
    "muted": "#5c6670",
    "grid": "#d5dae0",
    "one": "#0b62a4",
    "two": "#c4500a",
    "three": "#2e7d4f",
    "four": "#8a4fbf",
}
"""Names in the page's style sheet, and the colours of pictures that stand alone."""

SHAPES: Final = ("circle", "square", "diamond", "up", "down", "plus", "star")
"""Of the points of a mark."""

WIDTH: Final = 374  # points of 1/72 inch: legible on a phone, and not too large on a desk

_FAR: Final = 1e100  # what a search that ran away journals
_NEAR: Final = 1e-100  # no different from 0


def drawable(value: float) -> bool:
    """Whether a figure, which may be any, has a place on an axis."""
    return abs(value) < _FAR


@dataclass(frozen=True)
class Mark:
    """Points and the line through them.

    Attributes:
        x, y: (N,) values.
        colour: a name in :data:`COLOURS`.
        label: in the legend; empty for none.
        line: width, in points; 0 draws none.
        steps: whether the line goes right first and then up.
        dashed: whether it is.
        dot: radius of the points; 0 draws none.
        shape: of the points, one of :data:`SHAPES`.
        hollow: whether they are drawn as outlines.
        faint: whether they show through.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    label: str = ""
    line: float = 0.0
    steps: bool = False
    dashed: bool = False
    dot: float = 0.0
    shape: str = "circle"
    hollow: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Level:
    """A line across the whole chart.

    Attributes:
        at: its value.
        colour, label: as of a mark; it is dotted where it has a label.
        upright: whether it stands at a value of x.
    """

    at: float
    colour: str = "muted"
    label: str = ""
    upright: bool = False


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what it shows.
        low, high: where it ends; None to fit what is drawn, with a margin.
        log: whether it is logarithmic; values are above 0.
        names: in place of numbers, for the values 0, 1, 2 …
    """

    label: str = ""
    low: float | None = None
    high: float | None = None
    log: bool = False
    names: Sequence[str] = ()

    def ends(self, values: Sequence[float]) -> tuple[float, float]:
        """Where the axis begins and ends for what is drawn along it."""
        if self.names:
            return -0.6, len(self.names) - 0.4
        found = [math.log10(v) if self.log else v for v in values if drawable(v)] or [0.0, 1.0]
        low, high = min(found), max(found)
        size = max(-low, high, _NEAR)
        margin = 0.08 * (high - low) if high - low > 1e-9 * size else max(0.05 * size, 0.15)
        low, high = low - margin, high + margin
        if self.log:
            return 10**low, 10**high
        if self.low is not None and self.low < high:
            low = self.low
        if self.high is not None and self.high > low:
            high = self.high
        return low, high

    def ticks(self, low: float, high: float) -> list[float]:
        """Round values between the ends, some five of them."""
        if self.names:
            return [float(place) for place in range(len(self.names))]
        if self.log:
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for parts in ((1,), (1, 2, 5), range(1, 10)):
                found = [part * 10.0**decade for decade in decades for part in parts]
                found = [value for value in found if low <= value <= high]
                if len(found) > 2:
                    break
            return found
        unit = 10.0 ** math.floor(math.log10((high - low) / 4))
        step = next(s * unit for s in (1, 2, 2.5, 5, 10) if (high - low) / (s * unit) <= 6)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]

    def name(self, value: float) -> str:
        """A tick in words."""
        if self.names:
            return self.names[round(value)]
        return f"{value:,.10g}" if abs(value) < 1e6 else f"{value:.3g}"


@dataclass(frozen=True)
class Plot:
    """Marks on two axes.

    Attributes:
        marks, levels: what is drawn, in order.
        x, y: the axes.
        height: of the whole, in points.
    """

    marks: Sequence[Mark]
    x: Axis
    y: Axis
    height: float
    levels: Sequence[Level] = ()

    @property
    def legend(self) -> list[Mark | Level]:
        """What has a label."""
        entries: list[Mark | Level] = [*self.marks, *self.levels]
        return [entry for entry in entries if entry.label]

    def ends(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Where both axes begin and end."""
        x = [v for mark in self.marks for v in mark.x] + [v.at for v in self.levels if v.upright]
        y = [v for mark in self.marks for v in mark.y]
        y += [v.at for v in self.levels if not v.upright]
        return self.x.ends(x), self.y.ends(y)


@dataclass(frozen=True)
class Heat:
    """Square matrices beside each other, with one scale.

    Attributes:
        panels: title and (K, K) shares from 0 to 1 of each.
        names: of rows and columns; empty where they are too many to be read.
        x, y: what columns and rows are.
        scale: what 0 to 100 % are of.
    """

    panels: Sequence[tuple[str, npt.NDArray[np.float64]]]
    names: Sequence[str]
    x: str
    y: str
    scale: str
