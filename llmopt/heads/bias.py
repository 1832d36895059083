"""A temperature and one number a class.

Zero-shot scores favour some classes whatever the image. The bias gives each class the share of the
predictions that it has of the labels::

    b_k = log (n_k + kappa) - log (sum_i p_ik + kappa),   p = softmax(s / T)

which is one step of iterative proportional fitting; ``kappa`` images that agree with the
scores hold it back. Leaving image i out takes it out of both sums, exactly.

Queries: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from llmopt.heads.base import TEMPERATURES, Config, Head, Shots, Tensors, one_hot
from llmopt.settings import Settings
from llmopt.task import FloatArray


@dataclass(frozen=True)
class BiasSettings(Settings):
    """Settings of the bias.

    Attributes:
        kappa: weight of the prior, in images a class.
    """

    kappa: Annotated[float, Ge(0)] = 1.0


class Bias(Head[BiasSettings]):
    """A temperature and a number a class, added to the scores."""

    name = "bias"
    looks_at_features = False
    Settings = BiasSettings
    recipe = (
        "# The head adds one number a class.",
        "h = head.bias",
    )

    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """The bias without image i, for each temperature of the predictions."""
        for temperature in TEMPERATURES[::2]:
            predicted, seen = self._counts(shots, temperature)
            left = self._bias(seen.sum(axis=0) - seen, predicted.sum(axis=0) - predicted)
            yield {"temperature": float(temperature)}, left

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """The bias of all images."""
        predicted, seen = self._counts(shots, config["temperature"])
        return {"bias": self._bias(seen.sum(axis=0), predicted.sum(axis=0))}

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """The same bias for every image."""
        return np.broadcast_to(tensors["bias"], base.shape)

    def _counts(self, shots: Shots, temperature: float) -> tuple[FloatArray, FloatArray]:
        scaled = shots.plain / temperature
        odds = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return odds / odds.sum(axis=-1, keepdims=True), one_hot(shots.labels, shots.classes)

    def _bias(self, seen: FloatArray, predicted: FloatArray) -> FloatArray:
        # Sums of differences may end a rounding error below 0.
        kappa = self.settings.kappa
        ratio = (np.maximum(seen, 0) + kappa) / (np.maximum(predicted, 0) + kappa)
        return np.log(ratio).astype(np.float32)

    def strengths(self, base: FloatArray, correction: FloatArray) -> npt.NDArray[np.float64]:
        """Around the natural strength, which is the temperature of the predictions."""
        return 2.0 ** np.arange(-2.0, 5.0)
