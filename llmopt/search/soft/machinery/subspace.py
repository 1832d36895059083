"""Low-dimensional coordinates for a soft prompt: ``p = p0 + reshape(A z, (m, e))``.

The projection A is random and fixed. How large ``A z`` is at the start decides whether a search
explores around its starting prompt or forgets it. Black-Box Tuning's scale rule (Sun et al., ICML
2022) makes the first generation's ``A z`` as large, entry by entry, as a word's embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from llmopt.errors import ConfigError
from llmopt.resources import read_lines

if TYPE_CHECKING:
    from llmopt.vision.metered import MeteredBox


@dataclass(frozen=True, eq=False)
class Subspace:
    """Contexts within reach of a start.

    Attributes:
        origin: (m, e) float32 context at z = 0.
        projection: (m * e, D) float32.
    """

    origin: torch.Tensor
    projection: torch.Tensor

    @property
    def dim(self) -> int:
        """Number of coordinates D."""
        return self.projection.shape[1]

    def contexts(self, z: npt.NDArray[np.float64]) -> torch.Tensor:
        """(B, m, e) contexts of (B, D) coordinates, or (m, e) of (D,)."""
        moved = torch.from_numpy(z.astype(np.float32)) @ self.projection.T
        return self.origin + moved.reshape(*z.shape[:-1], *self.origin.shape)


def word_axes(box: MeteredBox, rank: int) -> torch.Tensor:
    """(rank, e) principal axes of the vectors of everyday words (look-ups, not queries).

    (CBBT takes them of the whole token table, which a box does not show.)
    """
    words = dict.fromkeys(" ".join(read_lines("templates/captions.txt")).replace("{}", "").split())
    vectors = np.unique(np.concatenate([box.embed_text(word) for word in words]), axis=0)
    width = vectors.shape[1]
    if rank > min(vectors.shape):
        raise ConfigError(f"setting rank={rank} must be 0 to {min(vectors.shape)} with this model")
    _, _, axes = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    return torch.from_numpy(axes[:rank].reshape(rank, width).astype(np.float32))


def bbt_std(embedding_std: float, dim: int, sigma: float, alpha: float = 1.0) -> float:
    """Standard deviation of A's entries after BBT's rule.

    Then ``A z`` has standard deviation ``alpha * embedding_std`` per entry for z ~ N(0, sigma^2 I).
    """
    return alpha * embedding_std / (math.sqrt(dim) * sigma)


def gaussian(rng: np.random.Generator, size: int, dim: int, std: float) -> torch.Tensor:
    """(size, dim) projection with independent N(0, std^2) entries."""
    return torch.from_numpy(rng.normal(0.0, std, (size, dim)).astype(np.float32))


def orthonormal(
    rng: np.random.Generator, size: int, dim: int, embedding_std: float, sigma: float, alpha: float
) -> torch.Tensor:
    """(size, dim) projection with orthogonal columns of one length, scaled after BBT's rule.

    No two coordinates move the prompt the same way, and equal steps in z are equal steps in p.
    """
    q, _ = np.linalg.qr(rng.normal(size=(size, dim)))
    scale = bbt_std(embedding_std, dim, sigma, alpha) * math.sqrt(size)
    return torch.from_numpy((scale * q).astype(np.float32))
