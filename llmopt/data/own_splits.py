"""Which words name a split, and splits for data that comes without any.

The latter are fixed by the images' names, the same on every machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np

from llmopt.data.base import SPLITS, Which
from llmopt.errors import DatasetError
from llmopt.task import IntArray, Labelled

TEST_SHARE = 0.3
VAL_SHARE = 0.2

THREE_WAYS = "ours: 50/20/30 per class, by hash of the images' names"
HELD_OUT = "val is ours: 20% of train per class, by hash of the images' names"

_WORDS: Final[Mapping[Which, tuple[str, ...]]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
_SPLIT_OF: Final = {word: which for which, words in _WORDS.items() for word in words}
_SUFFIX: Final = re.compile(r"[\W_]*(?:set|split|data|images|imgs)?[\W_]*$")


def split_of(word: str) -> Which | None:
    """The split that a word means, in any case: ``Train``, ``test_set``; None if it is none."""
    return _SPLIT_OF.get(_SUFFIX.sub("", word.strip().lower(), count=1))


def name_splits(names: Iterable[str], where: str) -> dict[Which, str]:
    """Those of ``names`` that mean a split.

    Raises:
        DatasetError: two mean the same one.
    """
    found: dict[Which, str] = {}
    for name in names:
        which = split_of(name)
        if which is not None and found.setdefault(which, name) != name:
            raise DatasetError(
                f"{where}: '{found[which]}' and '{name}' both mean the {which} split; rename one"
            )
    return {which: found[which] for which in SPLITS if which in found}


def complete(parts: Mapping[Which, Labelled]) -> tuple[dict[Which, Labelled], str]:
    """``parts`` with the splits that were missing, and where all of them come from.

    ``train`` alone is split three ways. With ``train`` and ``val`` alone, ``val`` measures and a
    new ``val`` is taken from ``train``.
    """
    parts = {which: part for which, part in parts.items() if len(part)}
    if set(parts) == {"train"}:
        return split_three_ways(parts["train"]), f"{THREE_WAYS}; all of it came as train"
    provenance = "the data set's own splits"
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
        provenance += " (val is the test split)"
    if "val" not in parts and "train" in parts:
        parts |= hold_out_val(parts["train"])
        provenance += f"; {HELD_OUT}"
    return parts, provenance


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
