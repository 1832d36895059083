"""``folder:PATH``: one's own images, in one folder per class.

Either ``PATH/<class>/…`` or ``PATH/{train,val,test}/<class>/…``. Images may lie deeper than the
class folder; hidden files and those that are no images are passed over.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from llmopt.data.base import ListedDataset, Which
from llmopt.data.benchmarks.layouts import folder_names
from llmopt.data.sources.own_splits import HELD_OUT, THREE_WAYS, hold_out_val, split_three_ways
from llmopt.errors import DatasetError
from llmopt.images import FileImage, is_image_name
from llmopt.task import Labelled
from llmopt.template import PLAIN, Template

SPLIT_FOLDERS: Final[dict[Which, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def open_folder(name: str, path: str) -> ListedDataset:
    """The data set in the folder ``path``.

    Raises:
        DatasetError: it is missing, holds no class folders, or a class has no images.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DatasetError(f"dataset '{name}': there is no folder {root}")
    folders = {which: _find(root, names) for which, names in SPLIT_FOLDERS.items()}
    given = {which: folder for which, folder in folders.items() if folder is not None}
    # A lone folder called "train" or "test" may as well be a class.
    if "train" in given and len(given) > 1:
        keys = sorted({key for folder in given.values() for key in folder_names(root / folder)})
        parts = {which: _listed(root, f"{folder}/", keys) for which, folder in given.items()}
        parts, provenance = complete(parts)
    else:
        keys = folder_names(root)
        parts, provenance = split_three_ways(_listed(root, "", keys)), THREE_WAYS
    return own_dataset(name, tuple(keys), parts, provenance)


def own_dataset(
    name: str,
    keys: tuple[str, ...],
    parts: dict[Which, Labelled],
    provenance: str,
    handcrafted: tuple[Template, ...] = (Template(PLAIN),),
    classnames: tuple[str, ...] | None = None,
) -> ListedDataset:
    """A data set of the user's own, once it is clear that every class has images.

    Raises:
        DatasetError: fewer than two classes, or one without images.
    """
    if len(keys) < 2:
        raise DatasetError(
            f"dataset '{name}' has {len(keys)} classes, and at least two are needed; "
            "images belong into one folder per class"
        )
    counts = sum(np.bincount(part.labels, minlength=len(keys)) for part in parts.values())
    empty = [key for key, count in zip(keys, np.atleast_1d(counts), strict=True) if not count]
    if empty:
        raise DatasetError(
            f"dataset '{name}': no images in class {', '.join(repr(key) for key in empty[:5])}"
            f"{' and others' if len(empty) > 5 else ''}; add some or remove the class"
        )
    return ListedDataset(name, keys, classnames or keys, parts, provenance, handcrafted)


def keys_for(names: Sequence[str]) -> tuple[str, ...]:
    """Keys of classes that have names only: the names where all differ, else the labels."""
    different = len(set(names)) == len(names)
    return tuple(names) if different else tuple(str(label) for label in range(len(names)))


def complete(parts: dict[Which, Labelled]) -> tuple[dict[Which, Labelled], str]:
    """``parts`` with a val split where there was none, and where the splits come from.

    With ``train`` and ``val`` alone, ``val`` measures and a new ``val`` is taken from ``train``.
    """
    parts = dict(parts)
    provenance = "the data set's own splits"
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
        provenance += " (val is the test split)"
    if "val" not in parts and "train" in parts:
        parts |= hold_out_val(parts["train"])
        provenance += f"; {HELD_OUT}"
    return parts, provenance


def _find(root: Path, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if (root / name).is_dir()), None)


def _listed(root: Path, prefix: str, keys: list[str]) -> Labelled:
    """Images below ``root/prefix`` of each class folder, sorted."""
    images: list[FileImage] = []
    labels: list[int] = []
    for label, key in enumerate(keys):
        found = sorted(_walk(root, prefix + key))
        images.extend(FileImage(root, relative) for relative in found)
        labels.extend([label] * len(found))
    return Labelled(tuple(images), np.array(labels, dtype=np.int64))


def _walk(root: Path, folder: str) -> list[str]:
    """Paths below ``root`` of all images under ``folder``, links to folders not followed."""
    found: list[str] = []
    for place, folders, files in os.walk(root / folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(root).as_posix()
        found.extend(f"{inside}/{name}" for name in files if is_image_name(name))
    return found
