"""Data sets for people to look at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmopt.data.base import SPLITS, Dataset
from llmopt.data.registry import dataset_names, open_dataset
from llmopt.errors import DatasetError
from llmopt.task import Image

SHEET_IMAGES = 32


@dataclass(frozen=True)
class Listed:
    """One data set of the registry.

    Attributes:
        name: registry key.
        here: whether it can be opened.
        classes: K, or None if it is not here.
        images: of train, val and test, or None.
        note: where its split comes from, or what is missing.
    """

    name: str
    here: bool
    classes: int | None
    images: tuple[int, int, int] | None
    note: str


def root_folder(given: Path | None) -> Path:
    """``--data-root``, else ``$LLMOPT_DATA``, else ``data``."""
    return given or Path(os.environ.get("LLMOPT_DATA") or "data")


def overview(root: Path) -> list[Listed]:
    """Every data set of the registry, opened where it is here."""
    found = []
    for name in dataset_names():
        try:
            dataset = open_dataset(name, root)
        except DatasetError as error:
            found.append(Listed(name, False, None, None, str(error)))
            continue
        train, val, test = (len(dataset.split(which)) for which in SPLITS)
        found.append(
            Listed(name, True, len(dataset.classnames), (train, val, test), dataset.provenance)
        )
    return found


def details(dataset: Dataset) -> dict[str, Any]:
    """What a data set holds, JSON-able."""
    return {
        "name": dataset.name,
        "classes": len(dataset.classnames),
        "class names": list(dataset.classnames),
        **{f"{which} images": len(dataset.split(which)) for which in SPLITS},
        "split": dataset.provenance,
        "split sha256": dataset.split_sha256,
        "hand-crafted templates": [t.text for t in dataset.handcrafted],
    }


def draw_sheet(dataset: Dataset, path: Path, images: int = SHEET_IMAGES) -> None:
    """Write a labelled contact sheet of evenly spaced test images.

    Raises:
        DatasetError: the file cannot be written, or its ending is no picture format.
    """
    from llmopt.data.contact_sheet import contact_sheet

    part = next((p for p in (dataset.split("test"), dataset.split("train")) if len(p)), None)
    if part is None:
        raise DatasetError(f"dataset '{dataset.name}' has no images to draw")
    # Evenly spread over the labels, so that a sorted split does not show one class only.
    order = np.argsort(part.labels, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(images, len(order))).astype(int)]
    pictures: list[Image] = [part.images[i] for i in chosen]
    sheet = contact_sheet(
        [picture.load() for picture in pictures],
        [dataset.classnames[part.labels[i]] for i in chosen],
        title=dataset.name,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot write the picture {path}: {error}; use a .png path") from error
