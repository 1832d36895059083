"""CLIP-Adapter (Gao et al., IJCV 2024): a bottleneck that moves the image features.

    x' = normalise(rho A(x) + (1 - rho) x),   A(x) = relu(W2 relu(W1 x))                   (1)
    h(x) = scale (x' - x) . t                                                              (2)

with W1 of d/4 x d, W2 of d x d/4, no biases, rho = 0.2; CBBT trains the same adapter beside its
prompt.

Two starts:

``zero`` (default)  W2 starts at zero and A has no outer relu (whose slope at zero is zero), so that
    training starts at zero-shot.
``released``  PyTorch's default initial values for both layers, with the outer relu.

Queries: none beyond the features of the views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import nn
from torch.nn import functional as F

from llmopt.heads.base import Config, Shots, Tensors, temperature
from llmopt.heads.training import TrainedHead, Training, uniform
from llmopt.task import FloatArray


@dataclass(frozen=True)
class AdapterSettings(Training):
    """Settings of the adapter.

    Attributes:
        ratio: rho of equation (1).
        reduction: how many times narrower the bottleneck is than the features.
        start: ``zero`` or ``released``.
    """

    ratio: Annotated[float, Interval(ge=0, le=1)] = 0.2
    reduction: Annotated[int, Ge(1)] = 4
    start: Literal["zero", "released"] = "zero"


class Bottleneck(nn.Module):
    """Equation (1).

    Args:
        width: d.
        hidden: rows of W1.
        ratio: rho.
        generator: of the initial values.
        start: ``zero`` or ``released``.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        ratio: float,
        generator: torch.Generator,
        start: Literal["zero", "released"] = "zero",
    ) -> None:
        super().__init__()
        self.w1 = nn.Parameter(uniform((hidden, width), width, generator))
        self.w2 = nn.Parameter(uniform((width, hidden), hidden, generator))
        if start == "zero":
            nn.init.zeros_(self.w2)
        self.ratio = ratio
        self.outer = start == "released"

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Moved features, (..., d), L2-normalised."""
        moved = F.linear(F.relu(F.linear(features, self.w1)), self.w2)
        if self.outer:
            moved = F.relu(moved)
        return F.normalize(self.ratio * moved + (1 - self.ratio) * features, dim=-1)


class Adapter(TrainedHead[AdapterSettings, Bottleneck]):
    """CLIP-Adapter on image features."""

    name = "adapter"
    Settings = AdapterSettings
    recipe = (
        "# The head moves the image feature by a bottleneck, whose last relu is there if",
        "# head.outer is 1, and compares the move with the class embeddings, scaled, in head.text.",
        "a = head.w2 @ maximum(head.w1 @ x, 0)",
        "a = maximum(a, 0) if head.outer[0] else a",
        "moved = head.ratio * a + (1 - head.ratio) * x",
        "moved = moved / norm(moved)",
        "h = head.text @ (moved - x)",
    )

    def options(self, shots: Shots, seed: int) -> Config:
        """The temperature at which the loss sees the scores."""
        return {"temperature": temperature(shots.plain, shots.labels)}

    def build(self, shots: Shots, options: Config, generator: torch.Generator) -> Bottleneck:
        """The adapter at its start."""
        features, text = shots.embedded()
        width, settings = features.shape[-1], self.settings
        hidden = max(1, width // settings.reduction)
        module = Bottleneck(width, hidden, settings.ratio, generator, settings.start)
        module.register_buffer("text", torch.from_numpy(text) * shots.scale)
        module.register_buffer("temperature", torch.tensor([options["temperature"]]))
        return module

    def loss(
        self,
        module: Bottleneck,
        base: torch.Tensor,
        features: torch.Tensor | None,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Cross-entropy of the corrected scores."""
        assert features is not None
        text, divisor = module.get_buffer("text"), module.get_buffer("temperature")
        moved = base + (module(features) - features) @ text.T
        return F.cross_entropy(moved / divisor, labels)

    def arrays(self, module: Bottleneck) -> Tensors:
        """Weights, ratio, whether the outer relu is there, and the scaled class texts."""
        return {
            "w1": module.w1.detach().numpy().copy(),
            "w2": module.w2.detach().numpy().copy(),
            "ratio": np.array([module.ratio], dtype=np.float32),
            "outer": np.array([module.outer], dtype=np.float32),
            "text": module.get_buffer("text").numpy().copy(),
        }

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """``h`` of equation (2), (N, K)."""
        assert features is not None
        moved = np.maximum(features @ tensors["w1"].T, 0) @ tensors["w2"].T
        if tensors["outer"][0]:
            moved = np.maximum(moved, 0)
        ratio = tensors["ratio"]
        mixed = ratio * moved + (1 - ratio) * features
        mixed /= np.linalg.norm(mixed, axis=-1, keepdims=True)
        return np.asarray((mixed - features) @ tensors["text"].T, dtype=np.float32)
