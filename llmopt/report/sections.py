"""What the page says of one run."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass, field
from typing import Any, Final

from llmopt.comparison.records import Record
from llmopt.figures import interval, percent, points
from llmopt.report import changes, charts
from llmopt.report.changes import Example, FindImages, Mistake, test_images
from llmopt.report.charts import Chart
from llmopt.report.story import AXES, Story, Turn, read_story
from llmopt.report.words import helpful_words
from llmopt.runs.config import RunConfig
from llmopt.runs.load import read_found
from llmopt.runs.told import counts, stages, unaided
from llmopt.spend.currency import amount, label, worth_telling

ROWS: Final = 300  # of a data table; the journal holds the rest
TURNS: Final = 60  # of a conversation
LETTERS: Final = 6_000  # of a message
_ALERT: Final = 0.05


@dataclass
class RunSection:
    """One run on the page.

    Attributes:
        number: its place on the page.
        record: the run.
        sentence: what was asked and found.
        accuracies: a row for start and best: name, train, val, test, interval.
        templates: of ``prompts.json``, the run's own first.
        summary: what became of the proposals.
        stages: what each stage of the search brought and cost.
        charts: in order; those with a ``tab`` share a place.
        mistakes: pairs of classes that changed most.
        gained, lost: images that start and best see differently.
        trouble: why no images are shown.
        talks: the conversations.
        instructions: what they began with.
        cut: how many turns are left out.
        spent: name, in the search, in the evaluation.
        command: what repeats the run.
        versions: what it ran on.
    """

    number: int
    record: Record
    sentence: str
    accuracies: list[tuple[str, ...]]
    templates: list[dict[str, Any]]
    summary: list[tuple[str, str]]
    stages: list[tuple[str, ...]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    gained: list[Example] = field(default_factory=list)
    lost: list[Example] = field(default_factory=list)
    trouble: str = ""
    talks: dict[str, list[Turn]] = field(default_factory=dict)
    instructions: str = ""
    cut: int = 0
    spent: list[tuple[str, str, str]] = field(default_factory=list)
    command: str = ""
    versions: list[tuple[str, str]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Of the section."""
        return title(self.record)

    def chart(self, kind: str) -> list[Chart]:
        """The charts of a kind, such as ``climb``."""
        return [chart for chart in self.charts if chart.name.split("-")[2] == kind]


def run_section(record: Record, number: int, find: FindImages = test_images) -> RunSection:
    """Everything about a run; ``find`` gives its test images."""
    result = record.result
    found = read_found(record.folder)
    names = [str(name) for name in found["classnames"]]
    story = read_story(record.folder, len(names))
    talks, cut = _shortened(story.talks)
    gained, lost, trouble = changes.examples(record, names, find=find)
    summary = [(n, str(v)) for n, v in counts(result["optimizer"].get("summary") or {}).items()]
    return RunSection(
        number=number,
        record=record,
        sentence=f"{sentence(record)} {unaided(result)}".strip(),
        accuracies=[
            _accuracies(name, result[name])
            for name in ("baseline", "before_llm", "best")
            if name in result
        ],
        templates=found["templates"][:20],
        summary=summary,
        stages=stages(result["optimizer"].get("summary") or {}),
        charts=_charts(record, story, names, found["templates"], f"run-{number}"),
        mistakes=changes.mistakes(record, names),
        gained=gained,
        lost=lost,
        trouble=trouble,
        talks=talks,
        instructions=_cut(story.instructions),
        cut=cut,
        spent=_spent(result),
        command=command(record.config),
        versions=_versions(record),
    )


def title(record: Record) -> str:
    """What a run is called."""
    config = record.config
    return f"{record.arm} on {config.dataset}, {config.shots}-shot, seed {config.seed}"


def sentence(record: Record) -> str:
    """What was asked and found, in one sentence."""
    result, config = record.result, record.config
    task, best, start, gain = (result[k] for k in ("task", "best", "baseline", "gain"))
    images = f"{task['train_images'] + task['val_images']:,} labelled images"
    asked = (
        f"To tell the {task['classes']:,} classes of {config.dataset} apart behind "
        f"{result['model']['name']}, {config.optimizer} had {images} "
        f"({task['shots']} a class to train on)"
    )
    tested = f"{task['test_images']:,} test images"
    if best["fallback"]:
        found = "it found nothing convincingly better than"
        if not best.get("tried", True):
            found = "it tried nothing but"
        return (
            f"{asked}; {found} “{start['template']}” and kept "
            f"it: {percent(start['test_accuracy'])} of {tested}."
        )
    texts = [template["text"] for template in best["templates"]] or [start["template"]]
    did, what = "found", f"“{texts[0]}”"
    if best["soft_prompt"]:
        what = "a soft prompt"
    elif len(texts) > 1:
        what = f"an ensemble of {len(texts)} templates led by {what}"
    elif texts[0] == start["template"]:
        did = "kept"
    if best["head"]:
        what += f" with the head '{best['head'].get('name', '')}'"
    change = (
        f"{points(gain['test_accuracy'])} points, 95 % interval {interval(gain['ci95'], True)}"
        if gain["p_value"] < _ALERT
        else f"{points(gain['test_accuracy'])} points, which is no significant difference"
    )
    return (
        f"{asked} and {did} {what}: {percent(best['test_accuracy'])} of {tested}, against "
        f"{percent(start['test_accuracy'])} with “{start['template']}” ({change})."
    )


def command(config: RunConfig) -> str:
    """The command that repeats a run."""
    here = "" if config.data_root == "data" else config.data_root
    told = dataclasses.replace(config, runs=RunConfig.runs, init_from="", data_root=here)
    return shlex.join(["llmopt", "run", *told.flags()])


def _charts(
    record: Record,
    story: Story,
    names: list[str],
    templates: list[dict[str, Any]],
    prefix: str,
) -> list[Chart]:
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


def _climbs(
    story: Story, result: dict[str, Any], templates: list[dict[str, Any]], prefix: str
) -> list[Chart]:
    ranked = sorted(story.proposals, key=lambda p: p.logprob, reverse=True)[:ROWS]
    val = {entry["text"]: entry["val_accuracy"] for entry in templates}
    note = "Accuracy on the training images; every dot is a template that was scored."
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


def _accuracies(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    return (
        {"baseline": "start", "before_llm": "before asking"}.get(name, name),
        percent(figures["train_accuracy"]),
        percent(figures["val_accuracy"]),
        percent(figures["test_accuracy"]),
        interval(figures["test_accuracy_ci95"]),
    )


def _spent(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    search, evaluation = result["ledger"], result["evaluation"]
    told = {*worth_telling(search), *worth_telling(evaluation)}
    rows = [
        (label(name), amount(name, value), amount(name, evaluation.get(name, 0)))
        for name, value in search.items()
        if name in told
    ]
    seconds = result["seconds"]
    rows += [(f"seconds, {name.replace('_', ' ')}", f"{seconds[name]:,.1f}", "")
             for name in ("total", "black_box", "llm") if seconds.get(name)]  # fmt: skip
    return rows


def _versions(record: Record) -> list[tuple[str, str]]:
    result = record.result
    return [
        *result["versions"].items(),
        *((name, str(value)) for name, value in result.get("machine", {}).items()),
        ("weights sha256", result["model"]["weights_sha256"]),
        ("split sha256", result["task"]["split_sha256"]),
        ("split", result["task"].get("split", "")),
    ]


def _shortened(talks: dict[str, list[Turn]]) -> tuple[dict[str, list[Turn]], int]:
    cut = 0
    shown = {}
    for stream, turns in talks.items():
        shown[stream] = [Turn(_cut(t.asked), _cut(t.reply)) for t in turns[:TURNS]]
        cut += max(0, len(turns) - TURNS)
    return shown, cut


def _cut(text: str) -> str:
    left = len(text) - LETTERS
    return text if left <= 0 else f"{text[:LETTERS]}\n… ({left:,} more characters in the journal)"


def _span(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
