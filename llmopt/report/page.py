"""The page: finished runs as one self-contained HTML file, or several that link to each other.

Everything that came from outside (class names, templates, replies, file names) passes the
template's autoescape; what could reorder or hide text is shown as its code point. The page holds
no address it would load anything from, and its policy forbids it to.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from llmopt._version import __version__
from llmopt.comparison.records import Record, read_records
from llmopt.comparison.render import HEADER, cells, sentence, spend_table
from llmopt.comparison.render import title as task_title
from llmopt.comparison.table import Comparison, Row, compare
from llmopt.errors import ConfigError, RunFolderError
from llmopt.figures import interval, p_text, percent, points
from llmopt.report import charts
from llmopt.report.changes import FindImages, test_images
from llmopt.report.charts import Chart
from llmopt.report.picture import png
from llmopt.report.sections import RunSection, run_section, title
from llmopt.report.visible import blocks, visible
from llmopt.spend.currency import label
from llmopt.spend.files import write_bytes, write_text

HERE: Final = Path(__file__).parent
TOGETHER: Final = 8  # runs on one page; of more, each has a page of its own


@dataclass
class Page:
    """What a page shows.

    Attributes:
        records: the runs.
        runs: a section of each; empty where they are so many that each has a page of its own.
        comparison: of the runs, if there are several.
        overview: charts of each task of the comparison.
        left_out: run folders that cannot be shown, and why.
        find: gives the test images of a run.
        back: name of the page that links to this one, if one does.
    """

    records: list[Record]
    runs: list[RunSection]
    comparison: Comparison | None = None
    overview: list[list[Chart]] = field(default_factory=list)
    left_out: Mapping[Path, RunFolderError] = field(default_factory=dict)
    find: FindImages = test_images
    back: str = ""

    @property
    def title(self) -> str:
        """Of the page."""
        one = len(self.records) == 1
        return title(self.records[0]) if one else f"{len(self.records)} runs compared"

    @property
    def apart(self) -> bool:
        """Whether each run has a page of its own."""
        return not self.runs

    def sections(self) -> Iterator[RunSection]:
        """Of all runs, one after the other."""
        if self.runs:
            yield from self.runs
            return
        for number, record in enumerate(self.records, start=1):
            yield run_section(record, number, self.find)


def build(folders: Sequence[Path]) -> Page:
    """Read runs; what cannot be read of several is left out.

    Raises:
        RunFolderError: none of them is finished and whole.
    """
    if not folders:
        raise ConfigError("name at least one run folder")
    records, left_out = read_records(folders)
    if not records:
        raise next(iter(left_out.values()))
    find = functools.lru_cache(maxsize=2)(test_images)
    sections = []
    if len(records) <= TOGETHER:
        sections = [run_section(record, number, find) for number, record in enumerate(records, 1)]
    if len(records) == 1:
        return Page(records, sections, left_out=left_out)
    comparison = compare(records)
    return Page(records, sections, comparison, _overview(comparison), left_out, find)


_SHOWN: Final = [
    place
    for place, name in enumerate(HEADER)
    if name not in ("per point", "LLM calls", "USD", "seconds")
]
"""Columns of the comparison; what was spent has a table of its own."""


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "blocks": blocks}
    return environment.get_template("page.html")


def render(page: Page, beside: str = "") -> str:
    """The whole file; where runs have pages of their own, those are in the folder ``beside``."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        page=page,
        links=[
            (title(record), f"{quote(beside)}/{name}", _figures(record.result))
            for record, name in zip(page.records, _names(page), strict=True)
        ],
        # The page is for others: it names no folders of this machine.
        left_out=[str(e).replace(str(path), path.name) for path, e in page.left_out.items()],
        back=quote(f"../{page.back}") if page.back else "",
        header=[HEADER[place] for place in _SHOWN],
        cells=lambda row: [cells(row)[place] for place in _SHOWN],
        sentence=sentence,
        matrix=matrix,
        spend_table=spend_table,
        task_title=task_title,
        script=Markup(script),
        script_hash=digest,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        version=__version__,
    )


def save(page: Page, out: Path) -> None:
    """Write the page, and beside it those of single runs where there are many.

    Raises:
        RunFolderError: it cannot be written.
    """
    beside = out.with_name(f"{out.stem}-runs")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, render(page, beside.name))
        if page.apart:
            beside.mkdir(exist_ok=True)
            for section, name in zip(page.sections(), _names(page), strict=True):
                single = Page([section.record], [section], back=out.name)
                write_text(beside / name, render(single))
    except OSError as error:
        raise RunFolderError(f"cannot write {out}: {error.strerror or error}") from error


def save_pictures(page: Page, folder: Path) -> list[Path]:
    """Write every chart of the page as a PNG of its own; pages of single runs are not looked at.

    Raises:
        RunFolderError: they cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        charts = (chart for section in page.runs for chart in section.charts)
        for chart in itertools.chain(*page.overview, charts):
            path = folder / f"{chart.name}.png"
            write_bytes(path, png(chart.shown))
            paths.append(path)
    except OSError as error:
        raise RunFolderError(f"cannot write {folder}: {error.strerror or error}") from error
    return paths


def _names(page: Page) -> list[str]:
    """File names of the pages of single runs."""
    return [f"run-{number}.html" for number in range(1, len(page.records) + 1)]


def _figures(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Test accuracy of start and best, gain and its p-value."""
    start, best, gain = result["baseline"], result["best"], result["gain"]
    return (
        percent(start["test_accuracy"]),
        percent(best["test_accuracy"]),
        points(gain["test_accuracy"]),
        p_text(gain["p_value"]),
    )


def _overview(comparison: Comparison) -> list[list[Chart]]:
    """The charts of each task."""
    several = len(comparison.tasks) > 1
    return [
        _of_task(f"-{number}" if several else "", comparison.of_task(task))
        for number, task in enumerate(comparison.tasks, 1)
    ]


def _of_task(suffix: str, rows: Sequence[Row]) -> list[Chart]:
    if len(rows) < 2:
        return []  # what they would show stands in the table
    gains = [
        (row.arm, f"{100 * row.gain.difference.mean:+.1f}",
         interval(row.gain.difference.interval, signed=True), row.gain.verdict)
        for row in rows
    ]  # fmt: skip
    costs = [
        (row.arm, f"{row.queries:,.0f}", f"{100 * row.value:.1f}", interval(row.interval))
        for row in rows
    ]  # fmt: skip
    each = " Small dots are seeds." * any(len(row.seeds) > 1 for row in rows)
    return [
        Chart(
            f"all-forest{suffix}",
            "Gain over the start, with 95 % intervals",
            charts.forest(rows),
            ("arm", "gain, points", "95 % interval", "verdict"),
            gains,
            each.strip(),
        ),
        Chart(
            f"all-front{suffix}",
            "Accuracy and what it cost",
            charts.front(rows),
            ("arm", label("queries"), "test accuracy, %", "95 % interval"),
            costs,
            f"The dashed line joins arms that no cheaper arm beats.{each}",
        ),
    ]


@dataclass(frozen=True)
class Cell:
    """The difference of two arms: points by which the row's is better, and how sure that is."""

    text: str
    verdict: str
    sentence: str


def matrix(
    comparison: Comparison, task: tuple[str, int, str]
) -> list[tuple[str, list[Cell | None]]]:
    """Arms of a task against each other: row less column, best first."""
    arms = [row.arm for row in comparison.of_task(task)]
    cells: dict[tuple[str, str], Cell] = {}
    for pair in comparison.pairs:
        if (pair.dataset, pair.shots, pair.model) != task:
            continue
        verdict, more = pair.tested.verdict, round(pair.tested.difference.points, 1)
        other = {"better": "worse", "worse": "better"}.get(verdict, verdict)
        cells[pair.first, pair.second] = Cell(f"{more + 0.0:+.1f}", verdict, sentence(pair))
        cells[pair.second, pair.first] = Cell(f"{0.0 - more:+.1f}", other, sentence(pair))
    return [(arm, [cells.get((arm, column)) for column in arms]) for arm in arms]
