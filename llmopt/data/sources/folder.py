"""``folder:PATH``: one's own images, in one folder per class.

Either ``PATH/<class>/…`` or ``PATH/{train,val,test}/<class>/…``; the splits may be spelled in other
ways (:func:`~llmopt.data.own_splits.split_of`). Images may lie deeper than the class
folder. What is passed over is counted: hidden files, formats that are not read, what is no file.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from llmopt.data.base import ListedDataset, Which
from llmopt.data.benchmarks.layouts import folder_names, is_clutter
from llmopt.data.own_splits import (
    THREE_WAYS,
    complete,
    name_splits,
    split_of,
    split_three_ways,
)
from llmopt.data.sources.own import listed, own_dataset
from llmopt.errors import DatasetError, seen_from
from llmopt.images import FileImage, is_image_name
from llmopt.task import Labelled


def open_folder(name: str, path: str) -> ListedDataset:
    """The data set in the folder ``path``.

    Raises:
        DatasetError: it is missing, holds no class folders, a class has no images, or it is not
            clear which folders are splits and which are classes.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise DatasetError(
            f"dataset '{name}': there is no folder {root}{seen_from(root)}", docs="your-photos"
        )
    skipped: Counter[str] = Counter()
    try:
        folders = folder_names(root)
        splits = _splits(name, root, folders)
        if splits:
            inside = {folder: folder_names(root / folder) for folder in splits.values()}
            keys = sorted(set().union(*inside.values()))
            parts = {
                which: _listed(root, f"{folder}/", keys, skipped)
                for which, folder in splits.items()
            }
            _beside(root, "", splits.values(), skipped)
            for folder, classes in inside.items():
                _beside(root, folder, classes, skipped)
            parts, provenance = complete(parts)
        else:
            keys = folders
            images = _listed(root, "", keys, skipped)
            _refuse_splits_inside(name, images)
            _beside(root, "", keys, skipped)
            parts, provenance = split_three_ways(images), THREE_WAYS
    except OSError as error:
        raise DatasetError(
            f"dataset '{name}': {error.filename} cannot be read ({error.strerror})"
        ) from error
    if len(folders) == 1 and not splits and folder_names(root / folders[0]):
        raise DatasetError(
            f"dataset '{name}' holds one folder; is 'folder:{root / folders[0]}' what you mean?",
            docs="your-photos",
        )
    return own_dataset(name, keys, parts, provenance, skipped=skipped)


def _splits(name: str, root: Path, folders: list[str]) -> Mapping[Which, str]:
    """The folders that are splits; none where all are classes.

    A single one called "train" or "test" among others may as well be a class.
    """
    if len({split_of(folder) for folder in folders} - {None}) < 2:
        lone = len(folders) == 1 and split_of(folders[0]) and folder_names(root / folders[0])
        return name_splits(folders, f"dataset '{name}'") if lone else {}
    splits = name_splits(folders, f"dataset '{name}'")
    others = [folder for folder in folders if folder not in splits.values()]
    if "train" not in splits and others:
        raise DatasetError(
            f"dataset '{name}' has split folders ({', '.join(splits.values())}), but none called "
            f"'train'; rename the one of {listed(others)} that is, or move the others away",
            docs="your-photos",
        )
    return splits


def _refuse_splits_inside(name: str, images: Labelled) -> None:
    """Classes that are divided into splits below: mixed, they would be divided anew."""
    below = [PurePosixPath(image.name).parts[1:-1] for image in images.images]
    words = {parts[0] for parts in below if parts}
    if len({split_of(word) for word in words} - {None}) > 1 and all(
        parts and split_of(parts[0]) for parts in below
    ):
        raise DatasetError(
            f"dataset '{name}': each class is divided into {listed(sorted(words))}; put the splits "
            "above the classes, as in train/cat, or list the images in a table (csv:FILE)"
        )


def _beside(root: Path, folder: str, used: Iterable[str], skipped: Counter[str]) -> None:
    """Count what lies beside the folders in use."""
    used = set(used)
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if is_clutter(entry.name):
                skipped["hidden or system files and folders"] += 1
            elif entry.is_dir():
                skipped["folders beside the splits"] += entry.name not in used
            elif is_image_name(entry.name):
                skipped["images outside the class folders"] += 1


def _listed(root: Path, prefix: str, keys: list[str], skipped: Counter[str]) -> Labelled:
    """Images below ``root/prefix`` of each class folder, sorted."""
    images: list[FileImage] = []
    labels: list[int] = []
    for label, key in enumerate(keys):
        found = sorted(_walk(root, prefix + key, skipped))
        images.extend(FileImage(root, relative) for relative in found)
        labels.extend([label] * len(found))
    return Labelled(tuple(images), np.array(labels, dtype=np.int64))


def _walk(root: Path, folder: str, skipped: Counter[str]) -> list[str]:
    """Paths below ``root`` of all images under ``folder``, links to folders not followed."""
    found: list[str] = []
    waiting = [folder] if (root / folder).is_dir() else []
    while waiting:
        place = waiting.pop()
        with os.scandir(root / place) as entries:
            for entry in entries:
                path = f"{place}/{entry.name}"
                if reason := _why_skipped(entry):
                    skipped[reason] += 1
                elif entry.is_dir():
                    waiting.append(path)
                else:
                    found.append(path)
    return found


def _why_skipped(entry: os.DirEntry[str]) -> str:
    if is_clutter(entry.name):
        return "hidden or system files and folders"
    if entry.is_dir():
        return "links to folders" if entry.is_symlink() else ""
    if not is_image_name(entry.name):
        return format_not_read(entry.name)
    # A broken link is an image that is missing, and is said to be so later.
    if not entry.is_file() and os.path.exists(entry.path):  # noqa: PTH110
        return "pipes, sockets or devices"
    return ""


def format_not_read(name: str) -> str:
    """The reason to pass over a file that is no image, by its ending."""
    suffix = PurePosixPath(name).suffix.lower()
    known = 1 < len(suffix) <= 6 and suffix[1:].isascii() and suffix[1:].isalnum()
    return f"{suffix if known else 'other'} files (format not read)"
