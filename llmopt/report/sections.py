"""What the page says of one run."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llmopt.comparison.records import Record
from llmopt.figures import interval, percent, points
from llmopt.metrics import METRICS
from llmopt.report import changes
from llmopt.report.changes import Example, FindImages, Mistake, test_images
from llmopt.report.charts import Chart
from llmopt.report.drawn import charts_of
from llmopt.report.story import Turn, read_story
from llmopt.runs.baselines import LABELS
from llmopt.runs.config import RunConfig
from llmopt.runs.load import load_predictor, read_found
from llmopt.runs.told import counts, stages, unaided
from llmopt.runs.whole import flags
from llmopt.spend.currency import amount, label, worth_telling

TURNS: Final = 60  # of a conversation
LETTERS: Final = 6_000  # of a message
DESCRIBED: Final = 60  # classes whose descriptions are shown
PROMPTS: Final = 5  # of each
_ALERT: Final = 0.05


@dataclass
class RunSection:
    """One run on the page.

    Attributes:
        number: its place on the page.
        record: the run.
        sentence: what was asked and found.
        accuracies: a row for start and best: name, train, val, test, interval.
        metrics: a row each: name, of start and best on the test images.
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
        words: from the start template to the best: words that are ``same``, ``gone`` or ``new``.
        described: where classes have prompts of their own, each class, its recall before and after,
            and its prompts, the weightiest first.
        names: of classes that were given another, the old and the new.
        versions: what it ran on.
    """

    number: int
    record: Record
    sentence: str
    accuracies: list[tuple[str, ...]]
    templates: list[dict[str, Any]]
    summary: list[tuple[str, str]]
    metrics: list[tuple[str, str, str]] = field(default_factory=list)
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
    words: list[tuple[str, str]] = field(default_factory=list)
    described: list[tuple[str, str, list[str]]] = field(default_factory=list)
    names: list[tuple[str, str]] = field(default_factory=list)
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
    summary = _summary(result["optimizer"].get("summary") or {})
    return RunSection(
        number=number,
        record=record,
        sentence=f"{sentence(record)} {unaided(result)}".strip(),
        accuracies=[
            _accuracies(LABELS.get(name, name), figures)
            for name, figures in (
                ("start", result["baseline"]),
                *result.get("baselines", {}).items(),
                ("before asking", result.get("before_llm")),
                ("best", result["best"]),
            )
            if figures
        ],
        templates=found["templates"][:20],
        summary=summary,
        metrics=_metrics(result),
        stages=stages(result["optimizer"].get("summary") or {}),
        charts=charts_of(record, story, names, found["templates"], f"run-{number}"),
        mistakes=changes.mistakes(record, names),
        gained=gained,
        lost=lost,
        trouble=trouble,
        talks=talks,
        instructions=_cut(story.instructions),
        cut=cut,
        spent=_spent(result),
        command=command(record.config),
        words=_words(result),
        described=_described(record, names),
        names=list(result["best"].get("names", {}).items()),
        versions=_versions(record),
    )


def _summary(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a search did, in words."""
    rest = dict(told)
    gain, se = rest.pop("gain_nats", 0.0), rest.pop("gain_se", 0.0)
    found = [(name, str(value)) for name, value in counts(rest).items() if name != "stages"]
    if gain or se:
        found.append(("gain on the judging images", f"{gain:+.3f} ± {se:.3f} nats"))
    return found


def _metrics(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    sides = result.get("metrics") or {}
    return [
        (metric.label, percent(sides["start"][name]), percent(sides["best"][name]))
        for name, metric in METRICS.items()
        if sides and name != "top1" and sides["best"][name] is not None
    ]


def _words(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What became of the start template's words; empty where no other template was found."""
    start, found = result["baseline"]["template"], result["best"]["templates"]
    if not found or found[0]["text"] == start:
        return []
    sides = start.split(), found[0]["text"].split()
    told: list[tuple[str, str]] = []
    keys = [[word.strip(".,") for word in side] for side in sides]
    for kind, a, b, c, d in difflib.SequenceMatcher(None, keys[0], keys[1], False).get_opcodes():
        if kind == "equal":
            told.append(("same", " ".join(sides[1][c:d])))
            continue
        told += [("gone", " ".join(sides[0][a:b]))] if b > a else []
        told += [("new", " ".join(sides[1][c:d]))] if d > c else []
    return told


def _described(record: Record, names: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    by_class = load_predictor(record.folder).innermost.by_class or {}
    recalls = {
        row["class"]: f"{percent(row['start_recall'])} → {percent(row['recall'])}"
        for row in record.result.get("per_class", ())
        if row["images"]
    }
    found = []
    for place, prompts in sorted(by_class.items())[:DESCRIBED]:
        texts = sorted(prompts, key=lambda text: -prompts[text])[:PROMPTS]
        told = [f"{text} ({prompts[text]:.2f})" for text in texts]
        found.append((names[place], recalls.get(names[place], ""), told))
    return found


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
    elif texts[0] == start["template"] and not best.get("names", best.get("described")):
        did = "kept"
    if names := best.get("names"):
        what += f" with other names for {len(names):,} classes"
    if own := best.get("described"):
        what += (
            f" with {own['prompts']:,} prompts of their own for {own['classes']:,} of the classes"
        )
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
    return shlex.join(["llmopt", "run", *flags(told)])


def _accuracies(name: str, figures: dict[str, Any]) -> tuple[str, ...]:
    return (
        name,
        percent(figures.get("train_accuracy")),
        percent(figures.get("val_accuracy")),
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
