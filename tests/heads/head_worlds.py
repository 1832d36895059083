"""Small worlds with the geometry of CLIP's: classes in a cone, texts in another, unequal noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmopt.heads.base import Shots


def world(
    classes: int = 4,
    shots: int = 3,
    views: int = 3,
    width: int = 10,
    *,
    seed: int = 0,
    noise: float = 0.6,
    text_noise: float = 0.5,
    scale: float = 15.0,
    test: int = 20,
) -> tuple[Shots, Shots]:
    """Training shots and ``test`` test images a class."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    cone = rng.normal(size=width)
    uneven = np.sqrt(np.linspace(4.0, 0.1, width))
    text = unit(centres + text_noise * rng.normal(size=centres.shape) + rng.normal(size=width))

    def draw(count: int) -> Shots:
        labels = np.repeat(np.arange(classes), count)
        images = centres[labels] + cone + noise * uneven * rng.normal(size=(len(labels), width))
        seen = images[:, None] + 0.2 * rng.normal(size=(len(labels), views, width))
        features = unit(seen)
        return Shots(scale * features @ text.T, labels, features, text, scale)

    return draw(shots), draw(test)


def unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)
