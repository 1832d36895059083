"""No head: the scores as they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmopt.heads.base import Config, Head, Shots, Tensors
from llmopt.heads.fitted import FittedHead
from llmopt.settings import Settings
from llmopt.task import FloatArray


@dataclass(frozen=True)
class NoHeadSettings(Settings):
    """There is nothing to set."""


class NoHead(Head[NoHeadSettings]):
    """``h = 0``: what every other head is measured against."""

    name = "none"
    looks_at_features = False
    Settings = NoHeadSettings
    recipe = (
        "# No head: nothing is added.",
        "h = 0",
    )

    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """Its one candidate, with zeros, (N, K)."""
        yield {}, np.zeros_like(shots.plain)

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """Nothing to fit."""
        return {}

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """Zeros, (N, K)."""
        return np.zeros_like(base)

    def strengths(self, base: FloatArray, correction: FloatArray) -> npt.NDArray[np.float64]:
        """1: nothing is scaled."""
        return np.ones(1)


NONE = FittedHead("none", {}, {})
