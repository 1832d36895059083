"""Augmented views of images: random crops and flips, the same ones every time.

Heads learn from several views of each training image. A view is an image like any other: it is
encoded once and cached, and counted as one image encoding. Which crop it is depends on nothing but
the image's content, the seed and the view's number.

Flips are off unless asked for: mirroring an image changes its label wherever left and right matter.
The published methods flip with probability 1/2, and profiles that reproduce them set ``flip``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmopt.images import Image
from llmopt.task import Labelled

if TYPE_CHECKING:
    from PIL import Image as PillowImage

# Crops are tried this often before the largest centred one that fits is taken.
_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """How views differ from their image.

    Attributes:
        scale: smallest and largest share of the image's area in a crop. (0.5, 1) in CBBT, CraFT
            on its small datasets and Tip-Adapter; (0.08, 1) in CoOp and ZIP.
        ratio: narrowest and widest crop, width by height, before it is made square.
        flip: mirror a view, left and right, with probability 1/2.
    """

    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False


@dataclass(frozen=True)
class View:
    """One augmented view of an image; an :class:`~llmopt.task.Image` itself.

    Attributes:
        image: the picture.
        seed: of the run.
        number: 1, 2, ... among the views of the image.
        augmentation: how it may differ.
    """

    image: Image
    seed: int
    number: int
    augmentation: Augmentation = Augmentation()

    @property
    def name(self) -> str:
        """``cat.jpg (view 3)``."""
        return f"{self.image.name} (view {self.number})"

    def key(self) -> str:
        """Content key, from the image's own, the seed, the number and the augmentation."""
        return self._digest().hex()

    def load(self) -> PillowImage.Image:
        """A crop of random area and shape, resized to a square with its longer side; mirrored."""
        from PIL import Image as Pillow

        picture = self.image.load()
        rng = np.random.default_rng(int.from_bytes(self._digest()[:16], "big"))
        left, top, width, height = _crop(rng, *picture.size, self.augmentation)
        side = max(width, height)
        view = picture.resize(
            (side, side), Pillow.Resampling.BICUBIC, (left, top, left + width, top + height)
        )
        if self.augmentation.flip and rng.random() < 0.5:
            view = view.transpose(Pillow.Transpose.FLIP_LEFT_RIGHT)
        return view

    def _digest(self) -> bytes:
        identity = f"{self.image.key()}|{self.seed}|{self.number}|{self.augmentation}"
        return hashlib.sha256(identity.encode()).digest()


def with_views(
    images: Labelled, count: int, seed: int, augmentation: Augmentation | None = None
) -> Labelled:
    """Each image followed by ``count`` augmented views of it: N * (1 + count) images.

    Features of the result, reshaped to (N, 1 + count, d), have the image itself as view 0.
    """
    how = augmentation or Augmentation()
    views: list[Image] = []
    for image in images.images:
        views += [image, *(View(image, seed, number, how) for number in range(1, count + 1))]
    return Labelled(tuple(views), np.repeat(images.labels, count + 1))


def _crop(
    rng: np.random.Generator, width: int, height: int, augmentation: Augmentation
) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random crop: area uniform, shape log-uniform."""
    narrow, wide = augmentation.ratio
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*augmentation.scale)
        ratio = np.exp(rng.uniform(np.log(narrow), np.log(wide)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
            return int(left), int(top), w, h
    # An image narrower than any crop: as much of its middle as the shapes allow.
    w = max(1, min(width, round(height * wide)))
    h = max(1, min(height, round(width / narrow)))
    return (width - w) // 2, (height - h) // 2, w, h
