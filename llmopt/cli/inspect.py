"""``evaluate``, ``runs`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmopt.cli import options as o


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(evaluate)
    app.command()(runs)
    app.command()(doctor)


def evaluate(
    run: o.RunFolder,
    dataset: o.Dataset = None,
    classnames: o.ClassNames = None,
    data_root: o.DataRoot = None,
    model: o.ModelName = None,
    pretrained: o.Pretrained = None,
    device: o.Device = None,
    precision: o.Precision = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Score a finished run on test images: its own, another data set's, or behind another model."""
    from llmopt.cli.live import watching
    from llmopt.cli.show import print_evaluation, print_json
    from llmopt.run.transfer import evaluate_run

    changes = {
        "dataset": dataset,
        "classnames": classnames,
        "data_root": None if data_root is None else str(data_root),
        "model": model,
        "pretrained": pretrained,
        "device": device,
        "precision": precision,
    }
    with watching(quiet=quiet or json) as watch:
        found = evaluate_run(run, {k: v for k, v in changes.items() if v is not None}, watch)
    (print_json if json else print_evaluation)(found)


def runs(
    root: Annotated[Path, typer.Option("--runs", help="Where run folders are.")] = Path("runs"),
    json: o.Json = False,
) -> None:
    """List run folders: what was asked, how it went, what it cost."""
    from llmopt.cli.show import plain, print_json, print_runs
    from llmopt.run.folder import find
    from llmopt.run.open import summarize

    found = [summarize(folder) for folder in find(root)]
    if json:
        print_json(plain(found))
    else:
        print_runs(found, root)


def doctor(data_root: o.DataRoot = None, json: o.Json = False) -> None:
    """Show versions, device, caches, data, keys (never their values), and what would not work."""
    from llmopt.cli.show import plain, print_checks, print_json
    from llmopt.run.doctor import examine

    checks = examine(data_root)
    if json:
        print_json(plain(checks))
    else:
        print_checks(checks)
