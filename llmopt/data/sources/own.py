"""What sources of people's own images share: a data set is made of what they list."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from llmopt.data.base import ListedDataset, Which
from llmopt.errors import DatasetError
from llmopt.task import Labelled, checked_names
from llmopt.template import PLAIN, Template, clean

PLAIN_ONLY = (Template(PLAIN),)


def own_dataset(
    name: str,
    keys: Sequence[str],
    parts: Mapping[Which, Labelled],
    provenance: str,
    *,
    handcrafted: tuple[Template, ...] = PLAIN_ONLY,
    classnames: Sequence[str] | None = None,
    notes: Sequence[str] = (),
    skipped: Mapping[str, int] | None = None,
    published: bool = False,
) -> ListedDataset:
    """A data set of the user's own, once it is clear that its classes have images.

    Args:
        name, keys, parts, provenance, handcrafted, notes, skipped: of the data set.
        classnames: the keys by default; invisible characters are taken out of them.
        published: whether the classes come from a list of their own, so that some may well lack
            images.

    Raises:
        DatasetError: fewer than two classes, one without images, or a name that cannot be used.
    """
    skipped = {reason: count for reason, count in (skipped or {}).items() if count}
    if len(keys) < 2:
        raise DatasetError(
            f"dataset {name!r} has {len(keys)} classes, and at least two are needed; "
            f"images belong into one folder per class{_passed_over(skipped)}"
        )
    counts = np.zeros(len(keys), dtype=np.int64)
    for part in parts.values():
        counts += np.bincount(part.labels, minlength=len(keys))
    empty = (
        []
        if published and counts.any()
        else [keys[i] for i in np.flatnonzero(counts == 0).tolist()]
    )
    if empty:
        raise DatasetError(
            f"dataset {name!r}: no images in class {', '.join(repr(key) for key in empty[:5])}"
            f"{' and others' if len(empty) > 5 else ''}; add some or remove the class"
            f"{_passed_over(skipped)}"
        )
    given = checked_names(classnames or keys, f"dataset {name!r}")
    names = tuple(clean(one) for one in given)
    hidden = [one for one, seen in zip(given, names, strict=True) if _composed(one) != seen]
    if hidden:
        notes = [*notes, f"invisible characters were taken out of class names: {listed(hidden)}"]
    return ListedDataset(
        name, tuple(keys), names, parts, provenance, handcrafted, tuple(notes), skipped
    )


def keys_for(names: Sequence[str]) -> tuple[str, ...]:
    """Keys of classes that have names only: the names where all differ, else the labels."""
    different = len(set(names)) == len(names)
    return tuple(names) if different else tuple(str(label) for label in range(len(names)))


def listed(names: Sequence[object], most: int = 5) -> str:
    """The first few names, as they can be shown anywhere."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more


def passed_over(skipped: Mapping[str, int]) -> str:
    """What a source holds that is not used, in words; empty where there is nothing."""
    return ", ".join(f"{count:,} {reason}" for reason, count in skipped.items() if count)


def _passed_over(skipped: Mapping[str, int]) -> str:
    return f" (passed over: {said})" if (said := passed_over(skipped)) else ""


def _composed(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).split())
