"""What is odd about a task is said before anything is spent, by run, plan and check alike."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniatures import save

import llmopt
from llmopt.data import soundness
from llmopt.data.base import ListedDataset
from llmopt.data.check import check_dataset
from llmopt.data.registry import open_dataset
from llmopt.data.soundness import NO_TEST, Findings, examine, shared_pictures
from llmopt.errors import DatasetError
from llmopt.images import ArchivedImage, FileImage, PixelImage
from llmopt.task import Labelled
from llmopt.template import PLAIN, Template


def examined(name: str, *, skip_unreadable: bool = False) -> Findings:
    dataset = open_dataset(name, Path("nowhere"))
    parts = (dataset.split("train"), dataset.split("val"))
    return examine(dataset, *parts, skip_unreadable=skip_unreadable)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in three splits, every picture another one."""
    for label, name in enumerate(("cat", "dog")):
        for split, first in (("train", 0), ("val", 4), ("test", 8)):
            for number in range(first, first + 4):
                save(tmp_path / split / name / f"{number:03d}.png", label, number)
    return tmp_path


def test_nothing_odd(photos: Path) -> None:
    assert examined(f"folder:{photos}") == Findings()
    assert check_dataset(f"folder:{photos}", Path()).ok


def test_one_image_a_class(tmp_path: Path) -> None:
    for label, name in enumerate(("cat", "dog")):
        save(tmp_path / "photos" / name / "0.png", label, 0)
    name = f"folder:{tmp_path / 'photos'}"
    assert examined(name).warnings == (NO_TEST,)
    assert NO_TEST in check_dataset(name, Path()).notes
    options = {"dataset": name, "model": "shapes-tiny", "optimizer": "zeroshot"}
    assert f"warning: {NO_TEST}" in llmopt.plan(**options).notes
    found = llmopt.run(**options, runs=tmp_path / "runs", progress=False)
    assert (found.status, found.test_accuracy, found.gain) == ("complete", None, None)
    assert found.result["task"]["notes"] == [NO_TEST]
    assert "a photo of a {}." in str(found.export("txt"))
    (found.folder / "result.json").unlink()
    assert llmopt.resume(found.folder, progress=False).status == "complete"
    with pytest.raises(DatasetError, match="cannot be compared on: no test images"):
        llmopt.compare(("zeroshot",), datasets=[name], model="shapes-tiny", runs=tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("way", ["copy", "link", "symlink", "other class"])
def test_a_training_image_among_the_test_images(way: str, photos: Path) -> None:
    seen = photos / "train" / "cat" / "001.png"
    twin = photos / "test" / ("dog" if way == "other class" else "cat") / "zzz.png"
    match way:
        case "link":
            os.link(seen, twin)
        case "symlink":
            twin.symlink_to(seen)
        case _:
            twin.write_bytes(seen.read_bytes())
    (said,) = examined(f"folder:{photos}").warnings
    assert "1 of the train images are test images too, byte for byte" in said
    assert f"'{seen.relative_to(photos)}' and '{twin.relative_to(photos)}'" in said
    (problem,) = check_dataset(f"folder:{photos}", Path()).problems
    assert str(problem) == f"duplicate: {seen}: in train and in test as {twin}"


def test_pictures_of_one_size_and_end_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" + bytes(200))
    (tmp_path / "b").write_bytes(b"b" + bytes(200))
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        info = tarfile.TarInfo("x")
        info.size = 201
        archive.addfile(info, io.BytesIO(b"a" + bytes(200)))
    pixels = PixelImage("pixels", np.zeros((67, 1, 3), dtype=np.uint8))

    def part(*images: FileImage | ArchivedImage | PixelImage) -> Labelled:
        return Labelled(images, np.zeros(len(images), dtype=np.int64))

    inside = ArchivedImage(tmp_path / "0.tar", 512, 201, "x")
    first, second = FileImage(tmp_path, "a"), FileImage(tmp_path, "./b")
    for train, test, found in (
        (part(first), part(second), 0),
        (part(first, second), part(pixels, inside), 1),
        (part(second, pixels), part(FileImage(tmp_path / ".", "b"), pixels), 2),
        (part(FileImage(tmp_path, "gone")), part(FileImage(tmp_path, "gone")), 0),
    ):
        assert len(shared_pictures({"train": train, "val": part(), "test": test})) == found


PNG = 8 + 25  # bytes before the pixels of a PNG
WAYS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("missing", Path.unlink),
    "empty": ("damaged", lambda path: path.write_bytes(b"")),
    "pipe": ("unreadable", lambda path: (path.unlink(), os.mkfifo(path))),
    "broken off": ("damaged", lambda path: path.write_bytes(path.read_bytes()[: PNG + 10])),
    "web page": ("not an image", lambda path: path.write_text("<!DOCTYPE html><p>404")),
    "Git LFS": ("not an image", lambda path: path.write_text("version https://git-lfs x")),
    "zeros": ("not an image", lambda path: path.write_bytes(bytes(500))),
}


@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.parametrize("way", WAYS)
def test_images_that_cannot_be_used(which: str, way: str, photos: Path) -> None:
    reason, spoil = WAYS[way]
    image = photos / which / "cat" / ("000.png" if which == "train" else "008.png")
    table = photos / "list.csv"
    rows = [f"{p.relative_to(photos)},{p.parent.name}" for p in sorted(photos.rglob("*.png"))]
    table.write_text(
        "\n".join(["path,label,split", *(f"{row},{row.partition('/')[0]}" for row in rows)])
    )
    spoil(image)
    said = f"1 of 8 {which} images cannot be used \\(1 {reason}\\), such as .*{image.name}.*--skip"
    with pytest.raises(DatasetError, match=said):
        examined(f"csv:{table}")
    left_out = Findings(notes=(f"1 of 8 {which} images are left out (1 {reason})",))
    assert examined(f"csv:{table}", skip_unreadable=True) == left_out
    assert check_dataset(f"csv:{table}", Path()).counts == {reason: 1}


def test_run_and_plan_find_damaged_test_images_before_anything_is_spent(
    photos: Path, tmp_path: Path
) -> None:
    tests = sorted((photos / "test").rglob("*.png"))
    for path, (_, spoil) in zip(tests, [*WAYS.values()][3:6], strict=False):
        spoil(path)
    asked: dict[str, Any] = {
        "dataset": f"folder:{photos}", "model": "shapes-tiny", "optimizer": "zeroshot",
    }  # fmt: skip
    said = r"3 of 8 test images cannot be used \(1 damaged, 2 not an image\)"
    for call in (lambda: llmopt.plan(**asked), lambda: llmopt.run(**asked, runs=tmp_path / "runs")):
        with pytest.raises(DatasetError, match=said):
            call()
    assert not (tmp_path / "runs").exists()
    asked["skip_unreadable"] = True
    note = "3 of 8 test images are left out (1 damaged, 2 not an image)"
    assert note in llmopt.plan(**asked).notes
    found = llmopt.run(**asked, runs=tmp_path / "runs", progress=False)
    assert note in found.result["task"]["notes"]
    assert found.result["task"]["skipped"] == {"test images that cannot be read": 3}


def test_looking_is_bounded_in_time(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundness, "SECONDS", 0)
    notes = examined(f"folder:{photos}").notes
    for which, note in zip(("train", "val", "test"), notes, strict=True):
        assert note.startswith(f"8 of 8 {which} images were not looked at beforehand")


def named(*names: str) -> tuple[str, ...]:
    nothing = Labelled((), np.empty(0, dtype=np.int64))
    dataset = ListedDataset(
        "x", tuple(map(str, range(len(names)))), names, {}, "", (Template(PLAIN),)
    )
    return examine(dataset, nothing, nothing).notes


def test_classes_that_share_a_prompt() -> None:
    assert named("cat", "dog") == ()
    (said,) = named("golden_retriever", "golden retriever", "Cat", "cat", "dog")
    assert said.startswith("4 classes share a prompt with another")
    assert "'golden_retriever' = 'golden retriever', 'Cat' = 'cat'" in said
    for pair in (
        ("cafe\u0301", "café"),
        ("a  b", "a b"),
        ("a\u200bb", "ab"),
        ("STRASSE", "straße"),
    ):
        assert named(*pair)[0].startswith("2 classes share a prompt")
    assert "the class names are numbers" in named("0", "1")[0]


def test_classes_that_lack_images(photos: Path) -> None:
    save(photos / "train" / "emu" / "0.png", 2, 0)
    save(photos / "test" / "fox" / "0.png", 3, 0)
    notes = examined(f"folder:{photos}").notes
    assert notes == (
        "no training images for 1 classes: 'fox'",
        "no test images for 1 classes: 'emu'",
    )


def test_what_was_passed_over_is_in_notes_and_result(photos: Path, tmp_path: Path) -> None:
    (photos / "train" / "cat" / "x.heic").touch()
    (photos / "test" / "cat" / "bad.png").write_bytes(b"no image")
    name = f"folder:{photos}"
    said = "passed over: 1 .heic files (format not read)"
    assert said in examined(name, skip_unreadable=True).notes
    report = check_dataset(name, Path())
    assert said in report.notes
    assert report.skipped == {".heic files (format not read)": 1}
    found = llmopt.run(
        dataset=name, model="shapes-tiny", optimizer="zeroshot", skip_unreadable=True,
        runs=tmp_path / "runs", progress=False,
    )  # fmt: skip
    left_out = "1 of 9 test images are left out (1 not an image)"
    assert found.result["task"]["notes"] == [said, left_out]
    assert found.result["task"]["skipped"] == {
        ".heic files (format not read)": 1,
        "test images that cannot be read": 1,
    }
