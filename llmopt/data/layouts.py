"""How the benchmark data sets lie on disk, and how to read their splits.

A layout reads one kind of tree. What differs between data sets (folder and file names) stands in
their entry in :mod:`llmopt.data.catalog`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from llmopt.data.base import Which
from llmopt.data.images import FileImage
from llmopt.errors import DatasetError
from llmopt.task import Labelled


@dataclass(frozen=True)
class Listing:
    """What a layout found.

    Attributes:
        keys: K different words, in label order.
        names: K class names as the data set's own files give them.
        parts: images and labels of each split.
        provenance: where the split comes from.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    parts: Mapping[Which, Labelled]
    provenance: str


class Layout(Protocol):
    """One kind of tree."""

    def needs(self) -> tuple[str, ...]:
        """Files and folders that must be there, relative to the data set's folder."""
        ...

    def read(self, home: Path) -> Listing:
        """List the images below ``home``; opens none of them."""
        ...


@dataclass(frozen=True)
class SplitFile:
    """CoOp's way: one JSON file ``{"train": [[path, label, name], ...], "val": ..., "test": ...}``.

    Attributes:
        file: its name.
        images: the folder its paths start from; ``""`` for the data set's own.
    """

    file: str
    images: str

    def needs(self) -> tuple[str, ...]:
        """The folder of images and the split file."""
        return (self.images or ".", self.file)

    def read(self, home: Path) -> Listing:
        """The three lists, with the labels and names the file gives."""
        source = home / self.file
        rows = read_split_file(source)
        names: dict[int, str] = {}
        parts: dict[Which, Labelled] = {}
        for which in ("train", "val", "test"):
            parts[which] = _listed(source, home / self.images, rows.get(which, []), names)
        labels = sorted(names)
        if labels != list(range(len(labels))):
            raise DatasetError(
                f"{source} is damaged: its labels are not 0 to {len(labels) - 1} without gaps; "
                "fetch it again"
            )
        in_order = tuple(names[label] for label in labels)
        return Listing(in_order, in_order, parts, f"CoOp split ({self.file})")


def read_split_file(source: Path) -> dict[str, Any]:
    """The JSON object in a split file."""
    try:
        rows = json.loads(source.read_bytes())
    except OSError as error:
        raise DatasetError(f"split file {source} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(
            f"split file {source} is not JSON ({error}); if it is a web page, fetch it again"
        ) from error
    if not isinstance(rows, dict):
        raise DatasetError(f"split file {source} holds no object with train, val and test")
    return rows


def _listed(source: Path, root: Path, rows: Any, names: dict[int, str]) -> Labelled:
    """The images of one list; fills ``names`` with the name of every label."""
    images: list[FileImage] = []
    labels = np.empty(len(rows), dtype=np.int64)
    try:
        for index, (relative, label, name) in enumerate(rows):
            if names.setdefault(int(label), name) != name:
                raise DatasetError(
                    f"{source} gives label {label} two names, '{names[int(label)]}' and '{name}'"
                )
            images.append(FileImage(root, relative))
            labels[index] = label
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"{source} is damaged: entry {len(images)} is not [path, label, name]"
        ) from error
    _refuse_escapes(source, images)
    return Labelled(tuple(images), labels)


def _refuse_escapes(source: Path, images: list[FileImage]) -> None:
    """A split file from elsewhere must not reach outside the folder of images."""
    for image in images:
        path = PurePosixPath(image.relative)
        if path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{source} names a file outside its folder: {image.relative!r}")
