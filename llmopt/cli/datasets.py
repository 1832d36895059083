"""``llmopt datasets``: what there is, where it lies, what is missing, fetch it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmopt.cli import options as o

app = typer.Typer(help="Where tasks come from.", no_args_is_help=True)


@app.command("list")
def list_datasets(data_root: o.DataRoot = None, json: o.Json = False) -> None:
    """Name the data sets and say which are here."""
    from llmopt.cli.show import print_datasets, print_json
    from llmopt.data.overview import overview, root_folder

    found = overview(root_folder(data_root))
    if json:
        print_json([entry.to_json() for entry in found])
    else:
        print_datasets(found)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A data set.", show_default=False)],
    image: Annotated[
        Path | None,
        typer.Option("--image", help="Draw a labelled contact sheet of test images to this PNG."),
    ] = None,
    data_root: o.DataRoot = None,
    json: o.Json = False,
) -> None:
    """Show classes, splits and where they come from."""
    from llmopt.cli.show import print_json, print_pairs
    from llmopt.data.overview import details, draw_sheet, root_folder
    from llmopt.data.registry import open_dataset

    dataset = open_dataset(name, root_folder(data_root))
    if image is not None:
        draw_sheet(dataset, image)
        typer.echo(f"wrote {image}", err=True)
    found = details(dataset)
    if json:
        print_json(found)
    else:
        print_pairs(found)
