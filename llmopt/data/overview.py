"""Data sets for people to look at."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmopt.data.base import SPLITS, Dataset
from llmopt.data.benchmarks.catalog import CATALOG, Entry
from llmopt.data.benchmarks.handcrafted import templates_for
from llmopt.data.registry import SOURCES, dataset_names, find_home, open_dataset
from llmopt.errors import DatasetError, UserError
from llmopt.images import Image

SHEET_IMAGES = 32


@dataclass(frozen=True)
class Listed:
    """One data set of the registry.

    Attributes:
        name: registry key.
        here: whether it can be opened.
        classes: K, as found or as published; None where neither is known.
        images: of train, val and test, as found or as published; None where neither is known.
        note: where its split comes from; of what is not here, what it is, what may be done with it
            and how much there is to download.
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
    """Every data set of the registry, opened where it is here, and what plug-ins can open."""
    outside = [
        Listed(f"{plugin.name}:…", not plugin.problem, None, None, plugin.note)
        for plugin in SOURCES.plugins()
    ]
    return [*(_listed(name, root) for name in dataset_names()), *outside]


def _listed(name: str, root: Path) -> Listed:
    entry = CATALOG.get(name)
    if entry is not None and (missing := find_home(entry, root)[1]):
        here = f"lacks {', '.join(missing)}; " if find_home(entry, root)[0].is_dir() else ""
        train, val, test = entry.sizes
        known = None if train is None or val is None or test is None else (train, val, test)
        return Listed(name, False, entry.classes, known, here + _offer(entry))
    try:
        dataset = open_dataset(name, root)
    except UserError as error:  # damaged, or it needs a library that is not installed
        return Listed(name, False, None, None, str(error))
    train, val, test = (len(dataset.split(which)) for which in SPLITS)
    return Listed(name, True, len(dataset.classnames), (train, val, test), dataset.provenance)


def _offer(entry: Entry) -> str:
    """What a benchmark is, its terms, and what a download would be."""
    archives = [fetch.size for fetch in entry.fetches if fetch.place or fetch.size is not None]
    if not any(fetch.urls for fetch in entry.fetches):
        how = "to be fetched by hand"
    elif None in archives:
        how = "a download of unknown size"
    else:
        total = sum(size or 0 for size in archives)
        how = (
            f"{total / 1e9:.1f} GB" if total >= 5e7 else f"{total / 1e6:.0f} MB"
        ) + " to download"
    return f"{entry.about}; licence: {entry.licence}; {how}"


def describe(name: str, root: Path) -> dict[str, Any]:
    """What a data set holds, or, of a benchmark that is not here, what it would; JSON-able.

    Raises:
        DatasetError: there is no such data set, or it is damaged.
    """
    entry = CATALOG.get(name)
    if entry is None or not (missing := find_home(entry, root)[1]):
        return details(open_dataset(name, root))
    home, _ = find_home(entry, root)
    return {
        "name": name,
        "about": entry.about,
        "licence": entry.licence,
        "classes": entry.classes,
        **{f"{which} images": size for which, size in zip(SPLITS, entry.sizes, strict=True)},
        "here": False,
        "missing": [str(home / path) for path in missing],
        "to get it": f"llmopt datasets download {name}",
        "hand-crafted templates": [t.text for t in templates_for(name)],
    }


def details(dataset: Dataset) -> dict[str, Any]:
    """What a data set holds, JSON-able."""
    entry = CATALOG.get(dataset.name)
    terms = {"about": entry.about, "licence": entry.licence} if entry is not None else {}
    return {
        "name": dataset.name,
        **terms,
        "classes": len(dataset.classnames),
        "class names": list(dataset.classnames),
        "class keys": list(dataset.keys),
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
