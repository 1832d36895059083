"""Images of every sort, and refusals that name the file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from PIL import Image as PillowImage

import llmopt
from llmopt.data.loading import in_threads, load_batches, readable
from llmopt.errors import ConfigError, DatasetError
from llmopt.images import (
    ArchivedImage,
    FileImage,
    Image,
    PixelImage,
    as_image,
    decode,
    is_image_name,
)
from llmopt.task import Labelled

RED = (220, 30, 30)


def stored(path: Path, image: PillowImage.Image, **options: object) -> FileImage:
    image.save(path, **options)
    return FileImage(path.parent, path.name)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("RGB", "a.jpg"),
        ("RGB", "a.png"),
        ("RGB", "a.webp"),
        ("RGB", "a.bmp"),
        ("RGB", "a.tif"),
        ("RGB", "a.ppm"),
        ("RGBA", "a.png"),
        ("P", "a.png"),
        ("P", "a.gif"),
        ("CMYK", "a.jpg"),
        ("YCbCr", "a.jpg"),
        ("LAB", "a.tif"),
    ],
)
def test_every_mode_becomes_rgb(mode: str, name: str, tmp_path: Path) -> None:
    picture = PillowImage.new("RGB", (20, 10), RED)
    if mode == "LAB":
        picture = PillowImage.new("LAB", (20, 10), (120, 190, 170))
    elif mode != "RGB":
        picture = picture.convert(mode)
    loaded = stored(tmp_path / name, picture).load()
    assert (loaded.mode, loaded.size) == ("RGB", (20, 10))
    red, green, blue = loaded.getpixel((10, 5))
    assert red > 2 * max(green, blue)


@pytest.mark.parametrize(("mode", "name"), [("L", "a.jpg"), ("1", "a.png"), ("LA", "a.png")])
def test_grey_becomes_rgb(mode: str, name: str, tmp_path: Path) -> None:
    picture = PillowImage.new("L", (20, 10), 255).convert(mode)
    assert stored(tmp_path / name, picture).load().getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([[0, 257 * 100, 65535]], np.uint16), [0, 100, 255]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 257 * 100, 65535]], np.int32), [0, 100, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[np.nan, -5.0, 1.0]], np.float32), [0, 0, 255]),
        (np.array([[0.5, np.inf, 1.0]], np.float32), [128, 0, 255]),
        (np.array([[0.5, -np.inf, 1.02]], np.float32), [128, 0, 255]),
        (np.array([[0.5, 3.4028235e38, 1.0]], np.float32), [128, 0, 255]),
        (np.array([[100.0, 1e20, 255.0]], np.float32), [100, 0, 255]),
        (np.array([[2047.5, -9999.0, 4095.0]], np.float32), [128, 0, 255]),
        (np.array([[100, 2**31 - 1, 255]], np.int32), [100, 0, 255]),
        (np.array([[0, 2048, 4095]], np.uint16), [0, 128, 255]),
        (np.array([[0, 100, 255]], np.uint16), [0, 100, 255]),
        (np.array([[0, 0, 0]], np.uint16), [0, 0, 0]),
    ],
)
def test_deep_pixels_are_scaled_not_clipped(
    pixels: np.ndarray, expected: list[int], tmp_path: Path
) -> None:
    loaded = stored(tmp_path / "a.tif", PillowImage.fromarray(pixels)).load()
    assert np.asarray(loaded)[0, :, 0].tolist() == expected


def test_12_bits_in_a_16_bit_png(tmp_path: Path) -> None:
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    loaded = np.asarray(stored(tmp_path / "a.png", PillowImage.fromarray(ramp)).load())
    assert (loaded.min(), loaded.max()) == (0, 255)
    assert abs(float(loaded.mean()) - 127.5) < 1


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[1e6, 2e6]], np.float32), "values up to 2e\\+06"),
        (np.array([[70_000, 80_000]], np.int32), "values up to 80000"),
        (np.full((2, 2), np.nan, np.float32), "no data in any pixel"),
        (np.full((2, 2), np.inf, np.float32), "no data in any pixel"),
    ],
)
def test_pixels_without_a_scale_are_refused(
    pixels: np.ndarray, message: str, tmp_path: Path
) -> None:
    image = stored(tmp_path / "a.tif", PillowImage.fromarray(pixels))
    with pytest.raises(DatasetError, match=rf"a\.tif (has|holds) {message}.*--skip-unreadable"):
        image.load()


def test_palette_with_transparency_is_read_without_a_warning(tmp_path: Path) -> None:
    picture = PillowImage.new("RGB", (8, 8), RED).quantize(4)
    image = stored(tmp_path / "a.png", picture, transparency=bytes([0, 128, 255]))
    assert image.load().getpixel((0, 0))[0] > 200


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = PillowImage.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    image = stored(tmp_path / "a.jpg", PillowImage.new("RGB", (20, 10)), exif=exif)
    assert image.load().size == (10, 20)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_reason_to_refuse(tmp_path: Path) -> None:
    exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40
    image = stored(tmp_path / "a.jpg", PillowImage.new("RGB", (20, 10)), exif=exif)
    assert image.load().size == (20, 10)


def test_odd_names(tmp_path: Path) -> None:
    folder = tmp_path / "ein Ordner" / "日本"
    folder.mkdir(parents=True)
    PillowImage.new("RGB", (4, 4)).save(folder / "größe #1 %20.JPG", "JPEG")
    image = FileImage(tmp_path, "ein Ordner/日本/größe #1 %20.JPG")
    assert image.load().size == (4, 4)
    assert isinstance(image, Image)


# ----------------------------------------------------------------------------------- refusals


def encoded(form: str = "JPEG", size: tuple[int, int] = (64, 64)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    buffer = BytesIO()
    PillowImage.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an image"),
        (b"<!DOCTYPE html>", "is not an image"),
        (b"\xff\xd8\xff", "is not an image|is damaged"),
        (encoded()[:-200], "is damaged"),
        (encoded("PNG")[:-200], "is damaged"),
        (encoded("PNG")[:60] + b"xxxxxxxx" + encoded("PNG")[68:], "is damaged"),
        (encoded("WEBP")[:100], "is damaged|is not an image"),
        (encoded("GIF")[:-600], "is damaged"),
    ],
)
def test_damaged_files_are_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(DatasetError, match=message) as error:
        FileImage(tmp_path, "x.jpg").load()
    assert str(tmp_path / "x.jpg") in str(error.value)
    assert "--skip-unreadable" in str(error.value)


@pytest.mark.parametrize("form", ["EPS", "PDF", "PCX", "ICO", "SGI", "DDS", "ICNS", "XBM"])
def test_the_bytes_choose_among_the_formats_named_only(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("another program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("subprocess.check_call", started)
    buffer = BytesIO()
    PillowImage.new("1" if form == "XBM" else "RGB", (64, 64)).save(buffer, form)
    (tmp_path / "holiday.jpg").write_bytes(buffer.getvalue())
    with pytest.raises(DatasetError, match="is not an image of a format that is read"):
        FileImage(tmp_path, "holiday.jpg").load()


def test_phones_pictures_of_several_parts_are_read(tmp_path: Path) -> None:
    picture = PillowImage.new("RGB", (20, 10), RED)
    picture.save(tmp_path / "a.mpo", "MPO", save_all=True, append_images=[picture])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert FileImage(tmp_path, "a.jpg").load().size == (20, 10)


def test_pictures_are_opened_in_one_place() -> None:
    package = Path(llmopt.__file__).parent
    opening = re.compile(r"(?:PIL|Pillow|PillowImage|Image)\.(?:open|frombuffer|frombytes)\(")
    found = {
        str(f.relative_to(package)) for f in package.rglob("*.py") if opening.search(f.read_text())
    }
    assert found == {"images.py"}


def make(kind: str, path: Path) -> None:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "socket":
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(os.path.relpath(path))
        case "device":
            path.symlink_to("/dev/zero")
        case "loop":
            path.symlink_to(path)
        case "endless":
            with path.open("wb") as file:
                file.truncate(2**40)


KINDS = {
    "pipe": "it is a pipe, not a file",
    "folder": "it is a folder, not a file",
    "socket": "it is a socket, not a file",
    "device": "it is a device, not a file",
    "loop": "symbolic links",
    "endless": "more than 1,073,741,824 bytes",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_opened(kind: str, tmp_path: Path) -> None:
    make(kind, tmp_path / "x.png")
    image = FileImage(tmp_path, "x.png")
    for attempt in (image.load, image.key):
        with pytest.raises(DatasetError, match=rf"x\.png cannot be read: .*{KINDS[kind]}"):
            attempt()
    archived = ArchivedImage(tmp_path / "x.png", 0, 2**31, "a.png")
    with pytest.raises(DatasetError, match="cannot be read"):
        archived.load()


def test_missing_file(tmp_path: Path) -> None:
    image = FileImage(tmp_path, "none.jpg")
    for attempt in (image.load, image.key):
        with pytest.raises(DatasetError, match=r"none\.jpg is missing"):
            attempt()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    image = stored(tmp_path / "a.png", PillowImage.new("L", (4, 4)))
    image.path.chmod(0)
    with pytest.raises(DatasetError, match="permission denied"):
        image.load()


@pytest.mark.parametrize("side", [10_000, 20_000])
def test_decompression_bombs_are_refused_unopened(side: int, tmp_path: Path) -> None:
    image = stored(tmp_path / "bomb.png", PillowImage.new("1", (side, side)))
    with pytest.raises(
        DatasetError, match=r"bomb\.png cannot be read: it has more than 89,478,485"
    ):
        image.load()


@pytest.mark.parametrize("size", [(1, 1_000_000), (1_000_000, 1), (3, 301)])
def test_pictures_that_would_be_huge_after_the_resize_are_refused(
    size: tuple[int, int], tmp_path: Path
) -> None:
    image = stored(tmp_path / "long.png", PillowImage.new("1", size))
    with pytest.raises(
        DatasetError, match=rf"long\.png .*: it is {size[0]} x {size[1]} pixels, one"
    ):
        image.load()


def test_long_pictures_are_read(tmp_path: Path) -> None:
    assert stored(tmp_path / "long.png", PillowImage.new("1", (3, 300))).load().size == (3, 300)


SEEDS = [encoded(form, (9, 7)) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "WEBP")]
for deep in (np.full((7, 9), 4000, np.uint16), np.full((7, 9), 0.5, np.float32)):
    PillowImage.fromarray(deep).save(tiff := BytesIO(), "TIFF")
    SEEDS.append(tiff.getvalue())


@fuzz(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=8)), max_size=6
    ),
    kept=st.floats(0.0, 1.0) | st.just(1.0),
)
def test_any_bytes_are_a_picture_or_refused(
    seed: bytes, changes: list[tuple[int, bytes]], kept: float
) -> None:
    content = bytearray(seed)
    for place, patch in changes:
        place %= len(content)
        content[place : place + len(patch)] = patch
    stream = BytesIO(bytes(content[: int(kept * len(content))]))
    with contextlib.suppress(DatasetError):
        picture = decode(stream, "drawn")
        assert picture.mode == "RGB"
        assert min(picture.size) > 0


# --------------------------------------------------------------------------------------- keys


def test_key_is_of_the_content(tmp_path: Path) -> None:
    one = stored(tmp_path / "a.png", PillowImage.new("RGB", (4, 4), RED))
    two = stored(tmp_path / "b.png", PillowImage.new("RGB", (4, 4), RED))
    other = stored(tmp_path / "c.png", PillowImage.new("RGB", (4, 4)))
    assert one.key() == two.key() == hashlib.sha256(one.path.read_bytes()).hexdigest()
    assert one.key() != other.key()


def test_key_of_a_file_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    image = stored(tmp_path / "a.png", PillowImage.new("RGB", (4, 4)))
    first = image.key()
    state = image.path.stat()
    image.path.write_bytes(bytes(state.st_size))
    os.utime(image.path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert image.key() == first  # same size and time: not read again
    os.utime(image.path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert image.key() != first


def test_archived_image(tmp_path: Path) -> None:
    content = encoded("PNG")
    (tmp_path / "x.tar").write_bytes(b"before" + content + b"after")
    image = ArchivedImage(tmp_path / "x.tar", 6, len(content), "x.tar/a/1.png")
    assert image.key() == hashlib.sha256(content).hexdigest()
    assert image.load().size == (64, 64)
    with pytest.raises(DatasetError, match=r"x\.tar ends inside a/1\.png"):
        ArchivedImage(tmp_path / "x.tar", 6, 10**6, "a/1.png").load()
    with pytest.raises(DatasetError, match="missing"):
        ArchivedImage(tmp_path / "y.tar", 0, 1, "a").key()


def test_pixel_image() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = PixelImage("x", pixels)
    assert image.load().mode == "RGB"
    assert image.key() == PixelImage("y", pixels.copy()).key()
    assert image.key() != PixelImage("x", pixels.reshape(4, 16)).key()


@pytest.mark.parametrize(
    "shape", [(9,), (9, 9, 2), (9, 9, 7), (9, 9, 3, 1), (1, 1000), (1000, 1, 3), (0, 9), (0, 0, 3)]
)
def test_arrays_that_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises((ConfigError, DatasetError), match=r"array of pixels|one side"):
        as_image(np.zeros(shape, np.uint8))


def test_given_pictures_are_scaled_as_files_are() -> None:
    deep = PillowImage.fromarray(np.full((4, 4), 257 * 100, np.uint16))
    bright = PillowImage.fromarray(np.full((4, 4), 1.0, np.float32))
    values = [as_image(given).load().getpixel((0, 0)) for given in (deep, bright)]
    assert values == [(100,) * 3, (255,) * 3]


def test_image_names() -> None:
    assert all(map(is_image_name, ["a.jpg", "b.JPEG", "c.x.Png", "d.webp"]))
    assert not any(map(is_image_name, ["._a.jpg", ".jpg", "a.txt", "Thumbs.db", "a", "a.jpg.txt"]))


def test_decode_takes_streams() -> None:
    assert decode(BytesIO(encoded()), "stream").size == (64, 64)


# ------------------------------------------------------------------------------------ loading


@pytest.fixture
def mixed(tmp_path: Path) -> Labelled:
    """Five images, of which the second and the fourth are damaged."""
    for number in range(5):
        stored(tmp_path / f"{number}.png", PillowImage.new("L", (4, 4), number))
    for number in (1, 3):
        (tmp_path / f"{number}.png").write_bytes(b"nothing")
    images = tuple(FileImage(tmp_path, f"{number}.png") for number in range(5))
    return Labelled(images, np.arange(5, dtype=np.int64))


def test_unreadable_images_are_left_out_and_named(mixed: Labelled) -> None:
    good, left_out = readable(mixed)
    assert good.labels.tolist() == [0, 2, 4]
    assert left_out == ("1.png", "3.png")


def test_batches_keep_the_order(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    images = [PixelImage(str(i), np.full((3, 3), i, np.uint8)) for i in range(11)]

    def load(image: Image) -> object:
        return torch.from_numpy(np.asarray(image.load()).copy())

    batches = list(load_batches(images, load, torch.stack, batch_size=4, workers=3))
    assert [indices.tolist() for indices, _ in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    for indices, pixels in batches:
        assert pixels.shape == (len(indices), 3, 3, 3)
        assert pixels[:, 0, 0, 0].tolist() == indices.tolist()
    assert list(load_batches([], load, torch.stack, 4)) == []


def test_a_damaged_image_ends_loading_with_its_name(mixed: Labelled) -> None:
    with pytest.raises(DatasetError, match=r"1\.png"):
        list(load_batches(mixed.images, lambda image: image.load(), list, 2))


def test_threads_work_ahead_only_so_far() -> None:
    started: list[int] = []
    results = in_threads(lambda i: started.append(i) or i, range(1000), workers=2, ahead=3)
    assert next(results) == 0
    assert len(started) <= 5
    results.close()
    assert len(started) <= 5


def test_threads_stop_at_the_first_error() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        return 1 // (item - 3)

    with pytest.raises(ZeroDivisionError):
        list(in_threads(work, range(1000), workers=1, ahead=1))
    assert len(started) < 10
