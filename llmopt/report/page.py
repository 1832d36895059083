"""The page: finished runs as one self-contained HTML file.

Everything that came from outside (class names, templates, replies, file names) passes the
template's autoescape; what could reorder or hide text is shown as its code point. The page holds
no address it would load anything from, and its policy forbids it to.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llmopt._version import __version__
from llmopt.comparison.records import read_records
from llmopt.comparison.render import HEADER, cells, sentence, span, spend_table
from llmopt.comparison.render import title as task_title
from llmopt.comparison.table import Comparison, compare
from llmopt.errors import ConfigError, RunFolderError
from llmopt.report import charts, svg
from llmopt.report.charts import Chart
from llmopt.report.sections import RunSection, run_section
from llmopt.report.visible import visible
from llmopt.spend.currency import label
from llmopt.spend.files import write_text

HERE: Final = Path(__file__).parent


@dataclass
class Page:
    """What a page shows.

    Attributes:
        runs: one section each.
        comparison: of the runs, if there are several.
        overview: charts of the comparison.
    """

    runs: list[RunSection]
    comparison: Comparison | None = None
    overview: list[Chart] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Of the page."""
        return self.runs[0].title if len(self.runs) == 1 else f"{len(self.runs)} runs compared"

    @property
    def charts(self) -> list[Chart]:
        """All of them."""
        return [*self.overview, *(chart for run in self.runs for chart in run.charts)]


def build(folders: Sequence[Path]) -> Page:
    """Read runs and draw their charts.

    Raises:
        RunFolderError: one of them is not finished, or damaged.
    """
    if not folders:
        raise ConfigError("name at least one run folder")
    records = read_records(folders)
    sections = [run_section(record, number) for number, record in enumerate(records, start=1)]
    if len(records) == 1:
        return Page(sections)
    comparison = compare(records)
    return Page(sections, comparison, _overview(comparison))


def render(page: Page) -> str:
    """The whole file."""
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment.get_template("page.html").render(
        page=page,
        header=HEADER,
        cells=cells,
        sentence=sentence,
        spend_table=spend_table,
        task_title=task_title,
        script=Markup(script),
        script_hash=digest,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        version=__version__,
    )


def save(page: Page, out: Path) -> None:
    """Write the page.

    Raises:
        RunFolderError: it cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, render(page))
    except OSError as error:
        raise RunFolderError(f"cannot write {out}: {error.strerror or error}") from error


def save_pictures(page: Page, folder: Path) -> list[Path]:
    """Write every chart as a PNG of its own.

    Raises:
        RunFolderError: they cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for chart in page.charts:
            path = folder / f"{chart.name}.png"
            path.write_bytes(svg.png(chart.figure))
            paths.append(path)
    except OSError as error:
        raise RunFolderError(f"cannot write {folder}: {error.strerror or error}") from error
    return paths


def _overview(comparison: Comparison) -> list[Chart]:
    rows = comparison.rows
    gains = [
        (f"{row.arm}, {row.dataset} {row.shots}-shot", f"{100 * row.gain.difference.mean:+.1f}",
         span(row.gain.difference.interval, signed=True), row.gain.verdict)
        for row in rows
    ]  # fmt: skip
    costs = [
        (f"{row.arm}, {row.dataset} {row.shots}-shot", f"{row.queries:,.0f}",
         f"{100 * row.accuracy:.1f}", span(row.interval))
        for row in rows
    ]  # fmt: skip
    return [
        Chart(
            "all-forest",
            "Gain over the start, with 95 % intervals",
            charts.forest(rows),
            ("arm", "gain, points", "95 % interval", "verdict"),
            gains,
        ),
        Chart(
            "all-front",
            "Accuracy and what it cost",
            charts.front(rows),
            ("arm", label("queries"), "test accuracy, %", "95 % interval"),
            costs,
            "The dashed line joins arms that no cheaper arm beats.",
        ),
    ]
