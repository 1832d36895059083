"""What is odd about a task, found before anything is spent; ``run``, ``plan`` and ``check`` say it.

Files are looked at from both ends (:mod:`llmopt.data.looking`), for a few seconds at most. Where
two of different splits have the same size and the same last bytes, both are read to see whether
they are the same picture.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

import numpy as np

from llmopt.data.base import SPLITS, Dataset, Which
from llmopt.data.looking import by_kind, look_at
from llmopt.data.sources.own import listed, passed_over
from llmopt.errors import DatasetError
from llmopt.images import ArchivedImage, FileImage, Image, PixelImage, regular
from llmopt.task import Labelled
from llmopt.template import clean, display_name

SECONDS: Final = 10
"""Spent at most on looking at files before a run."""

NO_TEST: Final = (
    "no test images: what a run finds is not measured on any; "
    "a class needs at least two images to have one for the test"
)


@dataclass(frozen=True)
class Findings:
    """What is odd about a task, but no reason to refuse it.

    Attributes:
        warnings: what makes its figures worth less, a sentence each.
        notes: what may well be meant.
        skipped: how many things are not used, by reason.
    """

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


NOTHING_ODD: Final = Findings()


@dataclass(frozen=True)
class Shared:
    """The same picture in two splits."""

    image: Image
    other: Image
    split: Which
    other_split: Which


def examine(
    dataset: Dataset, train: Labelled, val: Labelled, *, skip_unreadable: bool = False
) -> Findings:
    """What is odd about a task made of these images, and measured on the data set's test images.

    Args:
        dataset: class names and test images.
        train, val: the labelled images of the task.
        skip_unreadable: whether images that cannot be used may be left out.

    Raises:
        DatasetError: some of them cannot be used.
    """
    parts: dict[Which, Labelled] = {"train": train, "val": val, "test": dataset.split("test")}
    unusable = _unusable(dataset.name, parts, skip_unreadable)
    warnings = []
    if not len(parts["test"]):
        warnings.append(NO_TEST)
    warnings += told(shared_pictures(parts))
    notes = [*notes_on(dataset, parts), *unusable]
    return Findings(tuple(warnings), tuple(notes), dataset.skipped)


def _unusable(dataset: str, parts: Mapping[Which, Labelled], skip_unreadable: bool) -> list[str]:
    """What is to be said of images that cannot be used, by reason; refused unless skipped."""
    notes, late = [], time.monotonic() + SECONDS
    for which, part in parts.items():
        looked = look_at(part.images, seconds=late - time.monotonic())
        if looked.problems:
            reasons = ", ".join(f"{n:,} {kind}" for kind, n in by_kind(looked.problems).items())
            count = f"{len(looked.problems):,} of {len(part):,} {which} images"
            if not skip_unreadable:
                raise DatasetError(
                    f"dataset '{dataset}': {count} cannot be used ({reasons}), such as "
                    f"{listed([looked.problems[0].path])}; run 'llmopt datasets check {dataset}', "
                    "or leave them out with --skip-unreadable"
                )
            notes.append(f"{count} are left out ({reasons})")
        if left := len(part) - looked.images:
            notes.append(
                f"{left:,} of {len(part):,} {which} images were not looked at beforehand, which "
                f"takes more than {SECONDS} s; 'llmopt datasets check {dataset}' looks at all"
            )
    return notes


def notes_on(dataset: Dataset, parts: Mapping[Which, Labelled]) -> list[str]:
    """What is unusual about the classes and the source, but may be meant."""
    notes = list(dataset.notes)
    if skipped := passed_over(dataset.skipped):
        notes.append(f"passed over: {skipped}")
    for which, word in _LACKING.items():
        if len(part := parts[which]):
            counts = np.bincount(part.labels, minlength=len(dataset.keys))
            if empty := [dataset.keys[i] for i in np.flatnonzero(counts == 0).tolist()]:
                notes.append(f"no {word} images for {len(empty)} classes: {listed(empty)}")
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in dataset.classnames:
        alike[display_name(clean(name)).casefold()].append(name)
    if same := [names for names in alike.values() if len(names) > 1]:
        shown = [" = ".join(map(repr, names[:5])) for names in same[:5]]
        notes.append(
            f"{sum(map(len, same))} classes share a prompt with another (to CLIP, case is one): "
            f"{', '.join(shown)}; --classnames gives them other names"
        )
    if all(name.isdecimal() for name in dataset.classnames):
        notes.append("the class names are numbers, which say little; --classnames gives them names")
    return notes


_LACKING: Final[Mapping[Which, str]] = {"train": "training", "test": "test"}


# ---------------------------------------------------------------------------- the same picture


def shared_pictures(parts: Mapping[Which, Labelled], *, deep: bool = False) -> list[Shared]:
    """Pictures of the same bytes in two splits; those of a pair of splits together.

    Args:
        parts: the splits.
        deep: whether images are compared too whose size cannot be told without reading them.
    """
    return [
        Shared(image, other, first, second)
        for first, second in combinations(SPLITS, 2)
        for image, other in _twins(parts[first].images, parts[second].images, deep)
    ]


def told(shared: Iterable[Shared]) -> list[str]:
    """Shared pictures in words, a sentence for each pair of splits."""
    pairs: defaultdict[tuple[Which, Which], list[Shared]] = defaultdict(list)
    for one in shared:
        pairs[one.split, one.other_split].append(one)
    return [
        f"{len(found):,} of the {first} images are {second} images too, byte for byte, such as "
        f"{found[0].image.name!r} and {found[0].other.name!r}"
        + ("; the test accuracy says too much" if second == "test" else "")
        for (first, second), found in pairs.items()
    ]


def _twins(some: Sequence[Image], others: Sequence[Image], deep: bool) -> list[tuple[Image, Image]]:
    """Images with one of the same bytes among ``others``: by size, then last bytes, then all."""
    measures: list[Callable[[Image], int | bytes | str | None]] = [_size, _tail, _key]
    for measure in measures:
        marks = [(measure(image), image) for image in some]
        if not deep:
            marks = [pair for pair in marks if pair[0] is not None]
        if not marks:
            return []
        other_marks = [(measure(image), image) for image in others]
        if not deep:
            other_marks = [pair for pair in other_marks if pair[0] is not None]
        both = {mark for mark, _ in marks} & {mark for mark, _ in other_marks}
        some = [image for mark, image in marks if mark in both]
        others = [image for mark, image in other_marks if mark in both]
    by_key = {_key(image): image for image in reversed(others)}
    return [(image, by_key[key]) for image in some if (key := _key(image)) is not None]


def _size(image: Image) -> int | None:
    """Bytes of an image; None where they cannot be told without reading it."""
    if isinstance(image, ArchivedImage):
        return image.size
    if isinstance(image, PixelImage):
        return image.pixels.nbytes
    if isinstance(image, FileImage):
        try:
            return regular(os.path.join(image.root, image.relative)).st_size  # noqa: PTH118
        except (OSError, ValueError):
            return None
    return None


def _tail(image: Image) -> bytes:
    """The last bytes of an image, which tell most of those of one size apart."""
    if isinstance(image, PixelImage):
        return image.pixels[-1:].tobytes()
    try:
        if isinstance(image, FileImage):
            regular(image.path)
            with image.path.open("rb") as file:
                file.seek(-min(_TAIL, os.fstat(file.fileno()).st_size), os.SEEK_END)
                return file.read(_TAIL)
        if isinstance(image, ArchivedImage):
            with image.archive.open("rb") as file:
                file.seek(max(image.offset + image.size - _TAIL, image.offset))
                return file.read(min(_TAIL, image.size))
    except OSError:
        pass
    return b""


_TAIL: Final = 64  # beyond the 12 bytes that end every PNG


def _key(image: Image) -> str | None:
    try:
        return image.key()
    except DatasetError:
        return None
