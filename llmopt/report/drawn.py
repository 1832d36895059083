"""The charts of one run, with their data as tables."""

from __future__ import annotations

from typing import Any, Final

from llmopt.comparison.records import Record
from llmopt.figures import interval, percent
from llmopt.report import changes, charts
from llmopt.report.charts import Chart
from llmopt.report.story import AXES, Story
from llmopt.report.words import helpful_words

ROWS: Final = 300  # of a data table; the journal holds the rest
CLASSES: Final = 24  # drawn


def charts_of(
    record: Record,
    story: Story,
    names: list[str],
    templates: list[dict[str, Any]],
    prefix: str,
) -> list[Chart]:
    """Every chart of a run.

    Args:
        record, story: the run, and what happened in it.
        names: of the classes.
        templates: of ``prompts.json``.
        prefix: of the charts' names.
    """
    result = record.result
    rows = [
        (name, percent(result[key]["test_accuracy"]), interval(result[key]["test_accuracy_ci95"]))
        for name, key in (("start", "baseline"), ("best", "best"))
    ]
    found = [
        Chart(
            f"{prefix}-start",
            "Start and best on the test images, with 95 % intervals",
            charts.start_and_best(result),
            ("", "test accuracy", "95 % interval"),
            rows,
        )
    ]
    if story.proposals:
        found += _climbs(story, result, templates, prefix)
    else:
        found += _walks(story, result, prefix)
    found += _steps(story, prefix)
    if words := helpful_words(story.proposals):
        found.append(
            Chart(
                f"{prefix}-words",
                "Words that went with better and worse templates",
                charts.words(words),
                ("word", "templates", "difference, nats", "95 % interval"),
                [(w.word, w.count, f"{w.effect:+.3f}", _span(w.interval)) for w in words],
                "What goes together is no proof: a search repeats what went well.",
            )
        )
    before, after = (
        changes.confusion(record.labels, predicted, len(names))
        for predicted in (record.before.top, record.after.top)
    )
    found += _by_class(result, prefix)
    mistakes = changes.mistakes(record, names, limit=ROWS)
    found.append(
        Chart(
            f"{prefix}-confusion",
            "Which classes are taken for which, before and after",
            charts.confusions(before, after, names),
            ("true class", "taken for", "start", "best"),
            [(m.true, m.taken_for, m.before, m.after) for m in mistakes],
            "Test images; the table lists mistakes only, those that changed most first.",
        )
    )
    return found


def _by_class(result: dict[str, Any], prefix: str) -> list[Chart]:
    """Recall of each class, and calibration, where the result tells of them."""
    found = []
    rows = [row for row in result.get("per_class", ()) if row["images"]]
    if rows:
        changed = sorted(rows, key=lambda r: -abs(r["recall"] - r["start_recall"]))[:CLASSES]
        note = f"The {CLASSES} classes that changed most." * (len(rows) > CLASSES)
        found.append(
            Chart(
                f"{prefix}-classes",
                "Recall of each class on the test images",
                charts.gain_by_class(changed),
                ("class", "images", "start", "best", "95 % interval", "precision", "F1"),
                [
                    (
                        row["class"],
                        row["images"],
                        percent(row["start_recall"]),
                        percent(row["recall"]),
                        interval(row["recall_ci95"]),
                        percent(row["precision"]),
                        percent(row["f1"]),
                    )
                    for row in rows
                ],
                note,
            )
        )
    metrics = result.get("metrics")
    if metrics and metrics["best"]["reliability"]:
        found.append(
            Chart(
                f"{prefix}-calibration",
                "How sure, and how right",
                charts.calibration(metrics),
                ("", "confidence", "images", "mean confidence", "right"),
                [
                    (
                        side,
                        interval((one["low"], one["high"])),
                        one["images"],
                        percent(one["confidence"]),
                        percent(one["accuracy"]),
                    )
                    for side in ("start", "best")
                    for one in metrics[side]["reliability"] or ()
                ],
                "A point for each bin of confidence that has images.",
            )
        )
    return found


def _climbs(
    story: Story, result: dict[str, Any], templates: list[dict[str, Any]], prefix: str
) -> list[Chart]:
    by = charts.ranks_by(result)
    ranked = sorted(story.proposals, key=lambda p: getattr(p, by), reverse=True)[:ROWS]
    val = {entry["text"]: entry["val_accuracy"] for entry in templates}
    note = (
        f"The search ranks by the {by} of the true class on the training images"
        f"{', its geometric mean' * (by == 'likelihood')}; every dot is a template that was scored."
    )
    if len(story.proposals) > ROWS:
        note += f" The table holds the best {ROWS:,} of {len(story.proposals):,}."
    header = ("template", "train accuracy", "train log-likelihood", *map(AXES.get, story.axes))
    rows = [
        (p.text, percent(p.accuracy), f"{p.logprob:.4f}", *(f"{p.at[a]:,.6g}" for a in story.axes))
        for p in ranked
    ]
    return [
        Chart(
            f"{prefix}-climb-{axis}",
            f"The climb over {AXES[axis]}",
            charts.climb(story, axis, result, val),
            [str(name) for name in header],
            rows if number == 0 else (),  # one table holds every axis
            note,
            tab=AXES[axis],
        )
        for number, axis in enumerate(story.axes)
    ]


def _walks(story: Story, result: dict[str, Any], prefix: str) -> list[Chart]:
    """The climb of a continuous search."""
    steps = [step for step in story.steps if "train_accuracy" in step.figures]
    if len(steps) < 2:
        return []
    rows = [
        (
            *(f"{step.at[axis]:,.6g}" for axis in story.axes),
            percent(step.figures["train_accuracy"]),
            percent(step.figures.get("val_accuracy")),
        )
        for step in steps[:ROWS]
    ]
    return [
        Chart(
            f"{prefix}-climb-{axis}",
            f"The climb over {AXES[axis]}",
            charts.walk(steps, axis, result),
            [*(AXES[a] for a in story.axes), "train accuracy", "val accuracy"],
            rows if number == 0 else (),  # one table holds every axis
            "Accuracy where the search stood on the training and validation images.",
            tab=AXES[axis],
        )
        for number, axis in enumerate(story.axes)
    ]


def _steps(story: Story, prefix: str) -> list[Chart]:
    labels = {"fitness": "fitness (best)", "loss": "loss", "sigma": "sigma"}
    return [
        Chart(
            f"{prefix}-steps-{key}",
            f"{label.partition(',')[0].capitalize()} of the continuous search",
            charts.steps(story.steps, key, label),
            ("step", label, "seconds"),
            [
                (s.index + 1, f"{s.figures[key]:.4g}", f"{s.at['seconds']:.1f}")
                for s in story.steps
                if key in s.figures
            ][:ROWS],
            tab=label.partition(",")[0],
        )
        for key, label in labels.items()
        if sum(key in step.figures for step in story.steps) > 1
    ]


def _span(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
