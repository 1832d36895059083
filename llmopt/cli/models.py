"""``llmopt models``: black boxes and what they offer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmopt.cli import options as o

app = typer.Typer(help="Black boxes and their access level.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands to the app."""
    root.add_typer(app, name="models")


@app.command("list")
def list_models(json: o.Json = False) -> None:
    """Name the models that can stand behind the wall, with their weights."""
    from llmopt.cli.listings import print_models
    from llmopt.cli.show import print_json
    from llmopt.vision.models import known_models

    found = known_models()
    if json:
        print_json(found)
    else:
        print_models(found)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A model name.", show_default=False)] = "shapes-tiny",
    pretrained: o.Pretrained = None,
    device: o.Device = None,
    precision: o.Precision = None,
    json: o.Json = False,
) -> None:
    """Load a model and show its access level, and how its text tower is computed and why."""
    from llmopt.cli.show import print_json, print_pairs
    from llmopt.vision.models import describe

    found = describe(name, pretrained or "", device or "auto", precision or "auto")
    if json:
        print_json(found)
    else:
        print_pairs(found)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="The embedded model.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)],
) -> None:
    """Write the embedded model as a folder that open_clip loads as local-dir:FOLDER."""
    from llmopt.vision.models import export_model

    export_model(name, folder)
    typer.echo(f"wrote {folder}; load it with: --model local-dir:{folder}", err=True)
