"""What is to be learned: class names and a few labelled images.

A :class:`Task` has no handle on the test images; those live in a :class:`TestSet`, which only
evaluation opens, after the search.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL import Image as PillowImage

    from llmopt.template import Template

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@runtime_checkable
class Image(Protocol):
    """A picture that can be opened when it is needed."""

    @property
    def name(self) -> str:
        """What people call it: a path, or ``shapes-small/test/00017``."""
        ...

    def key(self) -> str:
        """Content key: equal for equal pixels, different for different ones."""
        ...

    def load(self) -> PillowImage.Image:
        """The decoded RGB picture."""
        ...


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

    @cached_property
    def digest(self) -> str:
        """Hash of the images' content keys, in order (labels left out)."""
        sha = hashlib.sha256()
        for image in self.images:
            sha.update(image.key().encode())
            sha.update(b"\n")
        return sha.hexdigest()

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

    @property
    def labelled_images(self) -> int:
        """Training and validation images together."""
        return len(self.train) + len(self.val)
