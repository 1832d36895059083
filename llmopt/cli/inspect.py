"""``evaluate``, ``explain``, ``runs`` and ``doctor``."""

from __future__ import annotations

from collections.abc import Callable
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
    "precision", "decoder", "baselines",
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

    trusted = bool(trust_config)
    with watching(quiet=quiet or json) as watch:
        if across:
            from llmopt.comparison.transfer import transfer

            table = transfer(runs, across, changes, watch, trust_config=trusted)
        else:
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
    """Show what each word of a run's text is worth, or the words nearest to its soft prompt."""
    from llmopt.cli.explained import print_explanation, print_words
    from llmopt.cli.show import print_json
    from llmopt.figures import plain
    from llmopt.live import watching
    from llmopt.runs.explain import explain as put_in_words
    from llmopt.runs.load import load_predictor
    from llmopt.runs.words import words_worth

    found: Any
    show: Callable[[Any], None]
    with watching(quiet=quiet or json) as watch:
        if load_predictor(run).innermost.soft_prompt is None:
            found, show = words_worth(run, watch, bool(trust_config)), print_words
        else:
            found, show = put_in_words(run, top, watch, bool(trust_config)), print_explanation
    print_json(plain(found)) if json else show(found)


def runs(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="These alone, in place of all.", show_default=False)
    ] = None,
    root: Annotated[Path, typer.Option("--runs", help="Where run folders are.")] = Path("runs"),
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete those that --filter or their names choose.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")] = False,
    wide: o.Wide = False,
    columns: o.Columns = "",
    sort: o.Sort = "",
    filter: o.Filter = None,
    json: o.Json = False,
) -> None:
    """List run folders, or delete some: what was asked, how it went, its cost."""
    from llmopt.cli.listings import RUNS, print_runs
    from llmopt.cli.show import print_json
    from llmopt.errors import RunFolderError
    from llmopt.figures import plain
    from llmopt.runs.listing import list_runs
    from llmopt.runs.load import summarize
    from llmopt.tables import choose, pick

    shown = pick(columns, RUNS)
    for folder in folders or ():
        if not folder.is_dir():
            raise RunFolderError(f"{folder} is not a run folder: there is no such folder")
    there = [summarize(folder) for folder in folders] if folders else list_runs(root)
    found = choose(there, RUNS, sort=sort, filters=filter or ())
    if delete:
        _delete([run.folder for run in found], chosen=bool(folders or filter), yes=yes)
    if json:
        print_json(plain(found))
    elif not delete:
        print_runs(found, root, shown, wide, len(there))


def _delete(folders: list[Path], *, chosen: bool, yes: bool) -> None:
    """Delete run folders, once somebody has said so.

    Raises:
        ConfigError: nobody has said which, or can be asked.
        RunFolderError: one of them is none, or is in use.
    """
    import sys

    from llmopt.errors import ConfigError
    from llmopt.runs import folder as run_folder
    from llmopt.screen import printable

    if not chosen:
        raise ConfigError(
            "--delete wants to know which: name run folders, or give --filter, such as "
            "'status=unfinished'"
        )
    for folder in folders:
        run_folder.check_deletable(folder)
    if folders and not yes:
        if not sys.stdin.isatty():
            raise ConfigError(
                f"--delete of {len(folders)} run folders: say --yes, since nobody can be asked"
            )
        for folder in folders:
            typer.echo(printable(f"  {folder}"), err=True)
        question = f"delete {'this run folder' if len(folders) == 1 else f'these {len(folders)}'}?"
        if not typer.confirm(question, err=True):
            raise typer.Exit(1)
    for folder in folders:
        run_folder.delete(folder)
        typer.echo(printable(f"deleted {folder}"), err=True)
    if not folders:
        typer.echo("no such runs; nothing was deleted", err=True)


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
