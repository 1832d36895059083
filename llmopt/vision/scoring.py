"""Scores of many templates on many images, in bounded memory.

A search does not want (T, N, K) logits but a number or two for each template and image. Taken block
by block, 1,000 classes on tens of thousands of images never exist at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llmopt.stats import log_likelihoods
from llmopt.task import FloatArray, IntArray

Array = npt.NDArray[Any]

Reduction = Callable[[FloatArray, IntArray], Array]
"""Of (T, n, K) logits and (n,) true classes: (T, n, ...), image by image."""

BLOCK_BYTES: Final = 4 * 2**20
"""Of logits held at once while they are being reduced, which takes seven times as much."""


def accuracy(logits: FloatArray, labels: IntArray) -> Array:
    """Whether the true class has the largest logit."""
    return np.asarray(logits.argmax(axis=-1) == labels)


def logprob(logits: FloatArray, labels: IntArray) -> Array:
    """The true class's log-probability, nats."""
    return log_likelihoods(logits, labels)


def margin(logits: FloatArray, labels: IntArray) -> Array:
    """The true class's logit less the largest other one."""
    places = np.broadcast_to(labels[:, None], (*logits.shape[:-1], 1))
    others = logits.copy()
    np.put_along_axis(others, places, -np.inf, axis=-1)
    return np.asarray(np.take_along_axis(logits, places, axis=-1)[..., 0] - others.max(axis=-1))


def reduced(
    logits: Callable[[slice, slice], FloatArray],
    templates: int,
    labels: IntArray,
    classes: int,
    reduce: Reduction,
) -> Array:
    """What ``reduce`` makes of all logits: (T, N, ...).

    Args:
        logits: (t, n, K) of a range of templates and a range of images.
        templates: T.
        labels: (N,) true classes.
        classes: K.
        reduce: see :data:`Reduction`.
    """
    count = max(1, BLOCK_BYTES // (4 * classes))  # template-image pairs a block
    rows = []
    for some in _ranges(templates, max(1, count // max(1, len(labels)))):
        blocks = [
            reduce(logits(some, images), labels[images]) for images in _ranges(len(labels), count)
        ]
        rows.append(np.concatenate(blocks, axis=1))
    return np.concatenate(rows)


def _ranges(stop: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, stop)) for start in range(0, stop, step))
