"""The comparison itself: one row an arm, and every pair of arms tested on the same images."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from llmopt.comparison.paired import Difference, compared, measured
from llmopt.comparison.records import Record, fair
from llmopt.errors import ConfigError, nearest
from llmopt.metrics import METRICS, Predicted
from llmopt.runs.baselines import LABELS
from llmopt.runs.told import unaided
from llmopt.spend.currency import CURRENCIES, Spend
from llmopt.stats import holm

if TYPE_CHECKING:
    from llmopt.comparison.execute import Done
    from llmopt.sweep.status import Status

SCHEMA = 1
# Prompts first: they are what the methods spend.
SPENDS = tuple(
    one.name
    for one in sorted(CURRENCIES.values(), key=lambda one: one.cap != "queries")
    if one.kind == "spent"
)

Task = tuple[str, int, str]
"""Data set, shots and model."""


@dataclass(frozen=True)
class Tested:
    """A difference with its place among all tests of the comparison.

    Attributes:
        difference: between the two sides.
        adjusted: Holm's p-value over every test of the comparison.
    """

    difference: Difference
    adjusted: float

    @property
    def verdict(self) -> str:
        """In words."""
        return self.difference.verdict(self.adjusted)


@dataclass(frozen=True)
class Row:
    """One arm on one task, over its seeds, in the metric of the comparison.

    Attributes:
        dataset, shots, model: the task.
        arm: what was run.
        seeds: those that finished.
        value: mean on the test images.
        interval: 95 %; the wider of over seeds, where there are several, and over images.
        start: mean of the start template.
        gain: over the start.
        worst: of a seed.
        worst_gain: of a seed.
        baselines: means of published ensembles, by name, where every seed measured them.
        over: the difference to each of those.
        each: values of the seeds, in their order; ``gains`` are theirs over their starts.
        spend: mean of each currency, that of earlier runs it started from included; None where a
            price is not known.
        seconds: mean.
        folders: the runs.
    """

    dataset: str
    shots: int
    model: str
    arm: str
    seeds: tuple[int, ...]
    value: float
    interval: tuple[float, float]
    start: float
    gain: Tested
    worst: float
    worst_gain: float
    baselines: dict[str, float]
    over: dict[str, Difference]
    each: tuple[float, ...]
    gains: tuple[float, ...]
    spend: dict[str, float | None]
    seconds: float
    folders: tuple[str, ...]

    @property
    def queries(self) -> float:
        """Prompts encoded, text and soft ones together."""
        return Spend.read(self.spend).queries

    def per_point(self, currency: str) -> float | None:
        """Mean spend for each percentage point gained; None without a gain or a known spend."""
        spent, points = self.spend[currency], self.gain.difference.points
        return spent / points if spent is not None and points > 0 else None


@dataclass(frozen=True)
class Pair:
    """Two arms on one task, over the seeds both have."""

    dataset: str
    shots: int
    model: str
    first: str
    second: str
    tested: Tested


@dataclass(frozen=True)
class Comparison:
    """Everything a comparison says.

    Attributes:
        rows: by task, best arm first.
        pairs: every two arms of a task, the better first.
        metric: that they are compared in, by its name in :data:`~llmopt.metrics.METRICS`.
        notes: what a reader must know.
        published: other people's figures, if asked for.
        done: what became of each run, failed and interrupted ones too.
        status: where the grid stands that these are runs of.
    """

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    metric: str = "top1"
    notes: tuple[str, ...] = ()
    published: tuple[dict[str, Any], ...] = ()
    done: tuple[Done, ...] = ()
    status: Status | None = None

    @property
    def tasks(self) -> list[Task]:
        """Of each group of rows."""
        return list(dict.fromkeys((row.dataset, row.shots, row.model) for row in self.rows))

    def of_task(self, task: Task) -> list[Row]:
        """The rows of a task."""
        return [row for row in self.rows if (row.dataset, row.shots, row.model) == task]

    @property
    def key(self) -> str:
        """What the metric is called in files."""
        return "accuracy" if self.metric == "top1" else self.metric

    def among(self, rows: Sequence[Row]) -> Comparison:
        """With these rows alone, and the pairs of arms among them."""
        arms = {(row.dataset, row.shots, row.model, row.arm) for row in rows}
        pairs = tuple(
            pair
            for pair in self.pairs
            if {(pair.dataset, pair.shots, pair.model, arm) for arm in (pair.first, pair.second)}
            <= arms
        )
        return dataclasses.replace(self, rows=tuple(rows), pairs=pairs)

    def to_json(self) -> dict[str, Any]:
        """For machines. Accuracies are fractions."""
        rows = []
        for row in self.rows:
            plain = dataclasses.asdict(row) | {"gain": _plain(row.gain)}
            plain[self.key] = plain.pop("value")
            plain["per_point"] = {name: row.per_point(name) for name in SPENDS}
            rows.append(plain)
        pairs = [dataclasses.asdict(p) | {"tested": _plain(p.tested)} for p in self.pairs]
        return {
            "schema": SCHEMA,
            "metric": self.metric,
            "rows": rows,
            "pairs": pairs,
            "notes": list(self.notes),
            "published": list(self.published),
            **({"status": self.status.to_json()} if self.status else {}),
        }


def check_metric(name: str) -> None:
    """Refuse a metric that does not exist.

    Raises:
        ConfigError: with the names there are.
    """
    if name not in METRICS:
        raise ConfigError(
            f"unknown metric '{name}'{nearest(name, METRICS)} (there are: {', '.join(METRICS)})"
        )


def compare(
    records: Sequence[Record], notes: Sequence[str] = (), metric: str = "top1"
) -> Comparison:
    """Rows and paired tests of finished runs.

    Raises:
        ConfigError: there is no such metric, or no run says anything of it.
    """
    return compare_batches([records], notes, metric)


def compare_batches(
    batches: Iterable[Sequence[Record]], notes: Sequence[str] = (), metric: str = "top1"
) -> Comparison:
    """As :func:`compare`, of more runs than one would want to hold at a time.

    Args:
        batches: of runs, all of a task in one of them; each is let go before the next is asked for.
        notes: what else a reader must know.
        metric: that the runs are compared in.
    """
    check_metric(metric)
    found = _Found(metric)
    for records in batches:
        found.add(records)
    return found.comparison(notes)


_TOLD: Final = 3  # tasks whose images are counted out


class _Found:
    """What is known of the runs so far; p-values wait for the last of them."""

    def __init__(self, metric: str) -> None:
        self._metric = metric
        self._rows: list[Row] = []
        self._versus: dict[tuple[Task, str, str], Difference] = {}
        self._left_out: list[str] = []
        self._silent = False
        self._labels: set[tuple[int, str, int, int]] = set()
        self._runs: Counter[str] = Counter()
        self._idle: Counter[str] = Counter()

    def add(self, records: Sequence[Record]) -> None:
        """Take up runs of tasks that have not been seen."""
        metric, of = self._metric, METRICS[self._metric].of
        kept, left_out = fair(list(records))
        self._left_out += left_out
        silent = [r for r in kept if None in (of(r.labels, r.start), of(r.labels, r.after))]
        if silent:
            self._silent = True
            self._left_out += [
                f"{r.folder} is left out: it says nothing of {metric}" for r in silent
            ]
            kept = [record for record in kept if record not in silent]
        self._runs.update(record.arm for record in kept)
        self._idle.update(record.arm for record in kept if unaided(record.result))
        for record in kept:
            (dataset, shots, _), had = record.group, record.result["task"]
            self._labels.add((shots, dataset, had["train_images"], had["val_images"]))
        tasks: dict[Task, dict[str, dict[int, Record]]] = {}
        for record in kept:
            arms = tasks.setdefault(record.group, {})
            arms.setdefault(record.arm, {})[record.seed] = record
        for task, arms in tasks.items():
            rows = [_row(metric, task, arm, list(runs.values())) for arm, runs in arms.items()]
            self._rows += sorted(rows, key=lambda row: -METRICS[metric].sign * row.value)
            # Better first, whichever finished first.
            ranked = sorted(arms, key=lambda arm: (-_mean(metric, arms[arm].values()), arm))
            for first, second in itertools.combinations(ranked, 2):
                if shared := [seed for seed in arms[first] if seed in arms[second]]:
                    others = [arms[second][seed].after for seed in shared]
                    one = [arms[first][seed] for seed in shared]
                    self._versus[task, first, second] = _compared(metric, one, others)

    def comparison(self, notes: Sequence[str]) -> Comparison:
        """All of it, with p-values adjusted over every test."""
        if self._silent and not self._rows:
            raise ConfigError(
                f"none of these runs says anything of {self._metric}: their black boxes name "
                "classes only, they have five classes or fewer, or an earlier llmopt measured them"
            )
        differences = [*(row.gain.difference for row in self._rows), *self._versus.values()]
        adjusted = holm([one.p_value for one in differences]).tolist()
        tested = [Tested(*both) for both in zip(differences, adjusted, strict=True)]
        gains, versus = tested[: len(self._rows)], tested[len(self._rows) :]
        rows = [dataclasses.replace(r, gain=g) for r, g in zip(self._rows, gains, strict=True)]
        pairs = [
            Pair(*task, first, second, one)
            for (task, first, second), one in zip(self._versus, versus, strict=True)
        ]
        said = [*notes, *self._left_out, *self._unaided(), *self._labelled()]
        said += _cautions(rows, len(tested))
        return Comparison(tuple(rows), tuple(pairs), self._metric, tuple(said))

    def _labelled(self) -> list[str]:
        """How many images shots are, validation images included."""
        told = [
            f"{shots}-shot is {train:,} images to train on and {val:,} to validate with ({dataset})"
            for shots, dataset, train, val in sorted(self._labels)
        ]
        more = f", and so on for {len(told) - _TOLD} more" * (len(told) > _TOLD)
        return [f"{'; '.join(told[:_TOLD])}{more}."] if told else []

    def _unaided(self) -> list[str]:
        """Arms whose gain is not the doing of their language model."""
        return [
            f"In {count} of {self._runs[arm]} runs of '{arm}' the language model contributed "
            "nothing; what they found comes from llmopt's own pool of templates."
            for arm, count in self._idle.items()
        ]


def _compared(metric: str, runs: Iterable[Record], others: Sequence[Predicted]) -> Difference:
    """What runs with the same test images found, against as many other predictions of those."""
    found = list(runs)
    return compared(METRICS[metric], found[0].labels, [run.after for run in found], others)


def _row(metric: str, task: Task, arm: str, runs: list[Record]) -> Row:
    """Of one arm; the p-value of its gain is not adjusted yet."""
    labels, kind = runs[0].labels, METRICS[metric]
    values, starts = (
        [kind.of(labels, getattr(run, side)) or 0.0 for run in runs] for side in ("after", "start")
    )
    mean, *interval = measured(kind, labels, [run.after for run in runs])
    known = {
        name: [run.baselines[name] for run in runs]
        for name in LABELS
        if all(name in r.baselines and kind.of(labels, r.baselines[name]) is not None for r in runs)
    }
    ledgers = [run.ledger for run in runs]
    worst = min if kind.sign > 0 else max
    gain = _compared(metric, runs, [run.start for run in runs])
    gains = tuple(a - s for a, s in zip(values, starts, strict=True))
    return Row(
        *task,
        arm,
        tuple(run.seed for run in runs),
        mean,
        (interval[0], interval[1]),
        float(np.mean(starts)),
        Tested(gain, gain.p_value),
        worst(values),
        worst(gains),
        {name: measured(kind, labels, said).value for name, said in known.items()},
        {name: _compared(metric, runs, said) for name, said in known.items()},
        tuple(values),
        gains,
        {name: _known([ledger.get(name, 0) for ledger in ledgers]) for name in SPENDS},
        float(np.mean([run.seconds for run in runs])),
        tuple(str(run.folder) for run in runs),
    )


def _mean(metric: str, runs: Iterable[Record]) -> float:
    """How good runs are in a metric; more is better."""
    kind = METRICS[metric]
    return float(np.mean([kind.sign * (kind.of(run.labels, run.after) or 0.0) for run in runs]))


def _known(values: list[Any]) -> float | None:
    return None if any(value is None for value in values) else float(np.mean(values))


def _cautions(rows: Sequence[Row], tests: int) -> list[str]:
    notes = []
    if tests > 1:
        notes.append(f"p-values are adjusted by Holm's method over all {tests} tests here.")
    if any(row.gain.verdict == "these runs only" for row in rows):
        notes.append(
            "* These runs differ from their start, but the seeds vary too much to say so of "
            "others, so no p-value is shown."
        )
    for row in rows:
        if row.gain.verdict == "better" and row.over:
            name, over = min(row.over.items(), key=lambda one: one[1].points)
            if over.points <= 0 or over.interval[0] <= 0 <= over.interval[1]:
                notes.append(
                    f"'{row.arm}' gains over its start on {row.dataset}, {row.shots}-shot, but not "
                    f"clearly over the {LABELS[name]} of CLIP ({over.points:+.1f} points)."
                )
    if any(len(row.seeds) == 1 for row in rows):
        notes.append(
            "Where there is one seed, intervals are over test images and say nothing of other "
            "few-shot samples."
        )
    counts = {len(row.seeds) for row in rows}
    if len(counts) > 1:
        notes.append("Arms differ in how many seeds finished; pairs are tested on shared seeds.")
    if any(1 < len(row.seeds) < 5 for row in rows):
        notes.append("Intervals over fewer than five seeds are wide because they have to be.")
    return notes


def _plain(tested: Tested) -> dict[str, Any]:
    return {
        **dataclasses.asdict(tested.difference),
        "p_holm": tested.adjusted,
        "verdict": tested.verdict,
    }
