"""The adapters that CBBT trains beside its prompt.

Both are inferred: the released code has their configuration, but not the classes themselves.

``clip`` follows CLIP-Adapter and moves the image features,

    ``x' = normalise(0.2 A(x) + 0.8 x)``,   ``A(x) = relu(W2 relu(W1 x))``,                  (2)

with Adam at the prompt's rate, from the first epoch. ``tip`` follows Tip-Adapter-F and adds to the
scores the votes of the training images,

    ``alpha exp(-beta (1 - x F')) Y``,                                                       (3)

whose keys F begin as the mean of ten augmented views of each image and are trained by AdamW (1e-3
on a cosine, weight decay 0.01, eps 1e-4); the prompt is alone for the first ten epochs. Left out is
a scale of 60 that stands in the configuration, as what it multiplies is not known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from llmopt.heads.adapter import Bottleneck
from llmopt.heads.fitted import FittedHead
from llmopt.heads.tip_f import Cache
from llmopt.search.soft.machinery.torch_state import below, pack, unpack

Arrays = dict[str, npt.NDArray[Any]]

VIEWS: Final = 10
"""Augmented views that a key of ``tip`` is the mean of."""

ALPHA: Final = {
    "caltech101": 3.0,
    "dtd": 2.0,
    "eurosat": 2.0,
    "fgvc_aircraft": 5.0,
    "oxford_flowers": 10.0,
    "stanford_cars": 3.0,
    "ucf101": 3.0,
}
"""Of (3), by data set; 1.17 elsewhere."""

BEGINS: Final = {"clip": 0, "tip": 10}
"""Epochs in which the prompt is alone."""

_RATIO: Final = 0.2
WEIGHTS: Final = "adapter."
"""What the names of its parameters begin with in a checkpoint."""

_MOMENTS: Final = "adapter-optimizer."


class FeatureAdapter(ABC):
    """A small module of image features with its optimizer.

    Attributes:
        reads_text: whether :meth:`head` needs the text features.
    """

    reads_text: ClassVar[bool]
    module: nn.Module
    optimizer: torch.optim.Optimizer

    @abstractmethod
    def __call__(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, d) features in place of these, and (B, K) or () what is added to the scores."""

    @abstractmethod
    def rate(self, epoch: int, prompts: float) -> float:
        """Its rate in an epoch in which the prompt has the rate ``prompts``."""

    @abstractmethod
    def head(self, text: torch.Tensor, scale: float) -> FittedHead:
        """What it has learned.

        Args:
            text: (K, d) features of the prompts.
            scale: of the logits.
        """

    def learn(self, loss: torch.Tensor, epoch: int, prompts: float) -> None:
        """One step down a loss."""
        self.optimizer.param_groups[0]["lr"] = self.rate(epoch, prompts)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()

    def weights(self) -> Arrays:
        """Its parameters by name."""
        named = self.module.named_parameters()
        return {name: w.detach().numpy().copy() for name, w in named}

    def state(self) -> Arrays:
        """For a checkpoint."""
        weights = {f"{WEIGHTS}{name}": array for name, array in self.weights().items()}
        return {**weights, **pack(self.optimizer, _MOMENTS)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        for name, array in below(WEIGHTS, state).items():
            self.module.get_parameter(name).data.copy_(torch.from_numpy(array))
        unpack(self.optimizer, state, _MOMENTS)


class ClipAdapter(FeatureAdapter):
    """Equation (2).

    Args:
        width: d.
        dice: of the initial weights.
        decay: L2 penalty in Adam's gradient.
    """

    reads_text = True

    def __init__(self, width: int, dice: torch.Generator, decay: float) -> None:
        self.module = Bottleneck(width, max(1, width // 4), _RATIO, dice, start="released")
        self.optimizer = torch.optim.Adam(self.module.parameters(), weight_decay=decay)

    def __call__(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Other features."""
        return self.module(features), torch.zeros(())

    def rate(self, epoch: int, prompts: float) -> float:
        """The prompt's."""
        return prompts

    def head(self, text: torch.Tensor, scale: float) -> FittedHead:
        """The head ``adapter``."""
        constants = {"ratio": np.array([_RATIO], np.float32), "outer": np.ones(1, np.float32)}
        text_array = text.numpy() * np.float32(scale)
        return FittedHead("adapter", {**self.weights(), **constants, "text": text_array}, {})


class TipAdapter(FeatureAdapter):
    """Equation (3).

    Args:
        keys: (N, d), one a training image.
        labels: (N,) int64.
        classes: K.
        alpha: of the equation.
        epochs: of the prompt.
    """

    reads_text = False

    def __init__(
        self,
        keys: npt.NDArray[np.float32],
        labels: torch.Tensor,
        classes: int,
        alpha: float,
        epochs: int,
    ) -> None:
        tensors = {
            "keys": keys,
            "values": F.one_hot(labels, classes).float().numpy(),
            "beta": np.ones(1, np.float32),
        }
        self.module: Cache = Cache(tensors, alpha, 1.0)
        self.optimizer = torch.optim.AdamW(self.module.parameters(), eps=1e-4, weight_decay=0.01)
        self._epochs = epochs

    def __call__(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same features, and votes."""
        return features, self.module(features)

    def rate(self, epoch: int, prompts: float) -> float:
        """A cosine of its own."""
        done = (epoch - BEGINS["tip"]) / (self._epochs - BEGINS["tip"])
        return 1e-3 * 0.5 * (1 + math.cos(math.pi * done))

    def head(self, text: torch.Tensor, scale: float) -> FittedHead:
        """The head ``tip-f``."""
        values, beta = self.module.values.numpy(), self.module.beta.numpy()
        return FittedHead("tip-f", {**self.weights(), "values": values, "beta": beta}, {})
