"""``llmopt datasets``: what there is, where it lies, what is missing, fetch it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmopt.cli import options as o

app = typer.Typer(help="Where tasks come from.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the commands to the app."""
    root.add_typer(app, name="datasets")


@app.command("list")
def list_datasets(data_root: o.DataRoot = None, json: o.Json = False) -> None:
    """Name the data sets and say which are here."""
    from llmopt.cli.listings import print_datasets
    from llmopt.cli.show import print_json
    from llmopt.data.overview import overview, root_folder
    from llmopt.figures import plain

    found = overview(root_folder(data_root))
    if json:
        print_json(plain(found))
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
    """Show classes, splits and where they come from; of what is not here, what is published."""
    from llmopt.cli.show import print_json, print_pairs
    from llmopt.data.overview import describe, draw_sheet, root_folder
    from llmopt.data.registry import open_dataset

    root = root_folder(data_root)
    if image is not None:
        draw_sheet(open_dataset(name, root), image)
        typer.echo(f"wrote {image}", err=True)
    found = describe(name, root)
    if json:
        print_json(found)
    else:
        print_pairs(found)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A data set.", show_default=False)],
    deep: Annotated[bool, typer.Option("--deep", help="Decode every image.")] = False,
    classnames: o.ClassNames = None,
    data_root: o.DataRoot = None,
    json: o.Json = False,
) -> None:
    """Look at every file of a data set before anything runs; exit code 2 if something is wrong."""
    from llmopt.cli.listings import print_check
    from llmopt.cli.show import print_json
    from llmopt.data.check import check_dataset
    from llmopt.data.overview import root_folder
    from llmopt.figures import plain
    from llmopt.live import counting

    names = {"classnames": classnames} if classnames else {}
    with counting("looking at images", quiet=json) as progress:
        report = check_dataset(name, root_folder(data_root), deep=deep, progress=progress, **names)
    if json:
        print_json(plain(report) | {"ok": report.ok})
    else:
        print_check(report)
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def download(
    name: Annotated[str, typer.Argument(help="A benchmark.", show_default=False)],
    data_root: o.DataRoot = None,
    workers: Annotated[int, typer.Option("--workers", help="Files fetched at a time.")] = 4,
    json: o.Json = False,
) -> None:
    """Fetch a benchmark: resumable, checksummed, in place only when it is whole."""
    from llmopt.cli.listings import print_download
    from llmopt.cli.show import print_json
    from llmopt.data.download import download_dataset
    from llmopt.data.overview import root_folder
    from llmopt.figures import plain
    from llmopt.live import downloading

    with downloading(quiet=json) as report:
        done = download_dataset(name, root_folder(data_root), workers=workers, report=report)
    if json:
        print_json(plain(done))
    else:
        print_download(done)
