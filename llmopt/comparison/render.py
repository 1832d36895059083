"""A comparison as CSV, Markdown, LaTeX and plain text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from llmopt.comparison.table import SPENDS, Comparison, Pair, Row, Tested
from llmopt.export.tables import guard
from llmopt.figures import interval, p_text
from llmopt.metrics import METRICS
from llmopt.runs.baselines import LABELS
from llmopt.spend.currency import amount, label
from llmopt.tables import Column
from llmopt.template import clean


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _points(value: float) -> str:
    return f"{value:+.1f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _p(row: Row) -> str:
    """Of the gain; a star in its place where it holds for these runs only."""
    return "*" if row.gain.verdict == "these runs only" else p_text(row.gain.adjusted)


def _usd(row: Row) -> float | str | None:
    usd = row.spend["llm_usd"]
    return "unknown" if usd is None else usd or None


def _per_point(row: Row) -> float | None:
    gain = row.gain.difference.points
    return row.queries / gain if gain > 0 and row.queries else None


def _baseline(name: str) -> Callable[[Row], float | None]:
    return lambda row: 100 * row.baselines[name] if name in row.baselines else None


COLUMNS: Final[tuple[Column[Row], ...]] = (
    Column("arm", lambda row: clean(row.arm), least=16),
    Column("seeds", lambda row: len(row.seeds), str),
    Column("test", lambda row: 100 * row.value, _percent),
    Column("test 95 %", lambda row: interval(row.interval)),
    Column("start", lambda row: 100 * row.start, _percent, rank=2),
    *(Column(label, _baseline(name), _percent, rank=3) for name, label in LABELS.items()),
    Column("gain", lambda row: 100 * row.gain.difference.mean, _points),
    Column("gain 95 %", lambda row: interval(row.gain.difference.interval, signed=True)),
    Column("p (Holm)", _p),
    Column("worst seed", lambda row: 100 * row.worst, _percent, rank=5),
    Column("queries", lambda row: row.queries, _count, rank=1),
    Column("per point", _per_point, _count, rank=6),
    Column("LLM calls", lambda row: row.spend["llm_calls"] or 0, _count, rank=7),
    Column("USD", _usd, lambda usd: usd if isinstance(usd, str) else f"{usd:.4f}", rank=4),
    Column("seconds", lambda row: row.seconds, lambda seconds: f"{seconds:,.1f}", rank=8),
)
"""What a row says; accuracies in per cent."""
HEADER: Final = tuple(column.name for column in COLUMNS)


def cells(row: Row) -> tuple[str, ...]:
    """A row for people, in the order of :data:`HEADER`."""
    return tuple(column.text(row) for column in COLUMNS)


def spend_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of every currency that was spent: a run, and for each point gained."""
    spent = [name for name in SPENDS if any(row.spend[name] != 0 for row in rows)]
    header = ["arm", *map(label, spent)]
    return header, [[clean(row.arm), *(_spend(row, name) for name in spent)] for row in rows]


def _spend(row: Row, name: str) -> str:
    value, each = row.spend[name], row.per_point(name)
    return amount(name, value) + (f" ({amount(name, each)} a point)" if each else "")


def sentence(pair: Pair) -> str:
    """What the test of two arms says."""
    first, second, tested = clean(pair.first), clean(pair.second), pair.tested
    return f"{first} against {second}: {outcome(tested)}"


def outcome(tested: Tested) -> str:
    """A verdict with its figures."""
    d = tested.difference
    figures = (
        f"{100 * d.mean:+.1f} points {interval(d.interval, signed=True)}, "
        f"{d.seeds} seed{'s' * (d.seeds > 1)}"
    )
    if tested.verdict != "these runs only":  # of which a p-value would say too much
        figures += f", p {p_text(tested.adjusted, equals=True)}"
    words = {
        "better": "better",
        "worse": "worse",
        "these runs only": "differs in these runs, but the seeds vary too much to say so of others",
    }
    return f"{words.get(tested.verdict, tested.verdict)} ({figures})"


def title(task: tuple[str, int, str], metric: str = "top1") -> str:
    """Of a group of rows, which holds figures of a metric."""
    dataset, shots, model = task
    said = f"{clean(dataset)}, {shots}-shot, behind {clean(model)}"
    return said if metric == "top1" else f"{said}: {METRICS[metric].label}, %"


def as_json(comparison: Comparison) -> str:
    """Everything, for machines."""
    data = comparison.to_json()
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(comparison: Comparison) -> str:
    """A row an arm, figures in full, safe to open as a spreadsheet."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(
        ["dataset", "shots", "model", "arm", "seeds", comparison.key, "low", "high", "start",
         "gain", "gain_low", "gain_high", "p_holm", "verdict", "worst",
         *SPENDS, *(f"{name}_per_point" for name in SPENDS), "seconds"]
    )  # fmt: skip
    for row in comparison.rows:
        gain = row.gain.difference
        table.writerow(
            [guard(row.dataset), row.shots, guard(row.model), guard(row.arm), len(row.seeds),
             row.value, *row.interval, row.start, gain.mean, *gain.interval,
             row.gain.adjusted, row.gain.verdict, row.worst, *row.spend.values(),
             *(row.per_point(name) for name in SPENDS), row.seconds]
        )  # fmt: skip
    return text.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """Tables for a README."""
    parts = []
    for task in comparison.tasks:
        parts.append(f"**{_markdown(title(task, comparison.metric))}**\n")
        parts.append(_pipes(HEADER))
        parts.append(_pipes(["---", *["---:"] * (len(HEADER) - 1)]))
        parts += [_pipes(map(_markdown, cells(row))) for row in _of(comparison.rows, task)]
        parts += ["", *(f"- {_markdown(sentence(p))}" for p in _of(comparison.pairs, task)), ""]
    parts += [_markdown(line) + "\n" for line in published_lines(comparison)]
    parts += [f"*{_markdown(note)}*\n" for note in comparison.notes]
    return "\n".join(parts)


def as_latex(comparison: Comparison) -> str:
    """A ``tabular`` for a paper; needs ``booktabs``."""
    kept = (
        "arm",
        "seeds",
        "test",
        "test 95 %",
        "gain",
        "gain 95 %",
        "p (Holm)",
        "worst seed",
        "queries",
    )
    columns = [HEADER.index(name) for name in kept]
    lines = [r"\begin{tabular}{l" + "r" * (len(columns) - 1) + "}", r"\toprule"]
    lines.append(" & ".join(_latex(HEADER[c]) for c in columns) + r" \\")
    for task in comparison.tasks:
        lines.append(r"\midrule")
        lines.append(
            rf"\multicolumn{{{len(columns)}}}{{l}}{{{_latex(title(task, comparison.metric))}}} \\"
        )
        for row in _of(comparison.rows, task):
            shown = cells(row)
            lines.append(" & ".join(_latex(shown[c]) for c in columns) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    said = [*map(sentence, comparison.pairs), *published_lines(comparison), *comparison.notes]
    return "\n".join([*lines, *(f"% {clean(line)}" for line in said)]) + "\n"


def published_lines(comparison: Comparison) -> list[str]:
    """Other people's figures, a sentence each."""
    return [
        f"published: {entry['method']} {entry['accuracy']:.1f} on {entry['dataset']}, "
        f"{entry['shots']}-shot, {entry['backbone']} ({entry['source']}); "
        f"differs: {'; '.join(entry['differences']) or 'in nothing that was stated'}"
        for entry in comparison.published
    ]


FORMATS: Final[dict[str, Callable[[Comparison], str]]] = {
    "json": as_json,
    "csv": as_csv,
    "markdown": as_markdown,
    "latex": as_latex,
}


def _of(items: Iterable[Row] | Iterable[Pair], task: tuple[str, int, str]) -> list:  # type: ignore[type-arg]
    return [item for item in items if (item.dataset, item.shots, item.model) == task]


def _pipes(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _markdown(text: str) -> str:
    for mark in "\\`*_{}[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return text


def _latex(text: str) -> str:
    escapes = {
        "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "%": r"\%", "&": r"\&", "#": r"\#",
        "_": r"\_", "$": r"\$", "^": r"\^{}", "~": r"\~{}", "<": "$<$", ">": "$>$",
    }  # fmt: skip
    return "".join(escapes.get(character, character) for character in text)
