"""The factor from cosine to logit of a box that tells none, from the few shots.

It changes no ranking of classes by one template. It decides how sure a box counts as: what a
template's likelihood is, how templates add up, and how a head weighs against them.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from llmopt.task import FloatArray, IntArray

USUAL: Final = 100.0
"""CLIP's, which the fit is drawn towards: as strongly as one image speaks, a factor e away."""

_GRID: Final = 2.0 ** np.arange(0, 12.01, 0.05)


def fitted_scale(cosines: FloatArray, labels: IntArray) -> float:
    """The likeliest factor, rounded to three digits, so that every machine finds the same.

    Args:
        cosines: (N, K) of images and classes.
        labels: (N,) classes of the images.
    """
    wide = np.asarray(cosines, dtype=np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    own = wide[np.arange(len(labels)), labels].sum()
    worth = [
        scale * own - np.log(np.exp(scale * wide).sum(axis=1)).sum() - _distance(scale)
        for scale in _GRID
    ]
    return float(f"{_GRID[int(np.argmax(worth))]:.3g}")


def _distance(scale: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.log(scale / USUAL) ** 2 / 2
