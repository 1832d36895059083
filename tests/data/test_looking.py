"""Damage to the files of images, found from their ends."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from PIL import Image as PillowImage

from llmopt.data.looking import by_kind, look_at
from llmopt.errors import DatasetError
from llmopt.images import ArchivedImage, FileImage


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    PillowImage.effect_noise((40, 30), 90).convert("RGB").save(buffer, form)
    return buffer.getvalue()


SOUND = {form: encoded(form) for form in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")}


def loads(image: FileImage | ArchivedImage) -> bool:
    try:
        image.load()
    except DatasetError:
        return False
    return True


@pytest.mark.parametrize("form", SOUND)
@pytest.mark.parametrize("after", [b"", b"\0\n"])
def test_sound_images_are_no_problem(form: str, after: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"before" + SOUND[form] + after + b"after")
    (tmp_path / "y").write_bytes(SOUND[form] + after)
    inside = ArchivedImage(tmp_path / "x", 6, len(SOUND[form]) + len(after), "x")
    found = look_at([FileImage(tmp_path, "y"), inside])
    assert (found.problems, found.images) == ([], 2)
    assert after or not found.decoded


@fuzz(
    form=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP"]),
    kept=st.floats(0, 1, exclude_max=True),
    junk=st.binary(max_size=40),
    archived=st.booleans(),
)
def test_what_broke_off_is_found(form: str, kept: float, junk: bytes, archived: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = SOUND[form][: int(kept * len(SOUND[form]))]
        (Path(folder) / "x").write_bytes(content)
        image: FileImage | ArchivedImage = FileImage(Path(folder), "x")
        if archived:
            image = ArchivedImage(Path(folder) / "x", 0, len(SOUND[form]), "x")
        assert bool(look_at([image]).problems) != loads(image)
        (Path(folder) / "x").write_bytes(junk)
        assert look_at([image], deep=True).problems or loads(image)


def test_what_archives_lack(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(SOUND["PNG"])
    size = len(SOUND["PNG"])
    images = [
        ArchivedImage(tmp_path / "0.tar", 0, size, "good"),
        ArchivedImage(tmp_path / "0.tar", 5, size, "beyond"),
        ArchivedImage(tmp_path / "1.tar", 0, size, "gone"),
        ArchivedImage(tmp_path / "0.tar", 0, 0, "empty"),
        ArchivedImage(tmp_path / "0.tar", 4, size - 4, "elsewhere"),
        FileImage(tmp_path, "a\0b"),
    ]
    found = look_at(images)
    assert by_kind(found.problems) == {
        "unreadable": 2, "missing": 1, "damaged": 1, "not an image": 1,
    }  # fmt: skip
    assert [p.path for p in found.problems[:4]] == ["beyond", "gone", "empty", "elsewhere"]
    assert look_at(images, seconds=0).images == 0
