"""``predict``: classes of one's own images, with what a run found."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from llmopt.cli import options as o

AT_A_TIME: Final = 256  # images, before their lines are printed


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(predict)


def predict(
    run: o.RunFolder,
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes named for each image.")] = 1,
    csv: Annotated[
        bool, typer.Option("--csv", help="A table for spreadsheets, a row an image.")
    ] = False,
    device: o.Device = None,
    precision: o.Precision = None,
    decoder: o.Decoder = None,
    batch_size: o.BatchSize = None,
    trust_config: o.TrustConfig = None,
    json: o.Json = False,
) -> None:
    """Name the likeliest classes of images, with what a run found.

    One line an image: image, class, probability.
    """
    from llmopt.classifier import load
    from llmopt.cli.show import print_json
    from llmopt.errors import ConfigError
    from llmopt.live import counting

    if csv and json:
        raise ConfigError("give either --csv or --json, not both")
    _check(images)
    given = {
        "device": device,
        "precision": precision,
        "decoder": decoder,
        "batch_size": batch_size,
    }
    options = {name: value for name, value in given.items() if value is not None}
    classifier = load(run, trust_config=bool(trust_config), **options)
    with counting("classifying", quiet=json or csv) as progress:
        found = _predictions(classifier, images, top, progress)
        if json:
            print_json([{"image": str(i), "classes": classes} for i, classes in found])
        elif csv:
            _write_csv(found, min(top, len(classifier.classes_)))
        else:
            for image, classes in found:
                _print_line(image, classes)


def _check(images: Sequence[Path]) -> None:
    """Find every image before a model is loaded.

    Raises:
        DatasetError: one of them is no file.
    """
    from llmopt.errors import DatasetError

    for image in images:
        if image.is_dir():
            raise DatasetError(f"{image} is a folder; name its images, such as {image}/*.jpg")
        if not image.is_file():
            raise DatasetError(f"there is no image {image}")


def _predictions(
    classifier: Any, images: Sequence[Path], top: int, progress: Any
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Each image with its likeliest classes, some hundred at a time."""
    for begin in range(0, len(images), AT_A_TIME):
        part = images[begin : begin + AT_A_TIME]
        probabilities = classifier.predict_proba(part)
        best = (-probabilities).argsort(axis=1, kind="stable")[:, :top]
        progress(begin + len(part), len(images))
        for image, row, order in zip(part, probabilities, best, strict=True):
            names = classifier.classes_
            yield (
                image,
                [{"class": str(names[k]), "probability": round(float(row[k]), 6)} for k in order],
            )


def _print_line(image: Path, classes: list[dict[str, Any]]) -> None:
    from llmopt.screen import printable
    from llmopt.template import clean

    told = "  ".join(f"{clean(one['class'])} {100 * one['probability']:.1f} %" for one in classes)
    typer.echo(printable(f"{clean(str(image))}  {told}"))


def _write_csv(found: Iterator[tuple[Path, list[dict[str, Any]]]], top: int) -> None:
    """Safe to open as a spreadsheet: no text of it is a formula."""
    from llmopt.export.tables import guard

    table = csv.writer(sys.stdout, lineterminator="\n")
    numbers = [str(place) if top > 1 else "" for place in range(1, top + 1)]
    heading = [f"{name}{n}" for n in numbers for name in ("class", "probability")]
    table.writerow(["image", *heading])
    for image, classes in found:
        cells = [cell for one in classes for cell in (guard(one["class"]), one["probability"])]
        table.writerow([guard(str(image)), *cells])
