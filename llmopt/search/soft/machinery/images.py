"""The few shots as features, whole or in augmented batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from llmopt.data.augment import Augmentation, View
from llmopt.search.soft.machinery.schedules import per_epoch
from llmopt.task import FloatArray, Labelled

if TYPE_CHECKING:
    from llmopt.search.base import Search
    from llmopt.vision.metered import MeteredBox


@dataclass(frozen=True, eq=False)
class Encoded:
    """Labelled images as features, paid for, that soft prompts are scored on.

    Attributes:
        features: (N, d) float32, L2-normalised.
        labels: (N,) int64.
    """

    features: FloatArray
    labels: torch.Tensor

    @staticmethod
    def of(box: MeteredBox, images: Labelled) -> Encoded:
        """Encode images; each is paid for once in a run."""
        return Encoded(box.image_features(images), torch.from_numpy(images.labels))

    @staticmethod
    def passing(box: MeteredBox, images: Labelled) -> Encoded:
        """Encode images that are not met again, such as fresh views; they are kept nowhere."""
        return Encoded(box.passing_features(images), torch.from_numpy(images.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Encoded:
        index = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        return Encoded(self.features[rows], self.labels[index])

    @staticmethod
    def join(parts: Sequence[Encoded]) -> Encoded:
        """One after the other."""
        features = np.concatenate([part.features for part in parts])
        return Encoded(features, torch.cat([part.labels for part in parts]))


def view(images: Labelled, number: int, seed: int, how: Augmentation) -> Labelled:
    """Augmented view ``number`` of every image, as new images to be encoded."""
    views = tuple(View(image, seed, number, how) for image in images.images)
    return Labelled(views, images.labels)


def fresh_batch(search: Search, step: int, size: int, how: Augmentation) -> Encoded:
    """Training images of step ``step`` of shuffled passes, augmented anew in each pass."""
    train = search.task.train
    epoch, place = divmod(step, per_epoch(len(train), size))
    order = search.rng("epoch", epoch).permutation(len(train))
    rows = order[place * size : (place + 1) * size]
    return Encoded.passing(search.box, view(train.subset(rows), epoch + 1, search.seed, how))
