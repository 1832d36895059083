"""A soft prompt that moves along estimated gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llmopt.search.soft.machinery.torch_state import pack, unpack

Array = npt.NDArray[np.float64]


class Point:
    """The trained numbers w: the context itself, or its coordinates on a few axes.

    Args:
        start: (m, e) context.
        axes: (r, e) orthonormal axes that each token may move along; None is every direction.
        rate, decay: Adam's.
    """

    def __init__(
        self, start: torch.Tensor, axes: torch.Tensor | None, rate: float, decay: float
    ) -> None:
        self.axes = axes
        w = start if axes is None else start @ axes.T
        # What the axes leave of the start stays as it is.
        self.rest = None if axes is None else start - w @ axes
        self.w = w.clone().requires_grad_()
        self.adam = torch.optim.Adam([self.w], lr=rate, weight_decay=decay)

    def contexts(self, moves: Array | None = None) -> torch.Tensor:
        """(m, e) context, or (..., m, e) contexts after (..., D) moves of w."""
        w = self.w.detach()
        if moves is not None:
            w = w + torch.from_numpy(moves.astype(np.float32)).reshape(*moves.shape[:-1], *w.shape)
        return w.clone() if self.axes is None or self.rest is None else self.rest + w @ self.axes

    def descend(self, gradient: Array, rate: float, clip: float) -> None:
        """One step of Adam along a (D,) gradient, its norm clipped."""
        self.w.grad = torch.from_numpy(gradient.astype(np.float32)).reshape(self.w.shape)
        torch.nn.utils.clip_grad_norm_([self.w], clip)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """For a checkpoint."""
        return {"w": self.w.detach().numpy().copy(), **pack(self.adam)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        with torch.no_grad():
            self.w.copy_(torch.from_numpy(state["w"]))
        unpack(self.adam, state)
