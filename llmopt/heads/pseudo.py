"""The class texts as images: pseudo-shots, where a class has few or no real ones.

Text and image embeddings lie apart (the modality gap), so class texts are first moved to where the
images are: ``t'_k = t_k - mean(t) + mean(x)``. Counted as ``kappa`` images of class k beside its
real ones, they give every class a mean, even the class of a single image that is being left out
(the cross-modal idea of section 7.6 of the method notes).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmopt.heads.base import one_hot
from llmopt.task import IntArray

Float64Array = npt.NDArray[np.float64]

# With no images left and no weight on the text, the text alone decides: the limit of small kappa.
_LEAST = 1e-6


class ClassMeans:
    """Class means of images and pseudo-shots, and what they are when an image leaves.

    Args:
        images: (N, d) one vector an image (the mean of its views).
        labels: (N,).
        text: (K, d) class embeddings.
        kappa: images that a class text counts for.
    """

    def __init__(
        self, images: npt.NDArray[np.floating], labels: IntArray, text: Float64Array, kappa: float
    ) -> None:
        self._x = np.asarray(images, dtype=np.float64)
        self._labels = labels
        self._kappa = max(kappa, _LEAST)
        self._offsets = text - text.mean(axis=0)
        member = one_hot(labels, len(text)).astype(np.float64)
        self.counts = member.sum(axis=0)
        self.sums = member.T @ self._x
        self.centre = self._x.mean(axis=0)

    def all(self) -> Float64Array:
        """(K, d) means of all images."""
        return self._means(self.centre, self.sums, self.counts)

    def without(self, i: int) -> Float64Array:
        """(K, d) means without image i, which leaves its class and the centre of the images."""
        n, label = len(self._x), self._labels[i]
        sums, counts = self.sums.copy(), self.counts.copy()
        sums[label] -= self._x[i]
        counts[label] -= 1
        centre = (n * self.centre - self._x[i]) / (n - 1) if n > 1 else np.zeros_like(self.centre)
        return self._means(centre, sums, counts)

    def _means(
        self, centre: Float64Array, sums: Float64Array, counts: Float64Array
    ) -> Float64Array:
        pseudo = self._offsets + centre
        total: Float64Array = (self._kappa * pseudo + sums) / (self._kappa + counts)[:, None]
        return total
