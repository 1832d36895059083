"""CraFT's prediction refinement (Wang et al., ICML 2024): a perceptron on the scores.

    h(s) = W2 relu(W1 s + b1) + b2,   s' = s + h(s)                                        (1)

It needs nothing but scores, and the same network serves two phases. With q = softmax(s) of the raw
scores, q' = softmax(s') of the refined ones and KL(target || other):

    head:    CE(s', y) + w KL(q || q')     the raw prediction is the target                 (2)
    prompt:  CE(s, y)  + w KL(q' || q)     the refined one is (as released)                 (3)

In each the target is held fixed. The paper's own equation for the prompt phase, as its reviews
quote it, has the arguments of (3) the other way round.

Two starts:

``zero`` (default)  The last layer starts at zero, so that training starts at the raw scores; inputs
    are standardised, the raw scores divided by a fitted temperature; AdamW.
``released``  PyTorch's default initial values for both layers on the scores as they are; with
    ``weight_decay=0`` this is the released code.

Queries: none beyond the scores of the views.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge
from torch import nn
from torch.nn import functional as F

from llmopt.heads.base import Config, Shots, Tensors, temperature
from llmopt.heads.training import TrainedHead, Training, uniform
from llmopt.task import FloatArray


@dataclass(frozen=True)
class ResidualSettings(Training):
    """Settings of the refinement.

    Attributes:
        hidden: width of the hidden layer (256; 512 on ImageNet).
        start: ``zero`` or ``released``.
        consistency: w of equation (2) (0 to 1 by dataset in CraFT).
    """

    hidden: Annotated[int, Ge(1)] = 256
    start: Literal["zero", "released"] = "zero"
    consistency: Annotated[float, Ge(0)] = 0.1


class Refinement(nn.Module):
    """Equation (1) with scaled inputs: ``s / T + W2 relu(W1 (s - m) / d + b1) + b2``.

    Args:
        classes: K.
        hidden: width of the hidden layer.
        generator: of the initial values.
        start: ``zero`` or ``released``.
        mean, deviation: m (K,) and d (a number), of the raw scores; 0 and 1 as released.
        temperature: T; 1 as released.
    """

    def __init__(
        self,
        classes: int,
        hidden: int,
        generator: torch.Generator,
        start: Literal["zero", "released"] = "zero",
        mean: FloatArray | None = None,
        deviation: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.w1 = nn.Parameter(uniform((hidden, classes), classes, generator))
        self.b1 = nn.Parameter(uniform((hidden,), classes, generator))
        self.w2 = nn.Parameter(uniform((classes, hidden), hidden, generator))
        self.b2 = nn.Parameter(uniform((classes,), hidden, generator))
        if start == "zero":
            nn.init.zeros_(self.w2)
            nn.init.zeros_(self.b2)
        centre = torch.zeros(classes) if mean is None else torch.from_numpy(mean)
        self.register_buffer("mean", centre)
        self.register_buffer("deviation", torch.tensor([deviation]))
        self.register_buffer("temperature", torch.tensor([temperature]))

    mean: torch.Tensor
    deviation: torch.Tensor
    temperature: torch.Tensor

    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        """Refined scores, (..., K), of raw ones."""
        inputs = (scores - self.mean) / self.deviation
        hidden = F.relu(F.linear(inputs, self.w1, self.b1))
        return scores / self.temperature + F.linear(hidden, self.w2, self.b2)

    def arrays(self) -> Tensors:
        """Parameters and constants, for safetensors."""
        return {name: value.detach().numpy().copy() for name, value in self.state_dict().items()}

    def load(self, arrays: Mapping[str, FloatArray]) -> None:
        """Take back what :meth:`arrays` gave."""
        self.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})


def kl(target: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``KL(target || other)`` of (B, K) scores, mean over B; the target carries no gradient."""
    return F.kl_div(
        other.log_softmax(dim=-1),
        target.detach().log_softmax(dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def refinement_loss(
    raw: torch.Tensor, refined: torch.Tensor, labels: torch.Tensor, weight: float
) -> torch.Tensor:
    """Equation (2), of (B, K) raw and refined scores and (B,) labels."""
    loss = F.cross_entropy(refined, labels)
    return loss + weight * kl(raw, refined) if weight else loss


class Residual(TrainedHead[ResidualSettings, Refinement]):
    """CraFT's head on the base scores."""

    name = "residual"
    looks_at_features = False
    Settings = ResidualSettings
    recipe = (
        "# The head is a perceptron with one hidden layer of the scores, standardised.",
        "hidden = maximum(head.w1 @ ((s - head.mean) / head.deviation) + head.b1, 0)",
        "h = head.temperature * (head.w2 @ hidden + head.b2)",
    )

    def options(self, shots: Shots, seed: int) -> Config:
        """The temperature of the raw scores."""
        released = self.settings.start == "released"
        return {"temperature": 1.0 if released else temperature(shots.plain, shots.labels)}

    def build(self, shots: Shots, options: Config, generator: torch.Generator) -> Refinement:
        """The network at its start."""
        plain = shots.plain
        released = self.settings.start == "released"
        return Refinement(
            shots.classes,
            self.settings.hidden,
            generator,
            self.settings.start,
            mean=None if released else plain.mean(axis=0),
            deviation=1.0 if released else max(float(plain.std(axis=1).mean()), 1e-6),
            temperature=options["temperature"],
        )

    def loss(
        self,
        module: Refinement,
        base: torch.Tensor,
        features: torch.Tensor | None,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Equation (2), at the temperature of the network."""
        raw = base / module.temperature
        return refinement_loss(raw, module(base), labels, self.settings.consistency)

    def arrays(self, module: Refinement) -> Tensors:
        """Parameters and constants."""
        return module.arrays()

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """What the network adds, in units of the raw scores."""
        inputs = (base - tensors["mean"]) / tensors["deviation"]
        hidden = np.maximum(inputs @ tensors["w1"].T + tensors["b1"], 0)
        added = hidden @ tensors["w2"].T + tensors["b2"]
        return np.asarray(added * tensors["temperature"], dtype=np.float32)
