"""Charts as picture files, drawn with matplotlib on white."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llmopt.report.plot import COLOURS, WIDTH, Axis, Heat, Mark, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SETTINGS: Final[dict[Any, Any]] = {
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
}
_MARKERS: Final = {
    "circle": "o", "square": "s", "diamond": "D", "up": "^", "down": "v", "plus": "P", "star": "*",
}  # fmt: skip


def png(shown: Plot | Heat) -> bytes:
    """A chart as a picture of its own."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")  # the font lacks some
        figure = Figure(layout="constrained")
        if isinstance(shown, Heat):
            _heat(figure, shown)
        else:
            _plot(figure, shown)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=200, facecolor="white")
    return content.getvalue()


def _plot(figure: Figure, plot: Plot) -> None:
    figure.set_size_inches(WIDTH / 72, plot.height / 72)
    axes = figure.add_subplot()
    for mark in plot.marks:
        _mark(axes, mark)
    for level in plot.levels:
        draw = axes.axvline if level.upright else axes.axhline
        draw(level.at, color=COLOURS[level.colour], linewidth=1, label=level.label or None,
             linestyle=":" if level.label else "-", zorder=1)  # fmt: skip
    ends = plot.ends()
    for axis, name, (low, high) in zip((plot.x, plot.y), "xy", ends, strict=True):
        _axis(axes, axis, name, low, high)
    if plot.y.names:
        axes.grid(False, axis="y")
    if plot.legend:
        figure.legend(loc="outside upper left", ncols=2, fontsize=8, handletextpad=0.4)


def _axis(axes: Axes, axis: Axis, name: str, low: float, high: float) -> None:
    if axis.log:
        axes.set(**{f"{name}scale": "log"})
        getattr(axes, f"{name}axis").set_minor_formatter("")
    ticks = axis.ticks(low, high)
    axes.set(**{f"{name}lim": (low, high), f"{name}label": axis.label})
    getattr(axes, f"set_{name}ticks")(ticks, [axis.name(tick) for tick in ticks])


def _mark(axes: Axes, mark: Mark) -> None:
    colour = COLOURS[mark.colour]
    axes.plot(
        mark.x, mark.y, color=colour, label=mark.label or None, linewidth=mark.line,
        linestyle="" if not mark.line else "--" if mark.dashed else "-",
        drawstyle="steps-post" if mark.steps else "default",
        marker=_MARKERS[mark.shape] if mark.dot else "", markersize=2 * mark.dot,
        markerfacecolor="none" if mark.hollow else colour, alpha=0.45 if mark.faint else 1.0,
        markeredgewidth=1.0 if mark.hollow else 0.0, clip_on=False, zorder=2,
    )  # fmt: skip


def _heat(figure: Figure, heat: Heat) -> None:
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    colour = to_rgb(COLOURS["one"])
    shade = LinearSegmentedColormap.from_list("shade", [(*colour, 0.0), (*colour, 0.95)])
    count = len(heat.panels[0][1])
    size = 2.6 if not heat.names else min(5.4, 1.4 + 0.11 * count)
    figure.set_size_inches(2 * size, size + 0.2)
    sides = figure.subplots(1, len(heat.panels), sharey=True, squeeze=False)[0]
    ticks = range(len(heat.names))
    for axes, (title, shares) in zip(sides, heat.panels, strict=True):
        picture = axes.imshow(100 * np.asarray(shares), cmap=shade, vmin=0, vmax=100,
                              interpolation="nearest")  # fmt: skip
        axes.set(title=title, xlabel=heat.x)
        axes.grid(False)
        axes.set_xticks(ticks, heat.names, rotation=90, fontsize=7)
        axes.set_yticks(ticks, heat.names, fontsize=7)
    sides[0].set_ylabel(heat.y)
    figure.colorbar(picture, ax=sides, shrink=0.8, label=heat.scale).outline.set_visible(False)
