"""Tip-Adapter's cache of the training images (Zhang et al., ECCV 2022), without training.

An image is compared with each training image; near ones vote for their label::

    h_k(x) = (1 - share) mean_{i in class k} a(x, f_i) + share a(x, t'_k)                   (1)
    a(x, f) = exp(-beta (1 - x . f))                                                       (2)

The keys f_i are the views of image i averaged and normalised. Two departures from the paper keep
leave-one-out fair. Votes are averaged in a class, not summed: the same up to a factor when classes
are of one size, but a class that has just lost an image is not outvoted for it. And the class text
t'_k votes too, with the share of ``kappa`` images (:mod:`llmopt.heads.pseudo`). beta and alpha are
chosen on left-out images; the released code searches them on a large validation split (on ImageNet
the test set).

Leaving image i out drops its row of the cache, and with it all its views.

Queries: none beyond the features of the views.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from llmopt.heads.base import Choices, Config, Head, Prior, Shots, Tensors, one_hot, unit_spread
from llmopt.heads.pseudo import shares, text_share
from llmopt.settings import Settings
from llmopt.task import FloatArray

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TipSettings(Settings):
    """Settings of the cache.

    Attributes:
        betas: sharpness of the comparison to choose from (1 in the paper, searched up to 50).
        kappa: images that a class text counts for (0 in the paper).
    """

    betas: Choices = (1.0, 3.0, 10.0, 30.0)
    kappa: Annotated[float, Ge(0)] = 0.3


class Tip(Head[TipSettings]):
    """A training-free cache on image features."""

    name = "tip"
    prior = Prior(octaves=-1.5, growth=0.5, odds=-6.0)
    Settings = TipSettings
    recipe = (
        "# The head compares the image with training images and class embeddings, which vote.",
        "h = exp(-head.beta * (1 - head.keys @ x)) @ head.values",
    )

    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """Equation (1) for each image without its own row, for each beta."""
        x = shots.embedded()[0][:, 0].astype(np.float64)
        keys, values, offsets = _cache(shots)
        share = text_share(shots, self.settings.kappa)
        votes = values.sum(axis=0) - values
        weight = shares(votes, share)
        # Without image i the class texts move, for they follow the mean of the images.
        centres = (keys.sum(axis=0) - keys) / max(len(shots) - 1, 1)
        text = x @ offsets.T + (x * centres).sum(axis=1, keepdims=True)
        near = x @ keys.T
        for beta in self.settings.betas:
            similar = np.exp(-beta * (1 - near))
            np.fill_diagonal(similar, 0.0)
            mean = similar @ values / np.maximum(votes, 1)
            correction = (1 - weight) * mean + weight * np.exp(-beta * (1 - text))
            yield {"beta": beta, "share": share}, correction.astype(np.float32)

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """Keys and weights of all images and class texts."""
        keys, values, offsets = _cache(shots)
        votes = values.sum(axis=0)
        share = shares(votes, config["share"])
        means = (1 - share) * values / np.maximum(votes, 1)
        return {
            "keys": np.vstack([keys, offsets + keys.mean(axis=0)]).astype(np.float32),
            "values": np.vstack([means, np.diag(share)]).astype(np.float32),
            "beta": np.array([config["beta"]], dtype=np.float32),
        }

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """Equation (1), the texts as further keys."""
        assert features is not None
        similar = np.exp(-tensors["beta"] * (1 - features @ tensors["keys"].T))
        return np.asarray(similar @ tensors["values"], dtype=np.float32)

    def unit(self, correction: FloatArray, temperature: float) -> float:
        """A spread over the classes of one nat."""
        return temperature * unit_spread(correction)


def _cache(shots: Shots) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Keys (N, d), labels (N, K) and the class texts about their mean, (K, d)."""
    features, text = shots.embedded()
    keys = features.mean(axis=1, dtype=np.float64)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    offsets = text.astype(np.float64) - text.mean(axis=0, dtype=np.float64)
    return keys, one_hot(shots.labels, shots.classes).astype(np.float64), offsets
