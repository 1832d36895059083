"""A head with what it has learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmopt.heads import HEADS
from llmopt.heads.base import Config, Tensors
from llmopt.task import FloatArray


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head ready for use.

    Attributes:
        name: its kind.
        tensors: its arrays.
        config: the candidate it is, for people.
        alpha: strength of the correction.
        temperature: the scores are divided by it.
    """

    name: str
    tensors: Tensors
    config: Config
    alpha: float = 1.0
    temperature: float = 1.0

    @property
    def looks_at_features(self) -> bool:
        """Whether :meth:`scores` needs image features."""
        return HEADS.get(self.name).looks_at_features

    def scores(self, base: FloatArray, features: FloatArray | None = None) -> FloatArray:
        """(N, K) float32 scores from (N, K) base scores and, for some heads, (N, d) features."""
        correction = HEADS.get(self.name).correct(self.tensors, base, features)
        return np.asarray((base + self.alpha * correction) / self.temperature, dtype=np.float32)

    def scaled(self, factor: float) -> FittedHead:
        """The same head for base scores that are so many times smaller."""
        return replace(self, alpha=self.alpha / factor, temperature=self.temperature / factor)

    def save(self) -> tuple[Tensors, dict[str, Any]]:
        """Arrays for safetensors, and the rest for JSON."""
        rest = {"name": self.name, "config": self.config}
        # safetensors writes memory as it lies, whatever the strides say.
        arrays = {name: np.ascontiguousarray(array) for name, array in self.tensors.items()}
        return arrays, {**rest, "alpha": self.alpha, "temperature": self.temperature}

    @classmethod
    def load(cls, tensors: Mapping[str, FloatArray], config: Mapping[str, Any]) -> FittedHead:
        """The head that :meth:`save` took apart."""
        return cls(
            config["name"],
            dict(tensors),
            dict(config["config"]),
            float(config["alpha"]),
            float(config["temperature"]),
        )
