"""``llmopt reproduce``: the papers' tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmopt.cli import grid as g
from llmopt.cli import options as o
from llmopt.errors import INTERRUPTED
from llmopt.runs.config import OUTPUT

if TYPE_CHECKING:
    from llmopt.reproduction.choice import Choice
    from llmopt.reproduction.needs import Listed, Need, Needs
    from llmopt.reproduction.render import Line
    from llmopt.reproduction.run import Reproduction
    from llmopt.tables import Column

app = typer.Typer(help="The papers' tables, with our figures beside theirs.", no_args_is_help=True)
TABLE = "Table"

_CHANGES = (
    "model", "pretrained", "device", "precision", "decoder", "batch_size", "llm", "llm_base_url",
    "llm_settings", "max_llm_calls", "max_tokens", "max_usd", "max_queries", "max_seconds",
    "max_images", "max_pairs", "max_box_calls", "skip_unreadable", "data_root", "runs",
)  # fmt: skip

Name = Annotated[str, typer.Argument(help="See 'llmopt reproduce list'.", show_default=False)]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        rich_help_panel=TABLE,
        help="A part of it: SIDE=VALUE,… with dataset, shots, seed, model or arm; a side again "
        "adds to it, numbers may be spans. Repeatable.",
    ),
]


def register(root: typer.Typer) -> None:
    """Add the commands to the app."""
    root.add_typer(app, name="reproduce")


@app.command("list")
def list_tables(
    format: Annotated[
        str,
        typer.Option("--format", "-f", rich_help_panel=OUTPUT, help="table, or markdown: a page."),
    ] = "table",
    data_root: o.DataRoot = None,
    json: o.Json = False,
) -> None:
    """Name the tables, how large they are, and what of them is missing here."""
    from llmopt.cli.show import print_json, print_text
    from llmopt.data.overview import root_folder
    from llmopt.errors import ConfigError
    from llmopt.reproduction import needs

    if format not in ("table", "markdown"):
        raise ConfigError(f"unknown format '{format}' (there are: table, markdown)")
    if format == "markdown" and not json:
        from llmopt.reproduction.render import page

        print_text(page())
        return
    found = needs.list_tables(root_folder(data_root))
    if json:
        print_json([one.to_json() for one in found])
    else:
        _print_list(found)


@app.command()
@o.takes_changes(*_CHANGES)
def plan(
    table: Name,
    only: Only = None,
    tflops: Annotated[
        float | None,
        typer.Option(
            "--tflops",
            min=0.001,
            rich_help_panel=TABLE,
            help=r"What the GPU sustains, for the hours. \[default: 10]",
        ),
    ] = None,
    *,
    changes: dict[str, Any],
    json: o.Json = False,
) -> None:
    """Show what a table takes, and what of it is missing here. Spends nothing."""
    from llmopt.cli.show import print_json
    from llmopt.reproduction.needs import TFLOPS, plan_table

    found = plan_table(_choice(table, only, changes), tflops or TFLOPS)
    print_json(found.to_json()) if json else _print_needs(found)


@app.command()
@g.takes_workers
@o.takes_changes(*_CHANGES)
def run(
    table: Name,
    only: Only = None,
    *,
    workers: g.Chosen,
    max_total: g.MaxTotal = None,
    status: g.StatusOnly = False,
    follow: g.Following = False,
    changes: dict[str, Any],
    wide: o.Wide = False,
    columns: o.Columns = "",
    sort: o.Sort = "",
    filter: o.Filter = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Run what of a table has not been run, and show our figures beside the published ones.

    Stopped at any point, the same command goes on from there.
    """
    from llmopt.cli.show import print_json
    from llmopt.live import watching
    from llmopt.reproduction.render import COLUMNS, lines
    from llmopt.reproduction.run import reproduce
    from llmopt.runs.config import parse_assignments
    from llmopt.sweep.purse import total_caps
    from llmopt.tables import choose, pick

    choice = _choice(table, only, changes)
    workers.check()
    totals = total_caps(parse_assignments(max_total or [], "--max-total"))
    picked = pick(columns, COLUMNS)
    choose([], COLUMNS, sort=sort, filters=filter or ())  # before anything is run
    with watching(quiet=quiet or json, verbose=verbose) as watch:
        found = reproduce(
            choice,
            workers.engine,
            watch,
            totals,
            run=not (status or workers.print),
            follow=g.follower(status, follow),
        )
    if workers.print:
        workers.show(choice.base.runs, found.total - found.finished)
        return
    if json:
        print_json(found.to_json())
    else:
        shown = choose(lines(found.rows), COLUMNS, sort=sort, filters=filter or ())
        _print_rows(found, shown, picked, wide)
    if status:
        g.leave_unfinished(found.finished == found.total)
        return
    if found.interrupted:
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED)
    for error in found.failed.values():
        raise error


def _choice(table: str, only: list[str] | None, changes: dict[str, Any]) -> Choice:
    from llmopt.reproduction.choice import Choice, parse_only
    from llmopt.reproduction.spec import read_table
    from llmopt.runs.config import parse_assignments

    if "llm_settings" in changes:
        changes["llm_settings"] = parse_assignments(changes["llm_settings"])
    return Choice(read_table(table), parse_only(only or []), changes)


def _print_list(found: Sequence[Listed]) -> None:
    from llmopt.cli.show import console, say
    from llmopt.tables import Column, print_table

    def here(needs: Sequence[Need]) -> str:
        return f"{sum(need.here for need in needs)} of {len(needs)}"

    out = console()
    columns: list[Column[Listed]] = [
        Column("table", lambda one: one.choice.table.name, least=16),
        Column("what", lambda one: one.choice.table.title, least=24, wrap=True),
        Column("runs", lambda one: one.choice.runs, "{:,}".format),
        Column("data here", lambda one: here(one.data)),
        Column("weights here", lambda one: here(one.weights)),
    ]
    print_table(out, columns, found)
    if lacking := dict.fromkeys(n.name for one in found for n in one.data if not n.here):
        way = "'llmopt reproduce plan TABLE' says how to get them"
        say(out, f"missing: {', '.join(lacking)}; {way}")


def _print_needs(found: Needs) -> None:
    from llmopt.cli.show import console, say
    from llmopt.reproduction.needs import rate
    from llmopt.reproduction.render import hours
    from llmopt.spend.currency import phrase

    out, cost, table = console(), found.cost, found.choice.table
    say(out, table.title, "bold")
    say(out, table.paper)
    for title, needs in (("data sets", found.data), ("weights", found.weights)):
        say(out, f"\n{title}: {sum(need.here for need in needs)} of {len(needs)} are here")
        for need in needs:
            say(out, f"  {need.name}: {'here' if need.here else f'missing; {need.note}'}")
    most = (phrase(name, amount) for name, amount in cost.spend.items() if amount)
    say(out, f"\n{found.choice.runs:,} runs take at most {', '.join(most)}")
    say(out, f"{hours(cost, found.tflops)}, by {rate(found.tflops)}")
    if cost.llm:
        usd = "unknown (--llm-set price=INPUT,OUTPUT)" if cost.usd is None else f"${cost.usd:,.2f}"
        say(
            out,
            f"{cost.llm} is asked in {cost.llm_runs:,} runs: at most {cost.tokens:,.0f} tokens, "
            f"cost at most {usd}; each run is held to --max-usd",
        )


def _print_rows(
    found: Reproduction, shown: Sequence[Line], columns: Sequence[Column[Line]], wide: bool
) -> None:
    from llmopt.cli.show import console, say
    from llmopt.reproduction.render import closing, notes
    from llmopt.tables import print_table

    out, title = console(), found.choice.table.title
    print_table(out, columns, shown, title=title, wide=wide, hint=" (--wide shows all)")
    for note in (*notes(shown), *closing(found)):
        say(out, note, "dim")
