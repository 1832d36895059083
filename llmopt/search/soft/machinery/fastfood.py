"""Fastfood (Le et al., ICML 2013): a random linear map in O(n log n) time and O(n) memory."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch


def walsh_hadamard(x: torch.Tensor) -> torch.Tensor:
    """``H x`` along the last axis, whose length must be a power of two; H has entries +1 and -1."""
    length = x.shape[-1]
    half = 1
    y = x
    while half < length:
        pairs = y.reshape(*x.shape[:-1], length // (2 * half), 2, half)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        y = torch.stack([a + b, a - b], dim=-2)
        half *= 2
    return y.reshape(x.shape)


class Fastfood:
    """m independent maps ``R^q -> R^e``, one a row, applied together.

    Each pads its row with zeros to L, the least power of two that holds both, and computes

        ``H G P H B x / (sqrt(L * sum G^2) * sqrt(e / L))``

    with random signs B, a permutation P, a Gaussian diagonal G and Walsh-Hadamard transforms H, cut
    to the first e entries. The divisor keeps the norm of x on average.

    Args:
        rng: draws B, P and G.
        rows: m.
        inputs: q.
        outputs: e.
    """

    def __init__(self, rng: np.random.Generator, rows: int, inputs: int, outputs: int) -> None:
        self.outputs = outputs
        self.length = 1 << (max(inputs, outputs) - 1).bit_length()
        shape = (rows, self.length)
        self.signs = _float(rng.choice([-1.0, 1.0], shape))
        self.order = torch.from_numpy(
            rng.permuted(np.tile(np.arange(self.length), (rows, 1)), axis=1)
        )
        gauss = rng.normal(size=shape)
        keep_norm = np.sqrt(self.length * (gauss**2).sum(axis=1, keepdims=True))
        self.gauss = _float(gauss / (keep_norm * math.sqrt(outputs / self.length)))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(..., m, e) images of (..., m, q)."""
        padded = torch.nn.functional.pad(x, (0, self.length - x.shape[-1]))
        mixed = walsh_hadamard(padded * self.signs)
        permuted = mixed.gather(-1, self.order.expand_as(mixed))
        return walsh_hadamard(permuted * self.gauss)[..., : self.outputs]


def _float(array: npt.NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float32))
