"""Everything that is wrong is found, listed at once, and followed by what to do."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from pathlib import Path

import pytest
from miniatures import build
from PIL import Image

from llmopt.data.check import CheckReport, check_dataset
from llmopt.errors import DatasetError


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The folder of images of a small EuroSAT below ``tmp_path``."""
    build("eurosat", tmp_path)
    return tmp_path / "eurosat" / "2750"


def check(root: Path, **options: bool) -> CheckReport:
    return check_dataset("eurosat", root, **options)


def test_sound(images: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = check_dataset(
        "eurosat", tmp_path, progress=lambda done, total: seen.append((done, total))
    )
    assert report.ok
    assert (report.images, report.decoded) == (60, 0)
    assert report.sizes == {"train": 25, "val": 20, "test": 15}
    assert report.classes == 5
    assert seen == [(60, 60)]
    assert report.next_step == "run 'llmopt run --dataset eurosat'"
    assert any("5 classes, published with 10" in note for note in report.notes)
    assert any("25 train images, published with 13,500" in note for note in report.notes)


def test_all_missing_files_are_listed(images: Path, tmp_path: Path) -> None:
    shutil.rmtree(images / "Forest")
    (images / "SeaLake" / "SeaLake_50.jpg").unlink()
    report = check(tmp_path)
    assert report.counts == {"missing": 13}
    assert report.missing_by_folder() == {str(images / "Forest"): 12, str(images / "SeaLake"): 1}
    assert report.next_step == "run 'llmopt datasets download eurosat'"


def test_what_stands_in_place_of_images(images: Path, tmp_path: Path) -> None:
    files = sorted((images / "Highway").iterdir())
    whole = files[5].read_bytes()
    contents = {
        b"": "the file is empty",
        b"<!DOCTYPE html><html>": "a web page in its place",
        b"version https://git-lfs.github.com/spec/v1\n": "a Git LFS pointer in its place",
        bytes(5000): "zeros in its place",
        b"PK\3\4 a zip": "starts with",
        whole[:-100]: "truncated",
    }
    for file, content in zip(files, contents, strict=False):
        file.write_bytes(content)
    report = check(tmp_path)
    found = {problem.path: problem for problem in report.problems}
    for file, detail in zip(files, contents.values(), strict=False):
        assert detail in str(found[str(file)])
    assert report.counts == {"damaged": 2, "not an image": 4}
    assert "delete these files and run 'llmopt datasets download eurosat'" in report.next_step
    assert "--skip-unreadable" in report.next_step


@pytest.mark.parametrize("deep", [False, True])
def test_pipes_and_devices_are_named_unopened(deep: bool, images: Path, tmp_path: Path) -> None:
    pipe, device = sorted((images / "Highway").iterdir())[:2]
    pipe.unlink()
    os.mkfifo(pipe)
    device.unlink()
    device.symlink_to("/dev/zero")
    report = check(tmp_path, deep=deep)
    found = {problem.path: str(problem) for problem in report.problems}
    assert "it is a pipe, not a file" in found[str(pipe)]
    assert "it is a device, not a file" in found[str(device)]
    assert report.counts == {"unreadable": 2}


def test_trailing_bytes_are_no_damage(images: Path, tmp_path: Path) -> None:
    with next((images / "Forest").iterdir()).open("ab") as file:
        file.write(b"left by a camera")
    report = check(tmp_path)
    assert report.ok
    assert report.decoded == 1


def test_damage_inside_needs_a_deep_check(tmp_path: Path) -> None:
    build("clevr", tmp_path)
    victim = next((tmp_path / "CLEVR_v1.0" / "images" / "train").iterdir())
    content = bytearray(victim.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 30] = bytes(30)
    victim.write_bytes(content)
    assert check_dataset("clevr", tmp_path).ok
    report = check_dataset("clevr", tmp_path, deep=True)
    assert report.counts == {"damaged": 1}
    assert report.problems[0].path == str(victim)


def test_an_image_in_two_splits(images: Path, tmp_path: Path) -> None:
    split = tmp_path / "eurosat" / "split_zhou_EuroSAT.json"
    text = split.read_text()
    first = text.index("AnnualCrop_1.jpg")
    test = text.index('"test"')
    assert first < test
    path = text[test:].split('"')[3]
    split.write_text(text[:test] + text[test:].replace(path, "AnnualCrop/AnnualCrop_1.jpg", 1))
    report = check(tmp_path)
    assert report.counts == {"duplicate": 1}
    assert report.problems[0].detail == "in train and in test"


def test_the_callers_words_are_not_the_files_fault(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no view ':bse'"):
        check_dataset("eurosat:bse", tmp_path)
    with pytest.raises(DatasetError, match="class names"):
        check_dataset("eurosat", tmp_path, classnames="none.json")
    with pytest.raises(DatasetError, match="unknown dataset"):
        check_dataset("eurosta", tmp_path)
    assert check_dataset("eurosat:base", tmp_path).ok


def test_generated_data_needs_nothing(tmp_path: Path) -> None:
    report = check_dataset("shapes-small", tmp_path)
    assert report.ok
    assert report.sizes["test"] == 1000


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_memory_for_many_images_stays_small(count: int, tmp_path: Path) -> None:
    for label in range(10):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True)
        for number in range(count // 10):  # no picture is twice
            pixels = f"{label}{number:05d}".encode() * 2
            Image.frombytes("L", (4, 3), pixels).save(folder / f"{number:06d}.png")
    tracemalloc.start()
    report = check_dataset(f"folder:{tmp_path / 'images'}", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.ok
    assert report.images == count
    assert peak < 5e6 + 1000 * count  # the list of paths, and nothing besides
