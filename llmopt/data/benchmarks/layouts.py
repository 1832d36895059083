"""How the benchmark data sets lie on disk, and how to read their splits.

A layout reads one kind of tree. What differs between data sets (folder and file names) stands in
their entry in :mod:`llmopt.data.benchmarks.catalog`. Reading lists paths; it opens no image.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from llmopt.data.base import SPLITS, Which
from llmopt.data.text import parse_json
from llmopt.errors import DatasetError
from llmopt.images import FileImage, is_image_name
from llmopt.resources import read_prompt
from llmopt.task import Labelled


@dataclass(frozen=True)
class Listing:
    """What a layout found.

    Attributes:
        keys: K different words, in label order.
        names: K class names as the data set's own files give them.
        parts: images and labels of each split.
        provenance: where the split comes from.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    parts: Mapping[Which, Labelled]
    provenance: str


class Layout(Protocol):
    """One kind of tree."""

    def missing(self, home: Path) -> list[str]:
        """What must lie below ``home`` and does not, as paths relative to it."""
        ...

    def read(self, home: Path) -> Listing:
        """List the images below ``home``.

        Raises:
            DatasetError: a list is damaged or contradicts itself.
        """
        ...


@dataclass(frozen=True)
class SplitFile:
    """CoOp's way: one JSON file ``{"train": [[path, label, name], ...], "val": ..., "test": ...}``.

    Attributes:
        file: its name.
        images: the folder its paths start from; ``"."`` for the data set's own.
        made: how the split was made, for the record.
        blob: git's hash of the published file, or ``""`` where none is known.
    """

    file: str
    images: str
    made: str
    blob: str = ""

    def missing(self, home: Path) -> list[str]:
        """The folder of images and the split file, where they are absent."""
        return [path for path in (self.images, self.file) if not (home / path).exists()]

    def read(self, home: Path) -> Listing:
        """The three lists, with the labels and names the file gives."""
        source = home / self.file
        content, rows = read_split_file(source)
        names: dict[int, str] = {}
        root = home / self.images
        parts = {which: _listed(source, root, rows.get(which, []), names) for which in SPLITS}
        ordered = _in_label_order(source, names)
        return Listing(ordered, ordered, parts, self._provenance(content))

    def _provenance(self, content: bytes) -> str:
        if not self.blob:
            checked = "no published checksum is known"
        elif git_blob_sha1(content) == self.blob:
            checked = "as published"
        else:
            checked = "NOT the published file"
        return f"CoOp split, {self.made} ({self.file}, {checked})"


@dataclass(frozen=True)
class SplitFileAndTestFolder:
    """A split file for train and val only; the test images are listed from class folders.

    Attributes:
        files: possible names of the split file, the published one first.
        train, test: folders of class folders; the split file's paths start from ``train``.
        made: how the split was made.
    """

    files: tuple[str, ...]
    train: str
    test: str
    made: str

    def missing(self, home: Path) -> list[str]:
        """The two folders and the split file, where they are absent."""
        missing = [path for path in (self.train, self.test) if not (home / path).is_dir()]
        return missing if self._source(home).exists() else [*missing, self.files[0]]

    def read(self, home: Path) -> Listing:
        """Train and val as the file lists them, test in sorted order."""
        source = self._source(home)
        _, rows = read_split_file(source)
        names: dict[int, str] = {}
        root = home / self.train
        parts: dict[Which, Labelled] = {
            which: _listed(source, root, rows.get(which, []), names) for which in ("train", "val")
        }
        ordered = _in_label_order(source, names)
        parts["test"] = list_folders(home / self.test, ordered)
        made = f"CoOp layout, {self.made} ({source.name}, no published checksum is known)"
        return Listing(ordered, ordered, parts, made)

    def _source(self, home: Path) -> Path:
        found = (home / file for file in self.files if (home / file).exists())
        return next(found, home / self.files[0])


@dataclass(frozen=True)
class VariantLists:
    """FGVC-Aircraft: ``variants.txt`` in label order, one ``<image id> <variant>`` list a split."""

    images: str = "images"
    classes: str = "variants.txt"
    lists: str = "images_variant_{}.txt"

    def missing(self, home: Path) -> list[str]:
        """The folder of images, the class list and the three image lists, where absent."""
        needed = [self.images, self.classes, *(self.lists.format(which) for which in SPLITS)]
        return [path for path in needed if not (home / path).exists()]

    def read(self, home: Path) -> Listing:
        """The official lists, in their order."""
        classes = tuple(_lines(home / self.classes))
        labels = {name: label for label, name in enumerate(classes)}
        parts: dict[Which, Labelled] = {}
        for which in SPLITS:
            source = home / self.lists.format(which)
            images, found = [], []
            for line in _lines(source):
                image, _, variant = line.partition(" ")
                if variant not in labels:
                    raise DatasetError(f"{source}: '{variant}' is not in {self.classes}")
                images.append(FileImage(home / self.images, f"{image}.jpg"))
                found.append(labels[variant])
            parts[which] = Labelled(tuple(images), np.array(found, dtype=np.int64))
        return Listing(classes, classes, parts, "official lists")


@dataclass(frozen=True)
class WordNetFolders:
    """ImageNet and its kin: one folder per WordNet id, listed in sorted order.

    Class names come from ``classnames.txt`` (``<id> <name>`` lines) beside the images or one folder
    up, where there is one, else from the list shipped with llmopt.

    Attributes:
        test: the folder of test images; ``"."`` for the data set's own.
        train: the folder of training images, or None.
    """

    test: str
    train: str | None = None

    def missing(self, home: Path) -> list[str]:
        """The folder of test images, where it is absent; training images are not required."""
        return [] if (home / self.test).is_dir() else [self.test]

    def read(self, home: Path) -> Listing:
        """Labels count the sorted ids of the test folder."""
        keys = tuple(folder_names(home / self.test))
        if not keys:
            raise DatasetError(
                f"{home / self.test} has no class folders; sort its images into folders named by "
                "WordNet id, as in n01440764"
            )
        parts: dict[Which, Labelled] = {"test": list_folders(home / self.test, keys)}
        provenance = "official"
        if self.train is not None:
            # CoOp lists files in whatever order the disk gives them, so that its few-shot picks
            # differ from machine to machine; sorted order is the same everywhere.
            provenance = "official; training images in sorted order; no validation images"
            if (home / self.train).is_dir():
                if strangers := sorted(set(folder_names(home / self.train)) - set(keys)):
                    raise DatasetError(
                        f"{home / self.train} has class folders that {self.test} lacks: "
                        f"{', '.join(strangers[:5])}"
                    )
                parts["train"] = list_folders(home / self.train, keys)
            else:
                provenance = f"official; no training images (no folder {home / self.train})"
        return Listing(keys, _wordnet_names(home, keys), parts, provenance)


@dataclass(frozen=True)
class NumberedFolders:
    """ImageNetV2: folders ``0`` to ``999``, the number being ImageNet's label.

    Attributes:
        test: the folder that holds them.
    """

    test: str

    def missing(self, home: Path) -> list[str]:
        """The folder of test images, where it is absent."""
        return [] if (home / self.test).is_dir() else [self.test]

    def read(self, home: Path) -> Listing:
        """All of ImageNet's classes, whichever of them have images."""
        known = imagenet_names()
        root = home / self.test
        numbers = folder_names(root)
        strange = [name for name in numbers if not name.isdecimal() or int(name) >= len(known)]
        if strange:
            raise DatasetError(f"{root}: folder '{strange[0]}' is not a label from 0 to 999")
        listed = list_folders(root, sorted(numbers, key=int))
        labels = np.array(sorted(int(name) for name in numbers), dtype=np.int64)[listed.labels]
        keys = tuple(known)
        names = tuple(_wordnet_names(home, keys))
        return Listing(keys, names, {"test": Labelled(listed.images, labels)}, "official")


# ------------------------------------------------------------------------------------ reading

_CLUTTER: Final = frozenset({
    "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db",
    "desktop.ini",
})  # fmt: skip


def git_blob_sha1(content: bytes) -> str:
    """Git's name for a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_split_file(source: Path) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a split file and the JSON object in it.

    Raises:
        DatasetError: it is missing, or not such a file.
    """
    try:
        content = source.read_bytes()
        rows = parse_json(content)
    except OSError as error:
        raise DatasetError(f"split file {source} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DatasetError(
            f"split file {source} is not JSON ({error}); if it is a web page, fetch it again"
        ) from error
    if not isinstance(rows, dict) or "train" not in rows:
        raise DatasetError(f"split file {source} holds no object with train, val and test")
    return content, rows


def folder_names(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted, without hidden ones and those of systems."""
    with os.scandir(root) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not is_clutter(e.name))


def is_clutter(name: str) -> bool:
    """Whether a file or folder is hidden, or left by a system or an archiver."""
    return name.startswith(".") or name in _CLUTTER


def image_names(folder: Path) -> list[str]:
    """Names of the images directly in ``folder``, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_image_name(entry.name))


def list_folders(root: Path, folders: Iterable[str]) -> Labelled:
    """Images of class folders below ``root``, folder after folder; labels count the folders.

    A class folder that is absent has no images.
    """
    images: list[FileImage] = []
    counts: list[int] = []
    for folder in folders:
        names = image_names(root / folder) if (root / folder).is_dir() else []
        images.extend(FileImage(root, f"{folder}/{name}") for name in names)
        counts.append(len(names))
    return Labelled(tuple(images), np.repeat(np.arange(len(counts), dtype=np.int64), counts))


def imagenet_names() -> dict[str, str]:
    """ImageNet's 1000 class names by WordNet id, in label order (which is sorted order)."""
    names: dict[str, str] = json.loads(read_prompt("classnames/imagenet.json"))
    return names


def refuse_escapes(source: Path, paths: Iterable[str]) -> None:
    """A list from elsewhere must not reach outside the folder of images.

    Raises:
        DatasetError: a path is absolute or climbs.
    """
    for path in paths:
        parts = path.replace("\\", "/").split("/")
        if not parts[0] or parts[0][1:2] == ":" or ".." in parts:
            raise DatasetError(f"{source} names a file outside its folder: {path!r}")


def _wordnet_names(home: Path, keys: tuple[str, ...]) -> tuple[str, ...]:
    names = imagenet_names()
    for source in (home / "classnames.txt", home.parent / "classnames.txt"):
        if source.is_file():
            names = dict(line.split(" ", 1) for line in _lines(source) if " " in line)
            break
    strangers = [key for key in keys if key not in names]
    if strangers:
        raise DatasetError(
            f"{home}: no class name for folder '{strangers[0]}' ({len(strangers)} such); "
            "folders must be named by WordNet id, as in n01440764"
        )
    return tuple(names[key].strip() for key in keys)


def _lines(source: Path) -> list[str]:
    try:
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{source} cannot be read: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _listed(source: Path, root: Path, rows: Any, names: dict[int, str]) -> Labelled:
    """The images of one list; fills ``names`` with the name of every label."""
    images: list[FileImage] = []
    labels: list[int] = []
    try:
        for relative, label, name in rows:
            if not (isinstance(relative, str) and isinstance(name, str)):
                raise TypeError
            if names.setdefault(int(label), name) != name:
                raise DatasetError(
                    f"{source} gives label {label} two names, '{names[int(label)]}' and '{name}'"
                )
            images.append(FileImage(root, relative))
            labels.append(int(label))
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"{source} is damaged: entry {len(images)} of a list is not [path, label, name]"
        ) from error
    refuse_escapes(source, (image.relative for image in images))
    return Labelled(tuple(images), np.array(labels, dtype=np.int64))


def _in_label_order(source: Path, names: dict[int, str]) -> tuple[str, ...]:
    labels = sorted(names)
    if labels != list(range(len(labels))) or not labels:
        raise DatasetError(
            f"{source} is damaged: labels must count 0, 1, 2 … without gaps; fetch it again"
        )
    ordered = tuple(names[label] for label in labels)
    if len(set(ordered)) < len(ordered):
        raise DatasetError(f"{source} is damaged: two labels share a class name; fetch it again")
    return ordered
