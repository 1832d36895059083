"""What changed on the test images: which classes are taken for which, and which pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llmopt.comparison.records import Record
from llmopt.data.registry import open_dataset
from llmopt.errors import LlmoptError
from llmopt.task import Labelled

THUMBNAIL = 112  # pixels
IntMatrix = npt.NDArray[np.int64]

FindImages = Callable[[str, str, str], Labelled]
"""Gives the test images of a data set, data root and class-name list."""


@dataclass(frozen=True)
class Mistake:
    """One class taken for another.

    Attributes:
        true, taken_for: class names.
        before, after: test images, with the start and with what was found.
    """

    true: str
    taken_for: str
    before: int
    after: int


@dataclass(frozen=True)
class Example:
    """A test image that start and best see differently.

    Attributes:
        name: what people call it.
        true, before, after: class names.
        picture: data URI; empty if the image could not be opened.
    """

    name: str
    true: str
    before: str
    after: str
    picture: str


def confusion(labels: IntMatrix, predicted: IntMatrix, classes: int) -> IntMatrix:
    """(K, K) test images by true class (rows) and predicted class (columns)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def mistakes(record: Record, names: Sequence[str], limit: int = 12) -> list[Mistake]:
    """The mistakes that changed most, then the most frequent ones."""
    before = confusion(record.labels, record.before.top, len(names))
    after = confusion(record.labels, record.after.top, len(names))
    off = [(i, j) for i, j in np.argwhere((before > 0) | (after > 0)).tolist() if i != j]
    off.sort(key=lambda ij: (-abs(int(after[ij] - before[ij])), -int(before[ij])))
    return [
        Mistake(names[i], names[j], int(before[i, j]), int(after[i, j])) for i, j in off[:limit]
    ]


def test_images(dataset: str, data_root: str, classnames: str) -> Labelled:
    """The test split a run was measured on.

    Raises:
        LlmoptError: it is not here.
    """
    names_of = {"classnames": classnames} if classnames else {}
    return open_dataset(dataset, Path(data_root), **names_of).split("test")


def examples(
    record: Record, names: Sequence[str], limit: int = 8, find: FindImages = test_images
) -> tuple[list[Example], list[Example], str]:
    """Images only the best gets right, images only the start gets right, and what went wrong.

    The classes take turns, so that the examples are not all of one.
    """
    gained = _in_turn(record.labels, record.hits & ~record.start_hits, limit)
    lost = _in_turn(record.labels, record.start_hits & ~record.hits, limit)
    trouble = ""
    images: Labelled | None = None
    try:
        config = record.config
        images = find(config.dataset, config.data_root, config.classnames)
        if not np.array_equal(images.labels, record.labels):
            images, trouble = None, "the test split here is not the one the run was measured on"
    except LlmoptError as error:
        trouble = str(error)
    shown = [[_example(record, names, images, i) for i in rows] for rows in (gained, lost)]
    return shown[0], shown[1], trouble


def _in_turn(labels: IntMatrix, which: npt.NDArray[np.bool_], limit: int) -> list[int]:
    seen: dict[int, int] = {}
    order = []
    for index in np.flatnonzero(which).tolist():
        label = int(labels[index])
        order.append((seen.get(label, 0), index))
        seen[label] = seen.get(label, 0) + 1
    return [index for _, index in sorted(order)[:limit]]


def _example(record: Record, names: Sequence[str], images: Labelled | None, i: int) -> Example:
    name, picture = f"test image {i}", ""
    if images is not None:
        name = images.images[i].name
        picture = _thumbnail(images, i)
    true, before, after = (
        names[k] for k in (record.labels[i], record.before.top[i], record.after.top[i])
    )
    return Example(name, true, before, after, picture)


def _thumbnail(images: Labelled, index: int) -> str:
    try:
        image = images.images[index].load()
    except LlmoptError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    content = BytesIO()
    format = "PNG" if max(image.size) <= 64 else "JPEG"
    image.save(content, format, quality=85)
    encoded = base64.b64encode(content.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{encoded}"
