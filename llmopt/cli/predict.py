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


@o.takes_changes("device", "precision", "decoder", "batch_size")
def predict(
    run: o.RunFolder,
    images: Annotated[list[str], typer.Argument(help="Image files.", show_default=False)],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes named for each image.")] = 1,
    csv: Annotated[
        bool, typer.Option("--csv", help="A table for spreadsheets, a row an image.")
    ] = False,
    *,
    changes: dict[str, Any],
    trust_config: o.TrustConfig = None,
    json: o.Json = False,
) -> None:
    """Name the likeliest classes of images, with what a run found.

    One line an image: image, class, probability. Images that cannot be read are named at the end.
    """
    from llmopt.classifier import load
    from llmopt.cli.show import print_json
    from llmopt.errors import ConfigError, DatasetError
    from llmopt.live import counting

    if csv and json:
        raise ConfigError("give either --csv or --json, not both")
    paths = _checked(images)
    classifier = load(run, trust_config=bool(trust_config), **changes)
    bad: list[str] = []
    with counting("classifying", quiet=json or csv) as progress:
        found = _predictions(classifier, paths, top, progress, bad)
        if json:
            print_json([{"image": str(i), "classes": classes} for i, classes in found])
        elif csv:
            _write_csv(found, min(top, len(classifier.classes_)))
        else:
            for image, classes in found:
                _print_line(image, classes)
    if bad:
        for told in bad[:-1]:
            typer.echo(f"error: {told}", err=True)
        raise DatasetError(bad[-1])


def _checked(images: Sequence[str]) -> list[Path]:
    """The paths of all images, found before a model is loaded.

    Raises:
        ConfigError: one of them is an address.
        DatasetError: one of them is no file.
    """
    from llmopt.errors import DatasetError
    from llmopt.images import as_image

    paths = [Path(image) for image in images]
    for image, path in zip(images, paths, strict=True):
        as_image(image)
        if path.is_dir():
            raise DatasetError(f"{image} is a folder; name its images, such as {image}/*.jpg")
        if not path.is_file():
            raise DatasetError(f"there is no image {image}")
    return paths


def _predictions(
    classifier: Any, images: Sequence[Path], top: int, progress: Any, bad: list[str]
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Each image with its likeliest classes, some hundred at a time.

    What is wrong with those that cannot be read is added to ``bad``.
    """
    names = classifier.classes_
    for begin in range(0, len(images), AT_A_TIME):
        part = images[begin : begin + AT_A_TIME]
        found = list(_probabilities(classifier, part, bad))
        progress(begin + len(part), len(images))
        for image, row in found:
            order = (-row).argsort(kind="stable")[:top]
            yield (
                image,
                [{"class": str(names[k]), "probability": round(float(row[k]), 6)} for k in order],
            )


def _probabilities(
    classifier: Any, images: Sequence[Path], bad: list[str]
) -> Iterator[tuple[Path, Any]]:
    """Each image that can be read with its row; where one cannot, they are looked at singly."""
    from llmopt.errors import DatasetError

    try:
        yield from zip(images, classifier.predict_proba(images), strict=True)
    except DatasetError as error:
        if len(images) == 1:
            bad.append(str(error))
            return
        for image in images:
            yield from _probabilities(classifier, [image], bad)


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
