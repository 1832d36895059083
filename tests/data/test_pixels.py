"""CIFAR, MNIST and STL-10, in files of pixels as torchvision leaves them."""

from __future__ import annotations

import gzip
import pickle
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from miniatures import PIXELS, build, idx, pixels

from llmopt.data.benchmarks.catalog import CATALOG
from llmopt.data.benchmarks.pixels import read_idx, unpickled
from llmopt.data.registry import open_dataset
from llmopt.errors import DatasetError


@pytest.mark.parametrize("key", PIXELS)
def test_every_picture_is_the_one_that_was_written(key: str, tmp_path: Path) -> None:
    build(key, tmp_path)
    dataset = open_dataset(key, tmp_path)
    test = dataset.split("test")
    size, mode = {"stl10": ((96, 96), "RGB"), "mnist": ((28, 28), "L")}.get(
        key.removeprefix("fashion_"), ((32, 32), "RGB")
    )
    _, (pictures, labels) = pixels(size, mode, classes=len(dataset.classnames))
    assert len(test) == len(pictures)
    for image, wanted in zip(test.images, pictures, strict=True):
        found = np.asarray(image.load())
        assert np.array_equal(found, wanted if wanted.ndim == 3 else np.stack([wanted] * 3, axis=2))
    turned = [9 - label for label in labels] if key == "fashion_mnist" else labels
    assert test.labels.tolist() == turned


def test_unpacked_or_not_it_is_the_same(tmp_path: Path) -> None:
    build("mnist", tmp_path)
    packed = open_dataset("mnist", tmp_path)
    for path in tmp_path.rglob("*.gz"):  # as torchvision leaves them
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert open_dataset("mnist", tmp_path).split_sha256 == packed.split_sha256


def test_names_come_from_the_files(tmp_path: Path) -> None:
    build("cifar100", tmp_path)
    dataset = open_dataset("cifar100", tmp_path)
    assert dataset.keys[1] == "aquarium_fish"
    assert "official test; val is ours: 20%" in dataset.provenance
    assert len(dataset.split("train")) == 4 * len(dataset.split("val"))


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_pickle_that_would_do_something_does_nothing(tmp_path: Path) -> None:
    build("cifar10", tmp_path)
    trace = tmp_path / "trace"
    table = {"data": np.zeros((1, 3072), np.uint8), "labels": [0], "more": Evil(trace)}
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps(table))
    with pytest.raises(DatasetError, match=r"test_batch is damaged \(it would run"):
        open_dataset("cifar10", tmp_path)
    assert not trace.exists()


DAMAGE: list[tuple[str, str, bytes, str]] = [
    ("cifar10", "test_batch", b"", "damaged"),
    ("cifar10", "test_batch", b"<html>", "damaged"),
    ("cifar10", "test_batch", pickle.dumps([1]), "no table"),
    ("cifar10", "test_batch", pickle.dumps({"data": [1], "labels": [1]}), "3,072 bytes"),
    (
        "cifar10",
        "test_batch",
        pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, protocol=2),
        "2 pictures have 1 labels",
    ),
    (
        "cifar10",
        "test_batch",
        pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [7]}, protocol=2),
        "label 7, of 3 classes",
    ),
    ("cifar100", "meta", pickle.dumps({"fine_label_names": [1]}), "no fine_label_names"),
    ("mnist", "t10k-labels-idx1-ubyte.gz", b"\x1f\x8b\x08", "damaged"),
    ("mnist", "t10k-labels-idx1-ubyte", bytes((0, 0, 8, 3)), "1 axes"),
    ("mnist", "t10k-images-idx3-ubyte", bytes((0, 0, 8, 3)) + b"\xff" * 13, "1 bytes for"),
    ("stl10", "test_X.bin", b"\0" * 100, "no whole pictures"),
    ("stl10", "test_y.bin", b"\0" * 9, "label -1, of 3 classes"),
]


@pytest.mark.parametrize(("key", "file", "content", "reason"), DAMAGE)
def test_damage_is_named(key: str, file: str, content: bytes, reason: str, tmp_path: Path) -> None:
    build(key, tmp_path)
    (tmp_path / CATALOG[key].folders[0] / file).write_bytes(content)
    with pytest.raises(DatasetError, match=reason):
        open_dataset(key, tmp_path)


@fuzz(at=st.integers(0, 2_000), content=st.binary(min_size=1, max_size=40))
def test_any_bytes_of_a_pickle_are_read_or_refused(at: int, content: bytes) -> None:
    table = {"data": np.zeros((1, 3072), np.uint8), "labels": [0], "names": ["a", "b"]}
    before = pickle.dumps(table, protocol=2)
    with TemporaryDirectory() as folder:
        path = Path(folder, "batch")
        path.write_bytes(before[: min(at, len(before))] + content + before[at + len(content) :])
        with suppress(DatasetError):
            assert isinstance(unpickled(path), dict)


@fuzz(at=st.integers(0, 30), content=st.binary(min_size=1, max_size=40))
def test_any_bytes_of_an_idx_file_are_read_or_refused(at: int, content: bytes) -> None:
    before = idx(np.zeros((2, 3, 3)))
    with TemporaryDirectory() as folder:
        Path(folder, "f").write_bytes(before[:at] + content + before[at + len(content) :])
        with suppress(DatasetError):
            assert read_idx(Path(folder), "f", 3).ndim == 3
