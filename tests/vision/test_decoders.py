"""Who makes pixels of images: Pillow, or the card itself, which is not here and stood in for."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage
from stand_in_card import Away, stand_in

from llmopt.errors import DatasetError, ModelError
from llmopt.images import ArchivedImage, FileImage, Image, PixelImage, plain_jpeg
from llmopt.vision import decoders
from llmopt.vision.decoders import make_decoder, why_no_nvjpeg
from llmopt.vision.openclip import OpenClipBlackBox

CARD = torch.device("cuda:0")


def picture(number: int = 0, mode: str = "RGB", size: tuple[int, int] = (90, 70)) -> Any:
    """Soft colours with some grain."""
    dice = np.random.default_rng(number)
    grain = dice.integers(0, 60, (size[1], size[0], 3))
    soft = 2 * np.arange(size[0])[None, :, None] % 150 + 20 * np.arange(3) + grain
    return PillowImage.fromarray(soft.astype(np.uint8)).convert(mode)


def jpeg(name: str, folder: Path, made: Any, **options: Any) -> FileImage:
    made.save(folder / name, "JPEG", quality=90, **options)
    return FileImage(folder, name)


def by_pillow(contents: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """What a card would decode, with true pixels."""
    found = []
    for content in contents:
        try:
            with PillowImage.open(BytesIO(content.numpy().tobytes()), formats=("JPEG",)) as opened:
                pixels = np.asarray(opened.convert("RGB")).copy()
        except OSError as error:
            raise RuntimeError(f"nvJPEG: {error}") from error
        found.append(torch.from_numpy(pixels).permute(2, 0, 1).to(device))
    return found


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """A card that decodes; how many files it was given at a time."""
    given: list[int] = []

    def decoded(contents: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        given.append(len(contents))
        return by_pillow(contents, device)

    monkeypatch.setattr(decoders, "_decoded", decoded)
    with stand_in("cuda:0"):
        yield given


def test_a_jpeg_file_is_told_from_what_decoders_differ_in(tmp_path: Path) -> None:
    plain = jpeg("plain.jpg", tmp_path, picture())
    content = plain.path.read_bytes()
    assert plain_jpeg(plain) == (content, 90 * 70)
    assert plain_jpeg(jpeg("progressive.jpg", tmp_path, picture(), progressive=True)) is not None
    (tmp_path / "padded.jpg").write_bytes(content + bytes(100))
    assert plain_jpeg(FileImage(tmp_path, "padded.jpg")) is not None
    turned = PillowImage.Exif()
    turned[0x0112] = 6
    others: list[Image] = [
        jpeg("grey.jpg", tmp_path, picture(mode="L")),
        jpeg("four_colours.jpg", tmp_path, picture(mode="CMYK")),
        jpeg("turned.jpg", tmp_path, picture(), exif=turned),
        jpeg("rgb.jpg", tmp_path, picture(), keep_rgb=True),
        PixelImage("in memory", np.asarray(picture())),
    ]
    for name, damage in {
        "cut.jpg": content[:-300],
        "head.jpg": content[:2] + bytes(20) + content[22:],
        "empty.jpg": b"",
    }.items():
        (tmp_path / name).write_bytes(damage)
        others.append(FileImage(tmp_path, name))
    picture().save(tmp_path / "png.jpg", "PNG")
    others.append(FileImage(tmp_path, "png.jpg"))
    assert [image.name for image in others if plain_jpeg(image)] == []
    with pytest.raises(DatasetError, match=r"gone\.jpg is missing"):
        plain_jpeg(FileImage(tmp_path, "gone.jpg"))


def test_one_in_an_archive_too(tmp_path: Path) -> None:
    path = jpeg("plain.jpg", tmp_path, picture()).path
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(path, "plain.jpg")
    with tarfile.open(tmp_path / "all.tar") as tar:
        member = tar.getmember("plain.jpg")
    inside = ArchivedImage(tmp_path / "all.tar", member.offset_data, member.size, "plain.jpg")
    assert plain_jpeg(inside) == (path.read_bytes(), 90 * 70)


def test_the_card_decodes_jpeg_files_and_pillow_the_rest(tmp_path: Path, card: list[int]) -> None:
    picture(3).save(tmp_path / "3.png")
    images = [
        jpeg("0.jpg", tmp_path, picture(0)),
        PixelImage("1", np.asarray(picture(1))),
        jpeg("2.jpg", tmp_path, picture(2, size=(60, 200))),
        FileImage(tmp_path, "3.png"),
        jpeg("4.jpg", tmp_path, picture(4, mode="L")),
        jpeg("5.jpg", tmp_path, picture(5)),
    ]
    usual = OpenClipBlackBox(device="cuda:0", precision="fp32", batch_size=4)
    other = OpenClipBlackBox(device="cuda:0", precision="fp32", batch_size=4, decoder="nvjpeg")
    assert card == [1]  # tried out
    expected, found = usual.image_features(images), other.image_features(images)
    assert card == [1, 2, 1]
    apart = 1.0 - (expected * found).sum(axis=1)
    assert apart.max() < 1e-3
    np.testing.assert_allclose(found[[1, 3, 4]], expected[[1, 3, 4]], atol=1e-6)
    others = 1.0 - (expected @ found.T)[~np.eye(6, dtype=bool)]
    assert others.min() > 10 * apart.max()  # each in its place


def test_pixels_are_those_of_pillow_scaled(tmp_path: Path, card: list[int]) -> None:
    """Scaled as a tensor, a picture is within two levels of itself scaled by Pillow."""
    box = OpenClipBlackBox(device="cuda:0", precision="fp32")
    image = jpeg("0.jpg", tmp_path, picture())
    here, there = (make_decoder(name, box.preprocess, CARD) for name in ("pillow", "nvjpeg"))
    on_card = there.stack([there.load(image)])
    assert isinstance(on_card, Away)
    expected = here.stack([here.load(image)])
    assert on_card.here.dtype == expected.dtype
    assert float((on_card.here - expected).abs().max()) <= 2 / 255 / 0.26


def test_features_of_two_decoders_are_never_taken_for_each_other(card: list[int]) -> None:
    one, two = (OpenClipBlackBox(device="cuda:0", decoder=d).info for d in ("pillow", "nvjpeg"))
    assert one.weights_sha256 != two.weights_sha256
    assert "images by nvjpeg" in two.detail
    assert "images by" not in one.detail


def test_what_the_card_cannot_decode_is_decoded_by_pillow(
    tmp_path: Path, card: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [jpeg(f"{n}.jpg", tmp_path, picture(n)) for n in range(3)]
    box = OpenClipBlackBox(device="cuda:0", precision="fp32", decoder="nvjpeg")
    expected = box.image_features(images)
    odd = images[1].path.stat().st_size

    def decoded(contents: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        card.append(len(contents))
        if any(len(content) == odd for content in contents):
            raise RuntimeError("nvjpegDecode failed: 8")
        return by_pillow(contents, device)

    monkeypatch.setattr(decoders, "_decoded", decoded)
    card.clear()
    assert 1.0 - (box.image_features(images) * expected).sum(axis=1).min() < 1e-3
    assert card == [3, 1, 1, 1]


def test_a_damaged_file_is_named(tmp_path: Path, card: list[int]) -> None:
    good = jpeg("good.jpg", tmp_path, picture())
    box = OpenClipBlackBox(device="cuda:0", decoder="nvjpeg")
    (tmp_path / "cut.jpg").write_bytes(good.path.read_bytes()[:-300])
    with pytest.raises(DatasetError, match=r"cut\.jpg is damaged"):
        box.image_features([good, FileImage(tmp_path, "cut.jpg")])


def test_only_so_many_pixels_are_held_at_a_time(
    tmp_path: Path, card: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [jpeg(f"{n}.jpg", tmp_path, picture(n)) for n in range(5)]
    box = OpenClipBlackBox(device="cuda:0", decoder="nvjpeg")
    monkeypatch.setattr(decoders, "AT_ONCE", 2 * 90 * 70)
    card.clear()
    box.image_features(images)
    assert card == [2, 2, 1]
    monkeypatch.setattr(decoders, "AT_ONCE", 1)
    card.clear()
    box.image_features(images)
    assert card == [1] * 5


def test_a_decoder_that_shows_something_else_is_refused(
    card: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(contents: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        return [Away(one.here.flip(0), device) for one in by_pillow(contents, device)]

    monkeypatch.setattr(decoders, "_decoded", swapped)
    with pytest.raises(ModelError, match=r"levels of 255 from pillow's; use --decoder pillow"):
        OpenClipBlackBox(device="cuda:0", decoder="nvjpeg")


def test_a_model_that_prepares_images_in_its_own_way_is_refused(card: list[int]) -> None:
    with pytest.raises(ModelError, match=r"whose 'invert' takes Pillow's pictures only"):
        make_decoder("nvjpeg", invert, CARD)


def invert(picture: PillowImage.Image) -> torch.Tensor:
    raise AssertionError


def test_where_it_cannot_work_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_nvjpeg(torch.device("cpu")) == "it needs an NVIDIA card, and the device is cpu"
    with stand_in("cuda:0"):
        monkeypatch.setattr(decoders, "_decoded", lambda *_: torch.ops.image.decode_jpegs_cuda())
        assert "torchvision is not the one made for" in why_no_nvjpeg(CARD)
    with pytest.raises(ModelError, match=r"unknown decoder 'nvjpg'; did you mean 'nvjpeg'"):
        OpenClipBlackBox(device="cpu", decoder="nvjpg")


@pytest.mark.gpu
def test_a_true_card_decodes_nearly_as_pillow(tmp_path: Path) -> None:
    if why := why_no_nvjpeg(torch.device("cuda")):
        pytest.skip(why)
    images = [jpeg(f"{n}.jpg", tmp_path, picture(n, size=(500, 375))) for n in range(64)]
    one, two = (
        OpenClipBlackBox(device="cuda", precision="fp32", decoder=d).image_features(images)
        for d in ("pillow", "nvjpeg")
    )
    assert 1.0 - (one * two).sum(axis=1).min() < 1e-2
