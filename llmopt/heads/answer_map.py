"""From what a box says to what it means: naive Bayes on its answers, smoothed towards its word.

A box of level ``labels`` says words, perhaps ranked, perhaps others than it was asked for; some it
says of several classes, and some classes it never names. With x_a the weight of answer a for an
image (:mod:`llmopt.heads.words`; the class names come first), the head is the logarithm of how
often class k is answered so::

    h_k(x) = sum_a x_a^p log theta_ka                                                       (1)
    theta_ka = (C_ka + kappa pi_ka) / (C_k + kappa),   C_ka = sum_{i in class k} x_ia^p      (2)
    pi_ka = (1 - epsilon) [a is the name of k] + epsilon m_a                                (3)

with C_k the sum of C_ka over a, and m_a the share of answer a among all, each counted once more
than it was said. So the prior (3) is that a box means what it says, save for a slip now and then;
``kappa`` is its weight in answers, and p says how far answers after the first count. Both are
chosen on left-out images, as is the strength; without any, or where it does not help, the answers
stay as they are.

Leaving image i out takes it out of C and m, exactly.

Queries: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from llmopt.heads.base import Choices, Config, Head, Shots, Tensors, one_hot
from llmopt.settings import Settings
from llmopt.task import FloatArray
from llmopt.vision.base import Access

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AnswerMapSettings(Settings):
    """Settings of the map.

    Attributes:
        kappas: answers that the prior counts for, to choose from.
        powers: p of equation (1), to choose from.
        slip: epsilon of equation (3).
    """

    kappas: Choices = (3.0, 1.0, 10.0)
    powers: Choices = (2.0, 1.0)
    slip: Annotated[float, Interval(gt=0, lt=1)] = 0.3


class AnswerMap(Head[AnswerMapSettings]):
    """Naive Bayes from answers to classes."""

    name = "map"
    level = Access.LABELS
    Settings = AnswerMapSettings
    recipe = (
        "# The head adds up what each answer says of the classes.",
        "h = head.weights @ maximum(x, 0) ** head.power",
    )

    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """Equation (1) for each image without itself, for each smoothing and power."""
        for power in self.settings.powers:
            weights, said = self._counts(shots, power)
            counts = one_hot(shots.labels, shots.classes).astype(np.float64).T @ weights
            for kappa in self.settings.kappas:
                correction = np.empty_like(shots.plain)
                for i, label in enumerate(shots.labels):
                    heard = np.flatnonzero(said[i] + weights[i])
                    own, left = counts[:, heard], counts.sum(axis=1)
                    own[label] -= weights[i, heard]
                    left[label] -= weights[i].sum()
                    theta = self._theta(own, left, heard, counts.shape[1], kappa)
                    correction[i] = np.log(theta) @ said[i, heard]
                yield {"kappa": kappa, "power": power}, correction

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """The logarithms of equation (2)."""
        weights, _ = self._counts(shots, config["power"])
        counts = one_hot(shots.labels, shots.classes).astype(np.float64).T @ weights
        every = np.arange(counts.shape[1])
        theta = self._theta(counts, counts.sum(axis=1), every, len(every), config["kappa"])
        return {
            "weights": np.log(theta).astype(np.float32),
            "power": np.array([config["power"]], dtype=np.float32),
        }

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """``h`` of equation (1), (N, K)."""
        assert features is not None
        said = np.maximum(features, 0) ** tensors["power"]
        return np.asarray(said @ tensors["weights"].T, dtype=np.float32)

    def strengths(self, base: FloatArray, correction: FloatArray) -> npt.NDArray[np.float64]:
        """From 1 to 16: (1) is in nats, and a sure answer has a base score of 8."""
        return 2.0 ** np.arange(5.0)

    def _counts(self, shots: Shots, power: float) -> tuple[Float64Array, Float64Array]:
        """``x^p`` of each image, (N, A): the mean of its views, and of the image as it is."""
        said = np.maximum(shots.embedded()[0].astype(np.float64), 0) ** power
        return said.mean(axis=1), said[:, 0]

    def _theta(
        self,
        counts: Float64Array,
        totals: Float64Array,
        heard: npt.NDArray[np.int64],
        answers: int,
        kappa: float,
    ) -> Float64Array:
        """Equation (2) for the answers ``heard``, given their (K, H) counts and the (K,) totals."""
        share = (counts.sum(axis=0) + 1) / (np.maximum(totals, 0).sum() + answers)
        name = heard == np.arange(len(counts))[:, None]
        prior = (1 - self.settings.slip) * name + self.settings.slip * share  # (3)
        theta: Float64Array = (np.maximum(counts, 0) + kappa * prior) / (
            np.maximum(totals, 0)[:, None] + kappa
        )
        return theta
