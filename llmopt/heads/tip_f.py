"""Tip-Adapter-F (Zhang et al., ECCV 2022): Tip-Adapter's cache with trained keys.

The keys start at the training-free cache of :mod:`llmopt.heads.tip`, with the beta and the alpha
chosen there, and are trained by the cross-entropy of the blended scores (AdamW, lr 1e-3, eps 1e-4,
batch 256; the paper trains 20 epochs, 100 on EuroSAT, and its released code keeps the epoch that is
best on the test set; here the number of steps is chosen on left-out images).

Queries: none beyond the features of the views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import nn
from torch.nn import functional as F

from llmopt.heads.base import Choices, Config, Shots, Tensors
from llmopt.heads.select import best
from llmopt.heads.tip import Tip, TipSettings
from llmopt.heads.training import TrainedHead, Training
from llmopt.task import FloatArray


@dataclass(frozen=True)
class TipFSettings(Training):
    """Settings of the trained cache.

    Attributes:
        betas, kappa: as in :class:`llmopt.heads.tip.TipSettings`.
    """

    eps: Annotated[float, Gt(0)] = 1e-4
    betas: Choices = TipSettings.betas
    kappa: Annotated[float, Ge(0)] = TipSettings.kappa


class Cache(nn.Module):
    """``alpha exp(-beta (1 - x F')) V``, the keys F free."""

    def __init__(self, tensors: Tensors, alpha: float, temperature: float) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.from_numpy(tensors["keys"]))
        self.values = torch.from_numpy(tensors["values"] * np.float32(alpha))
        self.beta = torch.from_numpy(tensors["beta"])
        self.temperature = temperature

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """What the cache adds to the scores, (B, K)."""
        return torch.exp(-self.beta * (1 - features @ self.keys.T)) @ self.values


class TipF(TrainedHead[TipFSettings, Cache]):
    """A cache on image features with trained keys."""

    name = "tip-f"
    Settings = TipFSettings
    recipe = (
        "# The head compares the image with keys that began as training images, and which vote.",
        "h = exp(-head.beta * (1 - head.keys @ x)) @ head.values",
    )

    def options(self, shots: Shots, seed: int) -> Config:
        """beta, alpha and temperature of the training-free cache."""
        found = best(self._tip(), shots, seed, views=(shots.views,))
        return {**found.config, "alpha": found.alpha, "temperature": found.temperature}

    def build(self, shots: Shots, options: Config, generator: torch.Generator) -> Cache:
        """The training-free cache."""
        tensors = self._tip().fit(shots, options, seed=0)
        return Cache(tensors, options["alpha"], options["temperature"])

    def loss(
        self,
        module: Cache,
        base: torch.Tensor,
        features: torch.Tensor | None,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-entropy of the blended scores."""
        assert features is not None
        return F.cross_entropy((base + module(features)) / module.temperature, labels)

    def arrays(self, module: Cache) -> Tensors:
        """Keys, values with alpha, beta."""
        return {
            "keys": module.keys.detach().numpy().copy(),
            "values": module.values.numpy(),
            "beta": module.beta.numpy(),
        }

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """As the training-free cache."""
        return Tip.correct(tensors, base, features)

    def _tip(self) -> Tip:
        return Tip(TipSettings(self.settings.betas, self.settings.kappa))
