"""``compare``: a grid of runs as one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmopt.cli import grid as g
from llmopt.cli import options as o
from llmopt.errors import INTERRUPTED
from llmopt.runs.config import OUTPUT, RunConfig

if TYPE_CHECKING:
    from llmopt.comparison.table import Comparison, Row
    from llmopt.tables import Column

GRID = "Grid"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(compare)


@g.takes_workers
@o.takes_config(without=("settings", "head", "head_views", "init_from"))
def compare(
    *,
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            "--optimizer",
            rich_help_panel=GRID,
            help="[NAME=]OPTIMIZER[,KEY=VALUE…], repeatable. KEY is an option of run, a setting of "
            "the optimizer, or 'after': start from the best template of that arm. 'head' is the "
            "option --head of run, in every arm.",
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", rich_help_panel=GRID, help="As in run; repeatable."),
    ] = None,
    shots: Annotated[
        str, typer.Option("--shots", rich_help_panel=GRID, help="Such as 1,2,4.")
    ] = "1",
    seed: Annotated[
        str, typer.Option("--seed", rich_help_panel=GRID, help="Such as 1,2,3 or 1-5.")
    ] = "1-3",
    equal: Annotated[
        str | None,
        typer.Option(
            "--equal",
            rich_help_panel=GRID,
            help="Hold all arms to one cap of a currency: text_encodings, llm_calls, seconds …",
        ),
    ] = None,
    published: Annotated[
        bool,
        typer.Option("--published", rich_help_panel=GRID, help="Set published figures beside."),
    ] = False,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            rich_help_panel=GRID,
            help="top1, top5, mean_per_class_recall, macro_f1, ece (calibration error).",
        ),
    ] = "top1",
    workers: g.Chosen,
    max_total: g.MaxTotal = None,
    status: g.StatusOnly = False,
    follow: g.Following = False,
    config: RunConfig,
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", rich_help_panel=OUTPUT, help="table, markdown, latex, csv, json."
        ),
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", rich_help_panel=OUTPUT, help="A file; stdout if left out."),
    ] = None,
    wide: o.Wide = False,
    columns: o.Columns = "",
    sort: o.Sort = "",
    filter: o.Filter = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Run optimizers × data sets × shots × seeds, or reuse equal runs, as one table.

    Stopped at any point, the same command goes on from there.
    """
    from llmopt import api
    from llmopt.comparison import render
    from llmopt.comparison.grid import parse_numbers
    from llmopt.live import watching
    from llmopt.runs.config import parse_assignments
    from llmopt.tables import choose, pick

    workers.check()
    format = "json" if json else format
    _check(format)
    shown = pick(columns, render.COLUMNS)
    choose([], render.COLUMNS, sort=sort, filters=filter or ())  # before anything is paid for
    with watching(quiet=quiet or format == "json", verbose=verbose) as watch:
        found = api.compare(
            optimizer or ["zeroshot", "chat"],
            datasets=dataset or (),
            shots=parse_numbers(shots, "shots"),
            seeds=parse_numbers(seed, "seed"),
            equal=equal,
            published=published,
            engine=workers.engine,
            max_total=parse_assignments(max_total or [], "--max-total"),
            status=status or workers.print,
            follow=g.follower(status, follow),
            metric=metric,
            config=config,
            callbacks=[watch],
            progress=False,
        )
    if workers.print and found.status is not None:
        workers.show(config.runs, len(found.status.cells) - found.status.counts["done"])
        return
    found = found.among(choose(found.rows, render.COLUMNS, sort=sort, filters=filter or ()))
    _show(found, format, out, shown, wide)
    if status and found.status is not None:
        g.leave_unfinished(found.status.whole)
        return
    if any(one.interrupted for one in found.done):
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED)
    if failed := [one.error for one in found.done if one.error]:
        raise failed[0]


def _check(format: str) -> None:
    from llmopt.comparison.render import FORMATS
    from llmopt.errors import ConfigError, nearest

    if format not in ("table", *FORMATS):
        raise ConfigError(
            f"unknown format '{format}'{nearest(format, ['table', *FORMATS])} "
            f"(there are: table, {', '.join(FORMATS)})"
        )


_ENDINGS = {".json": "json", ".csv": "csv", ".tex": "latex"}


def _show(
    found: Comparison, format: str, out: Path | None, columns: list[Column[Row]], wide: bool
) -> None:
    from llmopt.cli.show import print_text
    from llmopt.comparison.render import FORMATS
    from llmopt.errors import RunFolderError

    if format == "table":
        if out is None:
            print_comparison(found, columns, wide)
            return
        format = _ENDINGS.get(out.suffix.lower(), "markdown")
    text = FORMATS[format](found)
    if out is None:
        print_text(text)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"wrote {out}", err=True)


def print_comparison(found: Comparison, columns: list[Column[Row]], wide: bool = False) -> None:
    """Tables and sentences for a terminal."""
    from llmopt.cli.show import console, say
    from llmopt.comparison import render
    from llmopt.tables import print_table

    screen = console()
    for task in found.tasks:
        rows = [row for row in found.rows if (row.dataset, row.shots, row.model) == task]
        hint = " (--wide shows all)"
        print_table(
            screen, columns, rows, title=render.title(task, found.metric), wide=wide, hint=hint
        )
        for pair in found.pairs:
            if (pair.dataset, pair.shots, pair.model) == task:
                say(screen, render.sentence(pair))
    for line in (*render.published_lines(found), *found.notes):
        say(screen, line, "dim")
