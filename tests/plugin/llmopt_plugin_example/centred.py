"""``--head centred``: no class is favoured on average over the training images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmopt.heads.base import Config, Head, Shots, Tensors
from llmopt.task import FloatArray


@dataclass(frozen=True)
class CentredSettings:
    """``centred`` has no settings."""


class Centred(Head[CentredSettings]):
    """Takes each class's mean score away."""

    name = "centred"
    looks_at_features = False
    Settings = CentredSettings

    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """The means of the other images."""
        others = max(len(shots) - 1, 1)
        yield {}, -(shots.plain.sum(axis=0) - shots.plain) / others

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """The means of all images."""
        return {"mean": shots.plain.mean(axis=0)}

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """The same for every image."""
        return np.broadcast_to(-tensors["mean"], base.shape)
