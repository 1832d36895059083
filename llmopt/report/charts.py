"""The charts of a report: what each of them shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from llmopt.comparison.table import Row
from llmopt.report import svg
from llmopt.report.plot import SHAPES, Axis, Heat, Level, Mark, Plot
from llmopt.report.story import AXES, Step, Story
from llmopt.report.words import Word
from llmopt.spend.currency import CAPS
from llmopt.template import clean


@dataclass
class Chart:
    """A figure of the page, with its data.

    Attributes:
        name: unique on the page; also the name of its picture file.
        title: what it shows.
        shown: what is drawn.
        header, rows: its data as a table.
        note: what to know when reading it.
        tab: what tells it from the other charts of its group, if it has one.
    """

    name: str
    title: str
    shown: Plot | Heat
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    tab: str = ""

    @property
    def svg(self) -> Markup:
        """For the page."""
        said = f"{self.note} The data follow as a table.".strip()
        return svg.draw(self.shown, self.name, self.title, said)


LABELLED: Final = 40  # classes whose names are written beside a confusion matrix
NAMED: Final = 12  # arms in the legend of a chart
_SHARE: Final = Axis("%", 0, 103)
_SERIES: Final = ("one", "two", "three", "four")
_TALL, _LOW = 223.0, 151.0  # points


def climb(
    story: Story, axis: str, result: Mapping[str, Any], val: Mapping[str, float | None]
) -> Plot:
    """What the search ranks by: a dot a proposal, the best so far a step; then its accuracy.

    Args:
        axis: a currency of :data:`~llmopt.report.story.AXES`.
        result: of the run.
        val: accuracy on the validation images, of the templates that were looked at there.
    """
    by = ranks_by(result)
    x = [p.at[axis] for p in story.proposals]
    marks = [
        Mark(x, [100 * getattr(p, by) for p in story.proposals], "one", f"proposal, {by}",
             dot=2.4, faint=True)
    ]  # fmt: skip
    if best := story.climb(by):
        end = [*(p.at[axis] for p in best), x[-1]]
        told = {by: "best so far", "accuracy": "its accuracy, train"}
        for name, label in told.items():
            heights = [100 * getattr(p, name) for p in (*best, best[-1])]
            first = name == by
            colour = "one" if first else "four"
            line = 1.8 if first else 1.2
            marks.append(Mark(end, heights, colour, label, line=line, steps=True, dashed=not first))
    looked = [(p.at[axis], 100 * (val[p.text] or 0.0)) for p in story.proposals
              if val.get(p.text) is not None]  # fmt: skip
    if looked:
        places, heights = (list(side) for side in zip(*looked, strict=True))
        marks.append(
            Mark(places, heights, "three", "finalist, val", dot=2, shape="diamond", hollow=True)
        )
    return _ended(marks, axis, result, max(x, default=0.0))


def walk(found: Sequence[Step], axis: str, result: Mapping[str, Any]) -> Plot:
    """Where a continuous search stood on train and val, and what was kept on val and test."""
    x = [step.at[axis] for step in found]
    marks = [
        Mark(x, [100 * step.figures[key] for step in found], colour, label, line=1.4)
        for key, colour, label in (
            ("train_accuracy", "one", "train"),
            ("val_accuracy", "three", "val"),
        )
        if all(key in step.figures for step in found)
    ]
    return _ended(marks, axis, result, x[-1])


def _ended(marks: list[Mark], axis: str, result: Mapping[str, Any], end: float) -> Plot:
    """With what was kept, at the end of a climb, and the start as a line."""
    for key, colour, label, shape, size in (
        ("val_accuracy", "three", "kept, val", "diamond", 2.6),
        ("test_accuracy", "two", "kept, test (once)", "star", 4.2),
    ):
        if result["best"].get(key) is not None:
            height = 100 * result["best"][key]
            marks.append(Mark([end], [height], colour, label, dot=size, shape=shape))
    start = result["baseline"].get("test_accuracy")
    levels = [] if start is None else [Level(100 * start, "two", "start, test")]
    return Plot(marks, Axis(AXES[axis], low=0), _SHARE, _TALL, levels)


def ranks_by(result: Mapping[str, Any]) -> str:
    """What a search by words ranks templates by: ``likelihood`` or ``accuracy``."""
    asked = result["optimizer"]["settings"].get("fitness")
    return "accuracy" if asked == "accuracy" else "likelihood"


def steps(found: Sequence[Step], key: str, label: str) -> Plot:
    """One figure of a continuous search, step by step."""
    shown = [step for step in found if key in step.figures]
    x, y = [step.index + 1 for step in shown], [step.figures[key] for step in shown]
    mark = Mark(x, y, "one", line=1.6, dot=1.6 if len(x) < 40 else 0)
    return Plot([mark], Axis("step"), Axis(label), _LOW)


def start_and_best(result: dict[str, Any]) -> Plot:
    """Test accuracy of start and best with their intervals."""
    marks: list[Mark] = []
    for place, (key, colour) in enumerate((("best", "one"), ("baseline", "muted"))):
        value, interval = (result[key][n] for n in ("test_accuracy", "test_accuracy_ci95"))
        marks += _whisker(place, value, interval, colour)
    y = Axis(names=("best", "start"))
    return Plot(marks, Axis("test accuracy, %", 0, 101), y, 94)


def words(found: Sequence[Word]) -> Plot:
    """How much better templates with a word score."""
    marks: list[Mark] = []
    for place, word in enumerate(reversed(found)):
        colour = "one" if word.interval[0] > 0 else "two" if word.interval[1] < 0 else "muted"
        marks += _whisker(place, word.effect, word.interval, colour, scale=1.0)
    names = [f"{shorten(word.word, 24)} ({word.count})" for word in reversed(found)]
    x = Axis("difference in mean log-likelihood, nats")
    return Plot(marks, x, Axis(names=names), 58 + 17.0 * len(found), [Level(0, upright=True)])


def confusions(before: Any, after: Any, names: Sequence[str]) -> Heat:
    """Two confusion matrices, in per cent of each true class."""
    panels = [
        (title, matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1))
        for title, matrix in (("start", before), ("best", after))
    ]
    shown = [shorten(name, 14) for name in names] if len(names) <= LABELLED else []
    return Heat(panels, shown, "taken for", "true class", "% of the true class")


def gain_by_class(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Recall of start and best of each class, those that changed most first."""
    marks: list[Mark] = []
    for place, row in enumerate(reversed(rows)):
        ends = [100 * row["start_recall"], 100 * row["recall"]]
        colour = "one" if ends[1] > ends[0] else "two" if ends[1] < ends[0] else "muted"
        first = place == len(rows) - 1
        marks.append(Mark(ends, [place, place], colour, line=2))
        marks.append(Mark(ends[:1], [place], "muted", "start" * first, dot=2.6, hollow=True))
        marks.append(Mark(ends[1:], [place], colour, "best" * first, dot=3))
    names = [shorten(row["class"], 24) for row in reversed(rows)]
    height = 70 + 15.0 * len(rows)
    return Plot(marks, Axis("recall on test, %", 0, 103), Axis(names=names), height)


def calibration(metrics: Mapping[str, Any]) -> Plot:
    """How often a prediction is right, by how sure it is; the diagonal is as it should be."""
    marks = [Mark([0, 100], [0, 100], "muted", "as sure as right", line=1, dashed=True)]
    for side, colour, shape in (("start", "two", "diamond"), ("best", "one", "circle")):
        if bins := metrics[side]["reliability"]:
            x, y = ([100 * one[key] for one in bins] for key in ("confidence", "accuracy"))
            label = f"{side}, calibration error {100 * metrics[side]['ece']:.1f} %"
            marks.append(Mark(x, y, colour, label, line=1.2, dot=2.6, shape=shape))
    ends = Axis("confidence, %", 0, 103)
    return Plot(marks, ends, Axis("right, %", 0, 103), _TALL)


def forest(rows: Sequence[Row]) -> Plot:
    """Gain over the start of every arm with its interval, and of each seed as a dot."""
    marks: list[Mark] = []
    for place, row in enumerate(reversed(rows)):
        gain = row.gain.difference
        colour = {"better": "one", "worse": "two"}.get(row.gain.verdict, "muted")
        # No gain is beyond 100 points, though an interval over two seeds may be.
        marks += _whisker(place, gain.mean, np.clip(gain.interval, -1, 1).tolist(), colour)
        if len(row.gains) > 1:
            each = [100 * one for one in row.gains]
            marks.append(Mark(each, [place - 0.22] * len(each), "muted", dot=1.8, faint=True))
    names = [shorten(row.arm, 32) for row in reversed(rows)]
    x = Axis("gain over the start on test, percentage points")
    return Plot(marks, x, Axis(names=names), 58 + 20.0 * len(rows), [Level(0, upright=True)])


def front(rows: Sequence[Row]) -> Plot:
    """Accuracy over cost; arms no other arm beats in both are joined by a line.

    Where there are many, only those are named.
    """
    best: list[Row] = []
    for row in sorted(rows, key=lambda r: (r.queries, -r.value)):
        if not best or row.value > best[-1].value:
            best.append(row)
    marks: list[Mark] = []
    named = rows if len(rows) <= NAMED else best
    for number, row in enumerate(rows):
        x, y = max(row.queries, 1), 100 * row.value
        colour = _SERIES[number % len(_SERIES)]
        label = shorten(row.arm, 24) if row in named else ""
        marks.append(Mark([x, x], [100 * bound for bound in row.interval], colour, line=1.2))
        marks.append(Mark([x], [y], colour, label, dot=3, shape=SHAPES[number % len(SHAPES)]))
        if len(row.each) > 1:
            each = [100 * one for one in row.each]
            marks.append(Mark([x] * len(each), each, colour, dot=1.6, faint=True))
    edge = [max(row.queries, 1) for row in best], [100 * row.value for row in best]
    marks.insert(0, Mark(*edge, "muted", line=1.2, dashed=True))
    x_axis = Axis(f"{CAPS['queries'].label}, log scale", log=True)
    height = 216.0 + 6.5 * len(named)  # the legend takes its part
    return Plot(marks, x_axis, Axis("test accuracy, %"), height)


def shorten(text: str, length: int) -> str:
    """Outside text for a label: one line, no control characters, not too long."""
    text = clean(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _whisker(
    place: float, value: float, interval: Sequence[float], colour: str, scale: float = 100.0
) -> list[Mark]:
    ends = [scale * bound for bound in interval]
    return [
        Mark(ends, [place, place], colour, line=2),
        Mark([scale * value], [place], colour, dot=3),
    ]
