"""The class texts as images: pseudo-shots, where a class has few or no real ones.

Text and image embeddings lie apart (the modality gap), so class texts are first moved to where the
images are: ``t'_k = t_k - mean(t) + mean(x)``. They count as ``kappa`` images beside the n shots of
a class (cross-modal adaptation: Lin et al., CVPR 2023), that is with the *share*
``kappa / (kappa + n)`` of its mean::

    mu_k = (1 - share) mean of the class's images + share t'_k                             (1)

The share is one number for all classes, from the average n, and stays when an image is left out:
otherwise the class that has just lost an image would be known by its greater share of text. Only a
class without images is its text alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmopt.heads.base import Shots, one_hot
from llmopt.task import IntArray

Float64Array = npt.NDArray[np.float64]


def text_share(shots: Shots, kappa: float) -> float:
    """The share of a text that counts as ``kappa`` images in a class of average size."""
    return kappa / (kappa + shots.average)


def shares(counts: Float64Array, share: float) -> Float64Array:
    """(K,) share of the text in each class, given its number of images."""
    return np.where(counts > 0, share, 1.0)


class ClassMeans:
    """Class means of images and pseudo-shots, and what they are when an image leaves.

    Args:
        images: (N, d) one vector an image (the mean of its views).
        labels: (N,).
        text: (K, d) class embeddings.
        share: of the text in a class that has images.
    """

    def __init__(
        self, images: Float64Array, labels: IntArray, text: Float64Array, share: float
    ) -> None:
        self._x = images
        self._labels = labels
        self._share = share
        self._offsets = text - text.mean(axis=0)
        member = one_hot(labels, len(text)).astype(np.float64)
        self.counts = member.sum(axis=0)
        self._sums = member.T @ self._x
        self._total = self._x.sum(axis=0)

    def all(self) -> Float64Array:
        """(K, d) means of all images."""
        return self._means(self._total / len(self._x), self._sums, self.counts)

    def without(self, i: int) -> Float64Array:
        """(K, d) means without image i, which leaves its class and the centre of the images."""
        label = self._labels[i]
        sums, counts = self._sums.copy(), self.counts.copy()
        sums[label] -= self._x[i]
        counts[label] -= 1
        centre = (self._total - self._x[i]) / max(len(self._x) - 1, 1)
        return self._means(centre, sums, counts)

    def _means(
        self, centre: Float64Array, sums: Float64Array, counts: Float64Array
    ) -> Float64Array:
        share = shares(counts, self._share)[:, None]
        own = sums / np.maximum(counts, 1)[:, None]
        total: Float64Array = (1 - share) * own + share * (self._offsets + centre)  # (1)
        return total
