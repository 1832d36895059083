"""Few-shot samples, image for image those of CoOp and of the papers that follow it."""

from __future__ import annotations

import random

import numpy as np

from llmopt.errors import ConfigError
from llmopt.task import FewShot, IntArray, Labelled

MAX_VAL_SHOTS = 4


def sample(train: Labelled, val: Labelled | None, shots: int, seed: int) -> tuple[FewShot, FewShot]:
    """``shots`` training and ``min(shots, 4)`` validation images of each class.

    CoOp's rule: Python's generator is seeded once; classes are visited in the order in which they
    first appear; each gives a sample without repeats, or all its images where it has no more than
    asked for. The validation sample goes on in the same stream of numbers.

    Returns:
        The training and the validation sample; the latter is empty without ``val``.

    Raises:
        ConfigError: ``shots`` is below 1.
    """
    if shots < 1:
        raise ConfigError(f"shots must be at least 1, not {shots}")
    rng = random.Random(seed)
    picked = _pick(train.labels, shots, rng)
    chosen = train.subset(picked)
    few = FewShot(chosen.images, chosen.labels)
    if val is None:
        return few, FewShot((), np.empty(0, dtype=np.int64))
    chosen = val.subset(_pick(val.labels, min(shots, MAX_VAL_SHOTS), rng))
    return few, FewShot(chosen.images, chosen.labels)


def _pick(labels: IntArray, shots: int, rng: random.Random) -> IntArray:
    """Positions of the sampled images, class after class in order of first appearance."""
    if not len(labels):
        return np.empty(0, dtype=np.int64)
    order = np.argsort(labels, kind="stable")
    present, first, counts = np.unique(labels, return_index=True, return_counts=True)
    members = dict(zip(present.tolist(), np.split(order, np.cumsum(counts)[:-1]), strict=True))
    picks = []
    for label in present[np.argsort(first)].tolist():
        positions = members[label]
        # Drawing from a range gives the same picks as drawing from a list of that length.
        if len(positions) >= shots:
            positions = positions[rng.sample(range(len(positions)), shots)]
        picks.append(positions)
    return np.concatenate(picks)
