"""The charts of a report, drawn with matplotlib: figures, without a window or global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from llmopt.comparison.table import Row
from llmopt.report.story import AXES, Proposal, Step, Story
from llmopt.report.svg import COLOURS, drawing, inline
from llmopt.report.words import Word
from llmopt.spend.currency import CAPS
from llmopt.template import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass
class Chart:
    """A figure of the page, with its data.

    Attributes:
        name: unique on the page; also the name of its picture file.
        title: what it shows.
        figure: the drawing.
        header, rows: its data as a table.
        note: what to know when reading it.
        tab: what tells it from the other charts of its group, if it has one.
    """

    name: str
    title: str
    figure: Figure
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    tab: str = ""

    @property
    def svg(self) -> Markup:
        """For the page."""
        said = f"{self.note} The data follow as a table.".strip()
        return inline(self.figure, self.name, self.title, said)


WIDTH = 5.2  # inches: legible on a phone, and not too large on a desk
MANY = 400  # points drawn one by one; more become a picture inside the chart
LABELLED = 40  # classes whose names are written beside a confusion matrix
ONE, TWO, THREE, MUTED = (COLOURS[c] for c in ("one", "two", "three", "muted"))
_SERIES = (ONE, TWO, THREE, COLOURS["four"])
_MARKERS = "osD^vP*"


def climb(
    story: Story, axis: str, result: Mapping[str, Any], val: Mapping[str, float | None]
) -> Figure:
    """Every proposal a dot, the best so far a step, and what was kept on val and test.

    Args:
        axis: a currency of :data:`~llmopt.report.story.AXES`.
        result: of the run.
        val: accuracy on the validation images, of the templates that were looked at there.
    """
    figure, axes = _axes(3.1)
    with drawing():
        x = [p.at[axis] for p in story.proposals]
        y = [100 * p.accuracy for p in story.proposals]
        crowd = len(x) > MANY
        axes.scatter(
            x, y, s=14 if crowd else 22, color=ONE, alpha=0.25 if crowd else 0.45,
            linewidths=0, label="proposal, train", rasterized=crowd,
        )  # fmt: skip
        best = story.climb()
        if best:
            steps = [*best, Proposal("", "", best[-1].accuracy, 0.0, story.proposals[-1].at)]
            axes.step(
                [p.at[axis] for p in steps],
                [100 * p.accuracy for p in steps],
                where="post", color=ONE, linewidth=1.8, label="best so far, train",
            )  # fmt: skip
        looked = [p for p in story.proposals if val.get(p.text) is not None]
        if looked:
            axes.scatter(
                [p.at[axis] for p in looked], [100 * (val[p.text] or 0.0) for p in looked],
                marker="D", s=16, facecolors="none", edgecolors=THREE, label="finalist, val",
            )  # fmt: skip
        _ends(axes, result, max(x, default=0.0))
        axes.set(xlabel=AXES[axis], ylabel="accuracy, %", ylim=(0, 103))
        axes.set_xlim(left=0)
        _legend(figure)
    return figure


def walk(found: Sequence[Step], axis: str, result: Mapping[str, Any]) -> Figure:
    """Where a continuous search stood on train and val, and what was kept on val and test."""
    figure, axes = _axes(3.1)
    with drawing():
        x = [step.at[axis] for step in found]
        for key, colour, label in (
            ("train_accuracy", ONE, "train"),
            ("val_accuracy", THREE, "val"),
        ):
            if all(key in step.figures for step in found):
                y = [100 * step.figures[key] for step in found]
                axes.plot(x, y, color=colour, linewidth=1.4, alpha=0.8, label=label)
        _ends(axes, result, x[-1])
        axes.set(xlabel=AXES[axis], ylabel="accuracy, %", ylim=(0, 103))
        axes.set_xlim(left=0)
        _legend(figure)
    return figure


def _ends(axes: Axes, result: Mapping[str, Any], end: float) -> None:
    """What was kept, at the end of a climb, and the start as a line."""
    shown = (
        ("val_accuracy", "D", THREE, "kept, val"),
        ("test_accuracy", "*", TWO, "kept, test (once)"),
    )
    for key, marker, colour, label in shown:
        if result["best"].get(key) is not None:
            size = 90 if marker == "*" else 34
            axes.scatter([end], [100 * result["best"][key]], marker=marker, s=size, color=colour,
                         label=label, zorder=3, clip_on=False)  # fmt: skip
    if result["baseline"].get("test_accuracy") is not None:
        axes.axhline(100 * result["baseline"]["test_accuracy"], color=TWO, linewidth=1,
                     linestyle=":", label="start, test")  # fmt: skip


def steps(found: Sequence[Step], key: str, label: str) -> Figure:
    """One figure of a continuous search, step by step."""
    figure, axes = _axes(2.1)
    with drawing():
        shown = [step for step in found if key in step.figures]
        x = [step.index + 1 for step in shown]
        y = [step.figures[key] for step in shown]
        axes.plot(x, y, color=ONE, linewidth=1.6, marker="." if len(x) < 40 else None)
        axes.set(xlabel="step", ylabel=label)
    return figure


def start_and_best(result: dict[str, Any]) -> Figure:
    """Test accuracy of start and best with their intervals."""
    figure, axes = _axes(1.3)
    with drawing():
        for place, (key, colour) in enumerate((("best", ONE), ("baseline", MUTED))):
            value, interval = (result[key][n] for n in ("test_accuracy", "test_accuracy_ci95"))
            _whisker(axes, place, value, interval, colour)
        axes.set_yticks([0, 1], ["best", "start"])
        axes.set(xlabel="test accuracy, %", ylim=(-0.6, 1.6), xlim=(0, 101))
        axes.grid(False, axis="y")
    return figure


def words(found: Sequence[Word]) -> Figure:
    """How much better templates with a word score."""
    figure, axes = _axes(0.8 + 0.24 * len(found))
    with drawing():
        for place, word in enumerate(reversed(found)):
            colour = ONE if word.interval[0] > 0 else TWO if word.interval[1] < 0 else MUTED
            _whisker(axes, place, word.effect, word.interval, colour, scale=1.0)
        axes.set_yticks(range(len(found)), [f"{w.word} ({w.count})" for w in reversed(found)])
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set(xlabel="difference in mean log-likelihood, nats")
        axes.grid(False, axis="y")
    return figure


def confusions(before: Any, after: Any, names: Sequence[str]) -> Figure:
    """Two confusion matrices, in per cent of each true class."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    count = len(names)
    named = count <= LABELLED
    size = 2.6 if not named else min(5.4, 1.4 + 0.11 * count)
    with drawing():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(2 * size, size + 0.2), layout="constrained")
        pair = figure.subplots(1, 2, sharey=True)
        shade = LinearSegmentedColormap.from_list(
            "shade", [(*to_rgb(ONE), 0.0), (*to_rgb(ONE), 0.95)]
        )
        for axes, matrix, title in zip(pair, (before, after), ("start", "best"), strict=True):
            share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            picture = axes.imshow(share, cmap=shade, vmin=0, vmax=100, interpolation="nearest")
            axes.set(title=title, xlabel="taken for")
            axes.grid(False)
            axes.spines[["top", "right"]].set_visible(True)
            ticks = range(count) if named else []
            labels = [shorten(name, 14) for name in names] if named else []
            axes.set_xticks(ticks, labels, rotation=90, fontsize=7)
            axes.set_yticks(ticks, labels, fontsize=7)
        pair[0].set_ylabel("true class")
        bar = figure.colorbar(picture, ax=pair, shrink=0.8, label="% of the true class")
        bar.outline.set_visible(False)
    return figure


def forest(rows: Sequence[Row]) -> Figure:
    """Gain over the start of every arm with its interval."""
    figure, axes = _axes(0.8 + 0.32 * len(rows))
    with drawing():
        for place, row in enumerate(reversed(rows)):
            gain = row.gain.difference
            colour = {"better": ONE, "worse": TWO}.get(row.gain.verdict, MUTED)
            _whisker(axes, place, gain.mean, gain.interval, colour)
        axes.set_yticks(range(len(rows)), [shorten(_arm(row, rows), 32) for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set(xlabel="gain over the start on test, percentage points")
        axes.grid(False, axis="y")
    return figure


def front(rows: Sequence[Row]) -> Figure:
    """Accuracy over cost; arms no other arm beats in both are joined by a line."""
    figure, axes = _axes(3.0)
    with drawing():
        for number, row in enumerate(rows):
            x, y = max(row.queries, 1), 100 * row.accuracy
            low, high = (100 * bound for bound in row.interval)
            axes.errorbar(
                x, y, yerr=[[max(0, y - low)], [max(0, high - y)]],
                fmt=_MARKERS[number % len(_MARKERS)], color=_SERIES[number % len(_SERIES)],
                capsize=3, linewidth=1.2, markersize=7, label=shorten(_arm(row, rows), 24),
            )  # fmt: skip
        best: list[Row] = []
        for row in sorted(rows, key=lambda r: (r.queries, -r.accuracy)):
            if not best or row.accuracy > best[-1].accuracy:
                best.append(row)
        axes.plot([max(r.queries, 1) for r in best], [100 * r.accuracy for r in best],
                  color=MUTED, linewidth=1.2, linestyle="--", zorder=0)  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.set(xlabel=f"{CAPS['queries'].label}, log scale", ylabel="test accuracy, %")
        axes.margins(x=0.15, y=0.12)
        _legend(figure)
    return figure


def shorten(text: str, length: int) -> str:
    """Outside text for a label: one line, no control characters, not too long."""
    text = clean(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _arm(row: Row, rows: Sequence[Row]) -> str:
    several = len({(r.dataset, r.shots) for r in rows}) > 1
    return f"{row.arm}, {row.dataset} {row.shots}-shot" if several else row.arm


def _axes(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        return figure, figure.add_subplot()


def _whisker(
    axes: Axes, y: float, value: float, interval: Sequence[float], colour: str, scale: float = 100.0
) -> None:
    low, high = (scale * bound for bound in interval)
    axes.plot([low, high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot([scale * value], [y], "o", color=colour, markersize=6)


def _legend(figure: Figure) -> None:
    labels = [str(t) for axes in figure.axes for t in axes.get_legend_handles_labels()[1]]
    wide = max(map(len, labels), default=0) > 19
    figure.legend(
        loc="outside upper left",
        ncols=2 if wide else 3,
        fontsize=8,
        handletextpad=0.4,
        columnspacing=1.2,
    )
