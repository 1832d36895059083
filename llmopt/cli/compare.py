"""``compare``: a grid of runs as one table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmopt.cli import options as o
from llmopt.errors import INTERRUPTED
from llmopt.runs.config import OUTPUT, RunConfig

if TYPE_CHECKING:
    from llmopt.comparison.table import Comparison

GRID = "Grid"


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(compare)


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
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, rich_help_panel=GRID, help="Runs at a time.")
    ] = 1,
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
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Run optimizers × data sets × shots × seeds, or reuse equal runs, as one table.

    Stopped at any point, the same command goes on from there.
    """
    from llmopt import api
    from llmopt.comparison.grid import parse_numbers
    from llmopt.live import watching

    format = "json" if json else format
    _check(format)
    with watching(quiet=quiet or format == "json", verbose=verbose) as watch:
        found = api.compare(
            optimizer or ["zeroshot", "chat"],
            datasets=dataset or (),
            shots=parse_numbers(shots, "shots"),
            seeds=parse_numbers(seed, "seed"),
            equal=equal,
            published=published,
            jobs=jobs,
            config=config,
            callbacks=[watch],
            progress=False,
        )
    _show(found, format, out)
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


def _show(found: Comparison, format: str, out: Path | None) -> None:
    from llmopt.cli.show import print_text
    from llmopt.comparison.render import FORMATS
    from llmopt.errors import RunFolderError

    if format == "table" and out is None:
        print_comparison(found)
        return
    text = FORMATS["markdown" if format == "table" else format](found)
    if out is None:
        print_text(text)
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"wrote {out}", err=True)


def print_comparison(found: Comparison) -> None:
    """Tables and sentences for a terminal."""
    from rich.table import Table
    from rich.text import Text

    from llmopt.cli.show import console
    from llmopt.comparison import render

    screen = console()
    for task in found.tasks:
        table = Table(title=Text(render.title(task)), title_justify="left")
        table.add_column("arm", overflow="fold")
        for name in render.HEADER[1:]:
            table.add_column(name, justify="right")
        for row in found.rows:
            if (row.dataset, row.shots, row.model) == task:
                table.add_row(*(Text(cell) for cell in render.cells(row)))
        screen.print(table)
        for pair in found.pairs:
            if (pair.dataset, pair.shots, pair.model) == task:
                screen.print(render.sentence(pair))
    for line in (*render.published_lines(found), *found.notes):
        screen.print(Text(line, style="dim"))
