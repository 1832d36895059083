"""What there is, as tables: runs, data sets, models, and what ``check`` and ``doctor`` found."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from llmopt.cli.show import console, say
from llmopt.spend.currency import Spend
from llmopt.tables import Column, print_table, text_columns

if TYPE_CHECKING:
    from pathlib import Path

    from llmopt.data.check import CheckReport
    from llmopt.data.download import DownloadReport
    from llmopt.data.overview import Listed
    from llmopt.doctor import Check
    from llmopt.runs.load import RunSummary


def _percent(name: str) -> Callable[[RunSummary], float | None]:
    def get(run: RunSummary) -> float | None:
        value = getattr(run, name)
        return None if value is None else 100 * value

    return get


def _spent(name: str) -> Callable[[RunSummary], float | None]:
    def get(run: RunSummary) -> float | None:
        return Spend.read(run.ledger).under(name) if run.ledger else None

    return get


RUNS: Final[Sequence[Column[RunSummary]]] = (
    Column("run", operator.attrgetter("folder"), least=24),
    Column("status", operator.attrgetter("status"), least=11),
    Column("data set", operator.attrgetter("dataset"), rank=5, least=10),
    Column("shots", operator.attrgetter("shots"), rank=2),
    Column("seed", operator.attrgetter("seed"), rank=2),
    Column("optimizer", operator.attrgetter("optimizer"), least=9),
    Column("start", _percent("start"), "{:.1f} %".format, rank=3),
    Column("best", _percent("best"), "{:.1f} %".format),
    Column("queries", _spent("queries"), "{:,.0f}".format, rank=6),
    Column("LLM calls", _spent("llm_calls"), "{:,.0f}".format, rank=7),
    Column("cost", lambda run: _spent("llm_usd")(run) or None, "${:.4f}".format, rank=4),
)
"""Columns of ``llmopt runs``."""


def print_runs(
    found: Sequence[RunSummary],
    root: Path,
    columns: Sequence[Column[RunSummary]] = RUNS,
    wide: bool = False,
    there: int = 0,
) -> None:
    """Run folders, one a line; ``there`` are as many as they were chosen from."""
    out = console()
    if not found:
        if there:
            say(out, f"none of {there:,} run{'s' * (there != 1)} meets --filter")
        else:
            say(out, f"no runs below {root}; start one with: llmopt run")
        return
    print_table(out, columns, found, wide=wide, hint=" (--wide shows all)")


def print_checks(checks: list[Check]) -> None:
    """What ``doctor`` found."""
    rows = [(c.name, "ok" if c.ok else "!!", c.found, c.remedy) for c in checks]
    words = ("found", "to do")
    columns = text_columns("what", "", *words, words=words, texts=("what",))
    print_table(console(), columns, rows)


def print_models(found: list[dict[str, Any]]) -> None:
    """Model names with their weight tags."""
    out = console()
    rows = [
        (f"--blackbox {one['name']}", one["note"])
        if one.get("note")
        else (one["name"], ", ".join(one["pretrained"]))
        for one in found
    ]
    weights = "weights (--pretrained)"
    print_table(out, text_columns("model", weights, words=(weights,)), rows)
    say(out, "also: local-dir:PATH, hf-hub:ORG/NAME, or a name with --pretrained FILE")


def print_datasets(found: list[Listed]) -> None:
    """Data sets, one a line."""
    rows = [
        (
            one.name,
            "yes" if one.here else "no",
            str(one.classes or ""),
            "/".join(f"{n:,}" for n in one.images) if one.images else "",
            one.note,
        )
        for one in found
    ]
    columns = text_columns("data set", "here", "classes", "train/val/test", "note", words=("note",))
    print_table(console(), columns, rows)


def print_check(report: CheckReport, most: int = 20) -> None:
    """What is wrong with a data set, all of it at once, and the next step."""
    out = console()
    if report.sizes:
        sizes = ", ".join(f"{which} {size:,}" for which, size in report.sizes.items())
        say(out, f"{report.dataset}: {report.classes} classes; {sizes}; {report.provenance}")
    for note in report.notes:
        say(out, f"note: {note}")
    folders = report.missing_by_folder()
    for folder, count in list(folders.items())[:most]:
        say(out, f"missing: {count:,} files in {folder}")
    if len(folders) > most:
        say(out, f"missing: and in {len(folders) - most} more folders (--json names every file)")
    others = [problem for problem in report.problems if problem.kind != "missing"]
    for problem in others[:most]:
        say(out, str(problem))
    if len(others) > most:
        say(out, f"and {len(others) - most:,} more (--json names them all)")
    if report.ok:
        say(out, f"{report.images:,} images are fine ({report.seconds:.1f} s)")
    say(out, report.next_step)


def print_download(done: DownloadReport) -> None:
    """What was fetched, and where it lies."""
    out = console()
    if done.fetched:
        say(out, f"fetched {', '.join(done.fetched)} in {done.seconds:.0f} s")
    else:
        say(out, "everything was there already")
    say(out, f"{done.dataset} lies in {done.home}")
    say(out, done.check.next_step)
