"""What is to be learned: class names and a few labelled images.

A :class:`Task` has no handle on the test images; those live in a :class:`TestSet`, which only
evaluation opens, after the search.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llmopt.errors import DatasetError, nearest
from llmopt.images import Image, as_image
from llmopt.template import PLAIN, Template, clean, display_name

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with one label each.

    Attributes:
        images: N images.
        labels: (N,) int64, indices into the task's class names.
    """

    images: tuple[Image, ...]
    labels: IntArray

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[tuple[Image, int]]:
        return iter(zip(self.images, self.labels.tolist(), strict=True))

    @classmethod
    def of(cls, images: Sequence[Any], labels: Sequence[Any], classnames: Sequence[str]) -> Self:
        """Pictures in memory or files, with their labels.

        Args:
            images: N paths, Pillow images or (height, width, 3) uint8 arrays.
            labels: N class names, or their indices.
            classnames: K names.

        Raises:
            DatasetError: a label is not among the class names, or the lengths differ.
            ConfigError: something is not an image.
        """
        if len(images) != len(labels):
            raise DatasetError(f"{len(images)} images, but {len(labels)} labels")
        places = {name: place for place, name in enumerate(classnames)}
        index = [_place(label, places) for label in labels]
        return cls(
            tuple(as_image(image, number) for number, image in enumerate(images)),
            np.asarray(index, dtype=np.int64),
        )

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The images' content keys, in order."""
        return tuple(image.key() for image in self.images)

    @cached_property
    def digest(self) -> str:
        """Hash of the images' content keys, in order (labels left out)."""
        return hashlib.sha256("".join(f"{key}\n" for key in self.keys).encode()).hexdigest()

    def subset(self, indices: Sequence[int] | IntArray) -> Labelled:
        """The images at ``indices``, in that order."""
        index = np.asarray(indices, dtype=np.int64)
        return Labelled(tuple(self.images[i] for i in index), self.labels[index])


class FewShot(Labelled):
    """A few labelled images per class, for training or validation."""


class TestSet(Labelled):
    """The images that measure a finished run; never given to an optimizer."""

    __test__ = False  # not a test case, whatever pytest thinks of the name


@dataclass(frozen=True)
class Task:
    """All that an optimizer may know.

    Attributes:
        dataset: registry key or ``folder:PATH``.
        classnames: K names, in label order.
        train: up to K * shots images.
        val: up to K * min(shots, 4) images (CoOp's rule); may be empty.
        shots: labelled training images per class.
        seed: of the few-shot sample and of every random choice after it.
        start: the template the user starts from.
        split_sha256: hash of the split the images come from.
        provenance: where the split comes from, one line.
        handcrafted: templates that people wrote for these images.
        left_out: images of the sample that could not be read.
        about: what the pictures are and what matters, for a language model; may be empty.
        test: images that measure what a run found, where they come with the task. They are taken
            away before a search begins.
    """

    dataset: str
    classnames: tuple[str, ...]
    train: FewShot
    val: FewShot
    shots: int
    seed: int
    start: Template
    split_sha256: str
    provenance: str = ""
    handcrafted: tuple[Template, ...] = field(default=())
    left_out: int = 0
    about: str = ""
    test: TestSet | None = field(default=None, repr=False)

    @classmethod
    def from_images(
        cls,
        images: Sequence[Any],
        labels: Sequence[Any],
        classnames: Sequence[str],
        *,
        val: tuple[Sequence[Any], Sequence[Any]] | None = None,
        test: tuple[Sequence[Any], Sequence[Any]] | None = None,
        template: str = PLAIN,
        name: str = "images",
        about: str = "",
    ) -> Task:
        """A task of one's own images; nothing need lie on disk.

        Args:
            images: to train on: paths, Pillow images, or (height, width, 3) uint8 arrays.
            labels: of each, a class name or its index.
            classnames: K names.
            val: images and labels that candidates are judged on beside the training images.
            test: images and labels that the run is measured on at its end; without them a run has
                no test accuracy.
            template: where the search starts.
            name: of the task, for people.
            about: what the pictures are and what matters, for a language model.

        Raises:
            DatasetError: no images, a label that is no class, a class name that is no text, or
                lengths that differ.
            ConfigError: something is not an image.
            TemplateError: the template cannot be used.
        """
        names = checked_names(classnames, f"task '{name}'")
        train = FewShot.of(images, labels, names)
        if not len(train):
            raise DatasetError(f"task '{name}' has no images to train on")
        held = FewShot.of(*(val or ((), ())), names)
        tests = TestSet.of(*test, names) if test is not None else None
        sha = hashlib.sha256()
        for part in filter(None, (train, held, tests)):
            sha.update(f"{part.digest} {part.labels.tolist()}\n".encode())
        return cls(
            dataset=name,
            classnames=names,
            train=train,
            val=held,
            shots=max(Counter(train.labels.tolist()).values()),
            seed=1,
            start=Template(template),
            split_sha256=sha.hexdigest(),
            provenance="images given in Python",
            about=clean(about),
            test=tests,
        )

    @property
    def labelled_images(self) -> int:
        """Training and validation images together."""
        return len(self.train) + len(self.val)


def checked_names(names: Iterable[Any], where: str) -> tuple[str, ...]:
    """Class names that can stand in a prompt and in a file; whole numbers are taken as text.

    Raises:
        DatasetError: ``where`` has a name that is no text, or nothing of which can be seen.
    """
    names = tuple(str(one) if isinstance(one, (int, np.integer)) else one for one in names)
    for name in names:
        if not isinstance(name, str) or not is_unicode(name):
            raise DatasetError(f"{where}: the class name {name!r} is not Unicode text; rename it")
        if not display_name(clean(name)):
            raise DatasetError(
                f"{where}: nothing can be seen of the class name {name!r}; rename it"
            )
    return names


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold it; bytes that are no UTF-8 come as lone surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _place(label: Any, places: dict[str, int]) -> int:
    """The index of a class, given by it or by its name."""
    if isinstance(label, str):
        if label not in places:
            raise DatasetError(f"label {label!r} is not a class name{nearest(label, places)}")
        return places[label]
    place = int(label)
    if place != label or not 0 <= place < len(places):
        raise DatasetError(f"label {label!r} is not from 0 to {len(places) - 1}")
    return place
