"""The comparison itself: one row an arm, and every pair of arms tested on the same images."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmopt.comparison.paired import Difference, accuracy, difference
from llmopt.comparison.records import Record, fair
from llmopt.runs.told import unaided
from llmopt.spend.currency import CURRENCIES, Spend
from llmopt.stats import holm

if TYPE_CHECKING:
    from llmopt.comparison.attempt import Done

SCHEMA = 1
# Prompts first: they are what the methods spend.
SPENDS = tuple(
    one.name
    for one in sorted(CURRENCIES.values(), key=lambda one: one.cap != "queries")
    if one.kind == "spent"
)


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
    """One arm on one task, over its seeds.

    Attributes:
        dataset, shots, model: the task.
        arm: what was run.
        seeds: those that finished.
        accuracy: mean on the test images.
        interval: 95 %; the wider of over seeds, where there are several, and over images.
        start: mean accuracy of the start template.
        gain: over the start.
        worst: lowest accuracy of a seed.
        worst_gain: lowest gain of a seed.
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
    accuracy: float
    interval: tuple[float, float]
    start: float
    gain: Tested
    worst: float
    worst_gain: float
    spend: dict[str, float | None]
    seconds: float
    folders: tuple[str, ...]

    @property
    def queries(self) -> float:
        """Prompts encoded, text and soft ones together."""
        return Spend.read(self.spend).queries

    def per_point(self, currency: str) -> float | None:
        """Mean spend for each percentage point gained; None without a gain or a known spend."""
        spent, points = self.spend[currency], 100 * self.gain.difference.mean
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
        notes: what a reader must know.
        published: other people's figures, if asked for.
        done: what became of each run, failed and interrupted ones too.
    """

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()
    published: tuple[dict[str, Any], ...] = ()
    done: tuple[Done, ...] = ()

    @property
    def tasks(self) -> list[tuple[str, int, str]]:
        """Data set, shots and model of each group of rows."""
        return list(dict.fromkeys((row.dataset, row.shots, row.model) for row in self.rows))

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
            plain["per_point"] = {name: row.per_point(name) for name in SPENDS}
            rows.append(plain)
        pairs = [dataclasses.asdict(p) | {"tested": _plain(p.tested)} for p in self.pairs]
        return {
            "schema": SCHEMA,
            "rows": rows,
            "pairs": pairs,
            "notes": list(self.notes),
            "published": list(self.published),
        }


def compare(records: Sequence[Record], notes: Sequence[str] = ()) -> Comparison:
    """Rows and paired tests of finished runs."""
    kept, left_out = fair(list(records))
    tasks: dict[tuple[str, int, str], dict[str, dict[int, Record]]] = {}
    for record in kept:
        arms = tasks.setdefault(record.group, {})
        arms.setdefault(record.arm, {})[record.seed] = record
    gains: dict[Any, Difference] = {}
    versus: dict[Any, Difference] = {}
    for task, arms in tasks.items():
        for arm, runs in arms.items():
            hits, start_hits = (
                np.stack([getattr(run, side) for run in runs.values()])
                for side in ("hits", "start_hits")
            )
            gains[task, arm] = difference(hits, start_hits)
        # Better first, whichever finished first.
        ranked = sorted(arms, key=lambda arm: (-_mean_accuracy(arms[arm].values()), arm))
        for first, second in itertools.combinations(ranked, 2):
            if shared := [seed for seed in arms[first] if seed in arms[second]]:
                versus[task, first, second] = difference(
                    *(
                        np.stack([arms[arm][seed].hits for seed in shared])
                        for arm in (first, second)
                    )
                )
    everything = {**gains, **versus}
    adjusted = dict(
        zip(everything, holm([d.p_value for d in everything.values()]).tolist(), strict=True)
    )
    rows = [
        _row(task, arm, list(runs.values()), Tested(gains[task, arm], adjusted[task, arm]))
        for task, arms in tasks.items()
        for arm, runs in arms.items()
    ]
    order = {task: place for place, task in enumerate(tasks)}
    rows.sort(key=lambda row: (order[row.dataset, row.shots, row.model], -row.accuracy))
    pairs = []
    for key, found in versus.items():
        (dataset, shots, model), first, second = key
        pairs.append(Pair(dataset, shots, model, first, second, Tested(found, adjusted[key])))
    said = [*notes, *left_out, *_unaided(kept), *_cautions(rows, len(everything))]
    return Comparison(tuple(rows), tuple(pairs), tuple(said))


def _row(task: tuple[str, int, str], arm: str, runs: list[Record], gain: Tested) -> Row:
    accuracies = [float(run.hits.mean()) for run in runs]
    starts = [float(run.start_hits.mean()) for run in runs]
    mean, *interval = accuracy(np.stack([run.hits for run in runs]))
    ledgers = [run.ledger for run in runs]
    return Row(
        *task,
        arm,
        tuple(run.seed for run in runs),
        mean,
        (interval[0], interval[1]),
        float(np.mean(starts)),
        gain,
        min(accuracies),
        min(a - s for a, s in zip(accuracies, starts, strict=True)),
        {name: _mean([ledger.get(name) for ledger in ledgers]) for name in SPENDS},
        float(np.mean([run.seconds for run in runs])),
        tuple(str(run.folder) for run in runs),
    )


def _mean_accuracy(runs: Iterable[Record]) -> float:
    return float(np.mean([run.hits.mean() for run in runs]))


def _mean(values: list[Any]) -> float | None:
    return None if any(value is None for value in values) else float(np.mean(values))


def _unaided(records: Sequence[Record]) -> list[str]:
    """Arms whose gain is not the doing of their language model."""
    runs = Counter(record.arm for record in records)
    idle = Counter(record.arm for record in records if unaided(record.result))
    return [
        f"In {count} of {runs[arm]} runs of '{arm}' the language model contributed nothing; what "
        "they found comes from llmopt's own pool of templates."
        for arm, count in idle.items()
    ]


def _cautions(rows: Sequence[Row], tests: int) -> list[str]:
    notes = []
    if tests > 1:
        notes.append(f"p-values are adjusted by Holm's method over all {tests} tests here.")
    if any(row.gain.verdict == "these runs only" for row in rows):
        notes.append(
            "* These runs differ from their start, but the seeds vary too much to say so of "
            "others, so no p-value is shown."
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
