"""Other ways to look at a data set: half of its classes, or ImageNet's 1000 in place of its own.

``caltech101:base`` and ``caltech101:new`` are the halves on which generalisation to new classes is
measured. ``imagenet_a:1000`` and ``imagenet_r:1000`` have the labels of ImageNet: a classifier then
chooses among all 1000 classes, where ``imagenet_a`` lets it choose among the 200 that occur. Both
are in use, and their figures are not comparable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from llmopt.data.base import Dataset, ListedDataset, Which
from llmopt.data.benchmarks.layouts import imagenet_names
from llmopt.errors import DatasetError
from llmopt.task import IntArray, Labelled
from llmopt.template import Template

Half = Literal["base", "new"]

HALVES: Final[dict[str, Half]] = {"base": "base", "new": "new"}


@dataclass(frozen=True)
class HalfDataset:
    """The first half of the classes (``base``, the larger one if they are odd) or the others.

    Labels count from 0 in either half. Few-shot samples are drawn from the whole and then cut
    (CoOp's order), which is why :func:`llmopt.data.tasks.make_task` asks for :attr:`whole`.
    """

    whole: Dataset
    half: Half

    @property
    def name(self) -> str:
        """The whole's name and the half's."""
        return f"{self.whole.name}:{self.half}"

    @property
    def _classes(self) -> slice:
        middle = (len(self.whole.classnames) + 1) // 2
        return slice(0, middle) if self.half == "base" else slice(middle, None)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of this half's classes."""
        return self.whole.keys[self._classes]

    @property
    def classnames(self) -> tuple[str, ...]:
        """Names of this half's classes."""
        return self.whole.classnames[self._classes]

    @property
    def handcrafted(self) -> tuple[Template, ...]:
        """The whole's templates."""
        return self.whole.handcrafted

    @property
    def provenance(self) -> str:
        """Where the whole's split comes from, and which half this is."""
        return f"{self.whole.provenance}; {self.half} classes"

    @property
    def notes(self) -> tuple[str, ...]:
        """The whole's."""
        return self.whole.notes

    @property
    def skipped(self) -> Mapping[str, int]:
        """The whole's."""
        return self.whole.skipped

    @property
    def split_sha256(self) -> str:
        """Identity of the whole's split and of the half."""
        return hashlib.sha256(f"{self.whole.split_sha256}:{self.half}".encode()).hexdigest()

    def split(self, which: Which) -> Labelled:
        """This half's images of one part."""
        return self.cut(self.whole.split(which))

    def cut(self, images: Labelled) -> Labelled:
        """Those of the whole's images that belong to this half, relabelled from 0."""
        first, last, _ = self._classes.indices(len(self.whole.classnames))
        inside = images.subset(np.flatnonzero((images.labels >= first) & (images.labels < last)))
        return Labelled(inside.images, inside.labels - first)


def among_imagenet(dataset: ListedDataset) -> ListedDataset:
    """``dataset`` (ImageNet-A or -R) with ImageNet's 1000 classes and labels.

    Raises:
        DatasetError: some of its classes are none of ImageNet's.
    """
    names = imagenet_names()
    columns = class_map(tuple(names), dataset.keys, dataset.name)
    parts = {which: Labelled(p.images, columns[p.labels]) for which, p in dataset.parts.items()}
    return ListedDataset(
        name=f"{dataset.name}:1000",
        keys=tuple(names),
        classnames=tuple(names.values()),
        parts=parts,
        provenance=f"{dataset.provenance}; labels among all 1000 classes of ImageNet",
        handcrafted=dataset.handcrafted,
        notes=dataset.notes,
        skipped=dataset.skipped,
    )


def class_map(known: Sequence[str], wanted: Sequence[str], name: str) -> IntArray:
    """Where each class of a data set stands among the classes a classifier has learned.

    Args:
        known: (K,) keys of the classes learned, in the order of the classifier's scores.
        wanted: (C,) keys of the data set's classes, in label order.
        name: the data set's, for the message.

    Returns:
        (C,) int64: ``scores[:, class_map]`` are the scores of the data set's classes;
        ``class_map[labels]`` are its labels among all that was learned.

    Raises:
        DatasetError: a class was not learned.
    """
    place = {key: index for index, key in enumerate(known)}
    unknown = [key for key in wanted if key not in place]
    if unknown:
        raise DatasetError(
            f"dataset '{name}' has classes that were not learned: {', '.join(unknown[:5])}"
            f"{' and others' if len(unknown) > 5 else ''}"
        )
    return np.array([place[key] for key in wanted], dtype=np.int64)
