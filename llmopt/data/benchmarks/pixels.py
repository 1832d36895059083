"""Data sets that come as files of raw pixels: CIFAR, MNIST and its kin, STL-10.

They lie as torchvision lays them. Reading a split maps or reads the arrays; CIFAR's are pickles,
which may hold nothing but arrays, lists and texts, since any other pickle runs code.
"""

from __future__ import annotations

import gzip
import pickle
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llmopt.data.base import Which
from llmopt.data.benchmarks.layouts import Listing
from llmopt.data.own_splits import HELD_OUT, hold_out_val
from llmopt.errors import DatasetError
from llmopt.images import PixelImage, regular
from llmopt.task import IntArray, Labelled

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CifarBatches:
    """CIFAR-10 and -100: pickles of ``data`` (n, 3072) uint8, colour after colour, and labels.

    Attributes:
        train, test: the pickles.
        meta: the pickle that holds the class names.
        labels, names: under which keys the labels and the names stand.
    """

    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str

    def missing(self, home: Path) -> list[str]:
        """The pickles that are absent."""
        return _absent(home, (*self.train, self.test, self.meta))

    def read(self, home: Path) -> Listing:
        """The batches one after another, with the names of the meta file."""
        names = tuple(unpickled(home / self.meta).get(self.names, ()))
        if not names or not all(isinstance(name, str) for name in names):
            raise _damaged(home / self.meta, f"it has no {self.names}")
        train = [part for file in self.train for part in self._batch(home / file)]
        return _listing(names, train, list(self._batch(home / self.test)))

    def _batch(self, path: Path) -> Iterator[tuple[str, Pixels, int]]:
        found = unpickled(path)
        data, labels = found.get("data"), found.get(self.labels)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3072,):
            raise _damaged(path, "its data are no rows of 3,072 bytes")
        pictures = np.ascontiguousarray(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        return _numbered(path, pictures, labels if isinstance(labels, list) else [])


@dataclass(frozen=True)
class IdxFiles:
    """MNIST and its kin: ``train-images-idx3-ubyte`` and so on, with or without ``.gz``.

    Attributes:
        names: of the classes, in label order; no file holds them.
    """

    names: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Images and labels for training, then for the test."""
        return tuple(name for which in ("train", "t10k") for name in _idx_files(which))

    def missing(self, home: Path) -> list[str]:
        """The files that are there neither packed nor unpacked."""
        return [name for name in self.files if not _here(home, name).exists()]

    def read(self, home: Path) -> Listing:
        """The two parts that are published."""
        return _listing(self.names, *(list(self._part(home, one)) for one in ("train", "t10k")))

    def _part(self, home: Path, which: str) -> Iterator[tuple[str, Pixels, int]]:
        images, labels = _idx_files(which)
        return _numbered(
            home / images, read_idx(home, images, 3), read_idx(home, labels, 1).tolist()
        )


@dataclass(frozen=True)
class StlBinary:
    """STL-10: ``train_X.bin`` holds 96×96 pictures, colour after colour and column after column."""

    classes: str = "class_names.txt"

    @property
    def files(self) -> tuple[str, ...]:
        """Those of pixels and labels, and the names."""
        pairs = [f"{which}_{kind}.bin" for which in ("train", "test") for kind in "Xy"]
        return (*pairs, self.classes)

    def missing(self, home: Path) -> list[str]:
        """Those that are absent."""
        return _absent(home, self.files)

    def read(self, home: Path) -> Listing:
        """The two labelled parts; labels count from 1 in the files."""
        names = tuple(_bytes(home / self.classes).decode("ascii", "replace").split())
        return _listing(names, *(list(self._part(home, one)) for one in ("train", "test")))

    def _part(self, home: Path, which: str) -> Iterator[tuple[str, Pixels, int]]:
        path, labels = home / f"{which}_X.bin", _bytes(home / f"{which}_y.bin")
        if not path.stat().st_size or path.stat().st_size % (3 * 96 * 96):
            raise _damaged(path, "it holds no whole pictures of 96 x 96 pixels")
        pixels = np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, 3, 96, 96)
        return _numbered(path, pixels.transpose(0, 3, 2, 1), [label - 1 for label in labels])


def _absent(home: Path, files: Sequence[str]) -> list[str]:
    return [file for file in files if not (home / file).exists()]


def _numbered(
    path: Path, pixels: Pixels, labels: Sequence[Any]
) -> Iterator[tuple[str, Pixels, int]]:
    """Name, picture and label of each image of a file."""
    if len(pixels) != len(labels):
        raise _damaged(path, f"{len(pixels):,} pictures have {len(labels):,} labels")
    for number, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        yield f"{path.name}/{number:05d}", picture, label


def _listing(
    names: tuple[str, ...],
    train: list[tuple[str, Pixels, int]],
    test: list[tuple[str, Pixels, int]],
) -> Listing:
    """The three parts of a data set that was published in two."""
    parts: dict[Which, Labelled] = {"test": _labelled(test, len(names))}
    parts |= hold_out_val(_labelled(train, len(names)))
    return Listing(names, names, parts, f"official test; {HELD_OUT}")


def _labelled(images: list[tuple[str, Pixels, int]], classes: int) -> Labelled:
    for name, _, label in images:
        if not isinstance(label, int) or not 0 <= label < classes:
            raise DatasetError(f"{name} has the label {label!r:.20}, of {classes} classes")
    pictures = tuple(PixelImage(name, pixels) for name, pixels, _ in images)
    labels: IntArray = np.array([label for _, _, label in images], dtype=np.int64)
    return Labelled(pictures, labels)


# ------------------------------------------------------------------------------------- files


def _bytes(path: Path) -> bytes:
    try:
        regular(path)
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def _damaged(path: Path, why: object) -> DatasetError:
    return DatasetError(f"{path} is damaged ({why}); delete it and fetch it again")


def _idx_files(which: str) -> tuple[str, str]:
    return f"{which}-images-idx3-ubyte", f"{which}-labels-idx1-ubyte"


def _here(home: Path, name: str) -> Path:
    """The file as it was unpacked, or else as it was downloaded."""
    return home / name if (home / name).exists() else home / f"{name}.gz"


def read_idx(home: Path, name: str, axes: int) -> Pixels:
    """An array of bytes in Yann LeCun's format: two zeros, 8, the axes, their lengths, the data.

    Raises:
        DatasetError: it is no such file.
    """
    path = _here(home, name)
    content = _bytes(path)
    if path.suffix == ".gz":
        try:
            with gzip.open(path) as file:
                content = file.read(_LONGEST)
        except (EOFError, OSError, zlib.error) as error:
            raise _damaged(path, error) from error
    start = 4 + 4 * axes
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < start:
        raise _damaged(path, f"it does not begin as an idx file of {axes} axes")
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) - start != np.prod(shape, dtype=object) or not all(shape):
        raise _damaged(path, f"it has {len(content) - start:,} bytes for {shape}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


_LONGEST: Final = 2**28
"""Bytes of an unpacked idx file; MNIST's longest has 47 million."""

_HARMLESS: Final = {
    (module, name)
    for core in ("core", "_core")
    for module, name in (
        (f"numpy.{core}.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    )
}
"""All that a pickle of arrays, lists and texts may name."""


class _Arrays(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it would run {module}.{name}")
        return super().find_class(module, name)


def unpickled(path: Path) -> dict[str, Any]:
    """The table of a pickle, which can do nothing but hold arrays.

    Raises:
        DatasetError: it is damaged, or would do something.
    """
    try:
        regular(path)
        with path.open("rb") as file:
            found = _Arrays(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises anything
        raise _damaged(path, str(error).splitlines()[0] if str(error) else "empty") from error
    if not isinstance(found, dict):
        raise _damaged(path, "it holds no table")
    return found
