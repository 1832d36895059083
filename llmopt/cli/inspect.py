"""``evaluate``, ``explain``, ``runs`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmopt.cli import options as o
from llmopt.runs.config import MODEL

if TYPE_CHECKING:
    from llmopt.comparison.transfer import Transfer


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(evaluate)
    app.command()(explain)
    app.command()(runs)
    app.command()(doctor)


@o.takes_changes(
    "dataset", "classnames", "data_root", "skip_unreadable", "model", "pretrained", "device",
    "precision",
)  # fmt: skip
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", show_default=False)],
    across: Annotated[
        list[str] | None,
        typer.Option(
            "--across",
            rich_help_panel=MODEL,
            help="Score behind this model too, NAME or NAME@TAG; repeatable. Shows a table of "
            "transfer: rows found on, columns scored on.",
        ),
    ] = None,
    *,
    changes: dict[str, Any],
    trust_config: o.TrustConfig = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Score finished runs on test images: their own, another data set's, or behind other models."""
    from llmopt.cli.show import print_evaluation, print_json
    from llmopt.live import watching
    from llmopt.runs.remeasure import remeasure

    with watching(quiet=quiet or json) as watch:
        if across:
            from llmopt.comparison.transfer import transfer

            table = transfer(runs, across, changes, watch)
        else:
            trusted = bool(trust_config)
            evaluations = [remeasure(run, changes, watch, trust_config=trusted) for run in runs]
    if across:
        print_json(table.to_json()) if json else print_transfer(table)
    elif json:
        print_json(evaluations if len(runs) > 1 else evaluations[0])
    else:
        for found in evaluations:
            print_evaluation(found)


def print_transfer(table: Transfer) -> None:
    """Test accuracy with its gain over the start, of every run behind every model."""
    from llmopt.cli.show import console
    from llmopt.figures import percent, points
    from llmopt.tables import print_table, text_columns

    rows = [
        (
            name,
            *(
                f"{percent(cell['best_accuracy'])} ({points(cell['gain']['test_accuracy'])}"
                f"{'' if cell['gain']['p_value'] < 0.05 else ', not significant'})"
                for cell in row
            ),
        )
        for name, row in zip(table.found_on, table.cells, strict=True)
    ]
    title = "found on (rows), scored on (columns): test accuracy and gain over start"
    print_table(console(), text_columns("found on", *table.scored_on), rows, title=title)


def explain(
    run: o.RunFolder,
    top: Annotated[int, typer.Option("--top", help="Words named for each vector.")] = 5,
    trust_config: o.TrustConfig = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Show the words nearest to a run's soft prompt, and how little that may mean."""
    from llmopt.cli.explained import print_explanation
    from llmopt.cli.show import print_json
    from llmopt.figures import plain
    from llmopt.live import watching
    from llmopt.runs.explain import explain as put_in_words

    with watching(quiet=quiet or json) as watch:
        found = put_in_words(run, top, watch, bool(trust_config))
    if json:
        print_json(plain(found))
    else:
        print_explanation(found)


def runs(
    root: Annotated[Path, typer.Option("--runs", help="Where run folders are.")] = Path("runs"),
    wide: o.Wide = False,
    columns: o.Columns = "",
    sort: o.Sort = "",
    filter: o.Filter = None,
    json: o.Json = False,
) -> None:
    """List run folders: what was asked, how it went, what it cost."""
    from llmopt.cli.listings import RUNS, print_runs
    from llmopt.cli.show import print_json
    from llmopt.figures import plain
    from llmopt.runs.listing import list_runs
    from llmopt.tables import choose, pick

    shown = pick(columns, RUNS)
    found = choose(list_runs(root), RUNS, sort=sort, filters=filter or ())
    if json:
        print_json(plain(found))
    else:
        print_runs(found, root, shown, wide)


def doctor(data_root: o.DataRoot = None, json: o.Json = False) -> None:
    """Show versions, device, caches, data, keys (never their values), and what would not work."""
    from llmopt.cli.listings import print_checks
    from llmopt.cli.show import print_json
    from llmopt.doctor import examine
    from llmopt.figures import plain

    checks = examine(data_root)
    if json:
        print_json(plain(checks))
    else:
        print_checks(checks)
