"""``hub:ORG/NAME``: image classification data sets of the Hugging Face hub.

``hub:ORG/NAME@REVISION`` fixes a version. The hub's ``datasets`` library (an extra) fetches and
keeps the files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from llmopt._optional import require
from llmopt.data.base import ListedDataset, Which
from llmopt.data.own_splits import (
    THREE_WAYS,
    complete,
    name_splits,
    split_three_ways,
)
from llmopt.data.sources.own import keys_for, listed, own_dataset
from llmopt.errors import DatasetError
from llmopt.images import decode, regular, unreadable
from llmopt.task import Labelled


@dataclass(frozen=True, slots=True, eq=False)
class HubImage:
    """One row of a hub data set.

    Attributes:
        name: split and row number.
        rows: the split, with images undecoded.
        column: its image column.
        index: the row.
    """

    name: str
    rows: Any = field(repr=False)
    column: str
    index: int

    def key(self) -> str:
        """SHA-256 of the image's bytes."""
        return hashlib.sha256(self.read()).hexdigest()

    def load(self) -> PillowImage.Image:
        """The upright RGB picture; raises as :meth:`llmopt.images.FileImage.load`."""
        return decode(BytesIO(self.read()), self.name)

    def read(self) -> bytes:
        """The image's bytes."""
        stored = self.rows[self.index][self.column]
        if not stored:
            raise DatasetError(f"{self.name} of the data set has no image")
        if stored["bytes"]:
            content: bytes = stored["bytes"]
            return content
        path = Path(stored["path"])
        try:
            regular(path)
            return path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from error


def open_hub(name: str, address: str) -> ListedDataset:
    """The hub data set at ``address`` (``ORG/NAME`` or ``ORG/NAME@REVISION``).

    Raises:
        ConfigError: the library is not installed.
        DatasetError: the data set cannot be had, or has no image and label columns.
    """
    library = require("datasets", "hub", f"dataset '{name}'")
    path, _, revision = address.partition("@")
    try:
        splits = dict(library.load_dataset(path, revision=revision or None))
    except Exception as error:  # the library lets through errors of every layer below it
        raise DatasetError(f"dataset '{name}' cannot be had from the hub: {error}") from error
    if not splits:
        raise DatasetError(f"dataset '{name}' has no splits")
    features = next(iter(splits.values())).features
    image = _column(name, features, "Image", "image")
    label = _column(name, features, "ClassLabel", "label")
    names = tuple(features[label].names)
    undecoded = library.Image(decode=False)
    known = name_splits(splits, f"dataset '{name}'")
    given = {
        which: _listed(which, splits[word].cast_column(image, undecoded), image, label, len(names))
        for which, word in known.items()
    }
    notes = [
        f"the {which} split is not used: its labels are withheld"
        for which, part in given.items()
        if not len(part)
    ]
    if others := sorted(set(splits) - set(known.values())):
        notes.append(f"splits that are not used: {listed(others)}")
    given = {which: part for which, part in given.items() if len(part)}
    if not given:
        raise DatasetError(f"dataset '{name}' has splits {', '.join(splits)}; none is known")
    if len(given) == 1:
        parts, provenance = split_three_ways(next(iter(given.values()))), THREE_WAYS
    else:
        parts, provenance = complete(given)
    version = f"revision {revision}" if revision else "latest revision"
    return own_dataset(
        name,
        keys_for(names),
        parts,
        f"{provenance} (hub, {version})",
        classnames=names,
        notes=notes,
        published=True,
    )


def _column(name: str, features: Any, kind: str, usual: str) -> str:
    """Name of the only column of this kind, or of the one that is called as usual.

    Features are told apart by their class's name, so that a stand-in library will do in tests.
    """
    found = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if usual in found:
        return usual
    if len(found) != 1:
        columns = ", ".join(f"{column} ({type(f).__name__})" for column, f in features.items())
        raise DatasetError(
            f"dataset '{name}' needs one {kind} column, and has {len(found)}; it has {columns}"
        )
    return str(found[0])


def _listed(which: Which, rows: Any, image: str, label: str, classes: int) -> Labelled:
    try:
        labels = np.asarray(rows[label], dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"the {which} split has labels that are no numbers: {error}") from error
    if labels.max(initial=-1) >= classes:
        raise DatasetError(
            f"the {which} split has the label {labels.max()}, but there are {classes} classes"
        )
    if (labels < 0).any():  # the hub marks withheld test labels with -1
        return Labelled((), np.empty(0, dtype=np.int64))
    images = tuple(HubImage(f"{which}/{i:07d}", rows, image, i) for i in range(len(labels)))
    return Labelled(images, labels)
