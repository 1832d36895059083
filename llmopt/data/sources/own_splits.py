"""Splits for data that comes without any: fixed by the images' names, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np

from llmopt.data.base import Which
from llmopt.task import IntArray, Labelled

TEST_SHARE = 0.3
VAL_SHARE = 0.2

THREE_WAYS = "ours: 50/20/30 per class, by hash of the images' names"
HELD_OUT = "val is ours: 20% of train per class, by hash of the images' names"


def split_three_ways(images: Labelled) -> dict[Which, Labelled]:
    """30% of each class for test, 20% for val, the rest for train.

    A class of one image trains; one of two also tests.
    """
    test, rest = _set_aside(images, TEST_SHARE, at_least=1)
    # Of the whole class, not of what is left of it.
    val, train = _set_aside(rest, VAL_SHARE / (1 - TEST_SHARE), at_least=0)
    return {"train": train, "val": val, "test": test}


def hold_out_val(train: Labelled) -> dict[Which, Labelled]:
    """20% of each class for val, the rest for train."""
    val, rest = _set_aside(train, VAL_SHARE, at_least=0)
    return {"train": rest, "val": val}


def _set_aside(images: Labelled, share: float, at_least: int) -> tuple[Labelled, Labelled]:
    """About ``share`` of each class, never all of it, and the others; both in the given order."""
    order = np.argsort([_rank(image.name) for image in images.images], kind="stable")
    aside = np.zeros(len(images), dtype=bool)
    for label in np.unique(images.labels):
        members: IntArray = order[images.labels[order] == label]
        count = min(max(round(share * len(members)), at_least), len(members) - 1)
        aside[members[:count]] = True
    return images.subset(np.flatnonzero(aside)), images.subset(np.flatnonzero(~aside))


def _rank(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:7], "big")
