"""Tables in words: the page of all of them, and rows for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from llmopt.reproduction.choice import Choice
from llmopt.reproduction.needs import COUNTED, TFLOPS, Cost, cost_of, rate
from llmopt.reproduction.outcome import Row
from llmopt.reproduction.run import Reproduction
from llmopt.reproduction.spec import Figures, Grid, Table, read_table, table_names
from llmopt.spend.currency import phrase
from llmopt.tables import Column
from llmopt.template import clean


class Line(NamedTuple):
    """A row, and the mark under which its reasons are told below."""

    row: Row
    mark: str


def _place(name: str, other: str) -> Callable[[Line], str]:
    def get(line: Line) -> str:
        place = line.row.place
        own, where = getattr(place, name), getattr(place, other)
        return clean(f"{own} → {where}" if where else own)

    return get


COLUMNS: Final[Sequence[Column[Line]]] = (
    Column("arm", lambda line: clean(line.row.place.arm), least=12),
    Column("model", _place("model", "behind"), rank=4, least=8),
    Column("data set", _place("dataset", "on"), least=10),
    Column("shots", lambda line: line.row.place.shots),
    Column("seeds", lambda line: f"{len(line.row.seeds)} of {line.row.wanted}", rank=5),
    Column("ours", lambda line: line.row.accuracy, "{:.2f}".format),
    Column("95 % interval", lambda line: line.row.interval, "[{0[0]:.1f}, {0[1]:.1f}]".format, 3),
    Column("published", lambda line: line.row.published, "{:.2f}".format),
    Column("difference", lambda line: line.row.difference, "{:+.2f}".format),
    Column("tolerance", lambda line: line.row.tolerance, "± {:g}".format, 6),
    Column(
        "verdict",
        lambda line: line.row.verdict + (f" ({line.mark})" if line.mark else ""),
        least=14,
        wrap=True,
    ),
)
"""What a row says; accuracies in per cent."""

_INTRO: Final = f"""\
# The papers' tables

*Written by `llmopt reproduce list --format markdown` from `llmopt/reproduction/tables/`.*

```text
llmopt reproduce list                     # the tables, and what of them is missing here
llmopt reproduce plan TABLE               # data, weights, GPU hours, calls and their cost
llmopt reproduce run TABLE                # runs what has not been run, shows ours beside theirs
llmopt reproduce run TABLE --only dataset=eurosat,shots=1-2 --jobs 4
llmopt reproduce run TABLE --status       # where it stands, without running
```

Runs are cells of `llmopt compare`: stopped at any point, the same command goes on from there, and
a run that another table or comparison has made is reused. What lacks its data is listed as missing
and the rest is run. `--model`, `--llm`, caps such as `--max-queries`, and the other options of
`run` change what is run; the verdict then says that it is not comparable, and why.

**The verdict** is on the difference of our mean over the seeds and the published figure: `within`
the tolerance stated below, `above` or `below`. The 95 % interval beside it is that of our figure
alone; of the published ones none is known. `not comparable` comes with the reasons: no figure could
be read, another model, a search that ended at a cap, other test images, no language model.

GPU hours are a bound by a stated rate: {rate(TFLOPS)}. `plan --tflops` takes another.
"""


def page() -> str:
    """All tables as ``docs/reproduce.md``."""
    return "\n".join([_INTRO, *(_section(read_table(name)) for name in table_names())])


def _section(table: Table) -> str:
    choice = Choice(table, changes={"llm": "builtin"})
    cost = cost_of(choice)
    # Two digits, or the page would change with the bytes of a prompt.
    spent = [phrase(name, float(f"{n:.2g}")) for name in COUNTED if (n := cost.spend[name])]
    figures = {arm.name: "; ".join(_figures(arm.figures)) or "none known" for arm in table.arms}
    arms = [f"| {arm.name} | `{arm.command}` | {figures[arm.name]} |" for arm in table.arms]
    options = "".join(f" `{name}={value}`" for name, value in table.options.items())
    tolerance = ", ".join(f"{t:g} at {shots}" for shots, t in table.tolerance.items())
    return "\n".join(
        [
            f"## {table.name}\n",
            f"**{table.title}.** {table.paper}. {table.about}\n",
            "| arm | is run as | published figures |",
            "|---|---|---|",
            *arms,
            "",
            *(f"- {_block(grid)}" for grid in table.grids),
            f"- All arms:{options}" if options else "",
            "",
            f"{choice.runs:,} runs take, rounded, at most {', '.join(spent)}: "
            f"{hours(cost, TFLOPS)}.\n",
            f"Tolerance in points, by shots: {tolerance}. {table.tolerance_why}\n",
            "Known reasons to differ:\n",
            *(f"- {why}" for why in reasons(table)),
            "",
        ]
    )


def hours(cost: Cost, tflops: float) -> str:
    """GPU hours for people."""
    found = cost.hours(tflops)
    return f"{found:,.1f} GPU hours" if found >= 0.05 else "under 0.1 GPU hours"


def _figures(figures: Iterable[Figures]) -> list[str]:
    return [f"{one.method}, {one.source}" for one in figures]


def reasons(table: Table) -> list[str]:
    """Known reasons to differ, those of single arms with their names."""
    return [
        *table.differs,
        *(f"{arm.name}: {why}" for arm in table.arms for why in arm.differs),
        *(f"{arm.name}: {arm.incomparable}" for arm in table.arms if arm.incomparable),
    ]


def _block(grid: Grid) -> str:
    """A block of runs in words."""
    also = ""
    if grid.also_on:
        also += f"; scored on {', '.join(grid.also_on)} too"
    if grid.also_behind:
        also += f"; scored behind {', '.join(grid.also_behind)} too"
    return (
        f"{', '.join(grid.arms) or 'all arms'}: {', '.join(grid.backbones)}; "
        f"{', '.join(grid.datasets)}; shots {_numbers(grid.shots)}; "
        f"seeds {_numbers(grid.seeds)}{also}"
    )


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def lines(found: Sequence[Row]) -> list[Line]:
    """Rows with a mark for each set of reasons."""
    marks: dict[tuple[str, ...], str] = {}
    return [
        Line(row, marks.setdefault(row.reasons, str(len(marks) + 1)) if row.reasons else "")
        for row in found
    ]


def notes(shown: Iterable[Line]) -> list[str]:
    """What the marks refer to."""
    told = {line.mark: "; ".join(line.row.reasons) for line in shown if line.mark}
    return [f"({mark}) {clean(why)}" for mark, why in told.items()]


def closing(found: Reproduction) -> list[str]:
    """What stands below the rows."""
    table = found.choice.table
    sources = dict.fromkeys(row.source for row in found.rows if row.source)
    return [
        f"{found.finished} of {found.total} runs are finished.",
        *found.status.told(),
        *found.status.failures(),
        *(f"failed: {title}: {error}" for title, error in found.unscored.items()),
        *(f"published: {source}" for source in sources),
        f"tolerance: {table.tolerance_why}",
        *(f"known reason to differ: {why}" for why in reasons(table)),
    ]
