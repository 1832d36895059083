"""Image features on disk: right or computed anew, never wrong, never in the way."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from safetensors.numpy import save_file

from llmopt.images import Image
from llmopt.spend.files import default_cache_dir, read_arrays, write_arrays
from llmopt.testing.world import FakeBox, pictures
from llmopt.vision import feature_cache
from llmopt.vision.base import BoxInfo
from llmopt.vision.feature_cache import FeatureCache

IMAGES = pictures("train", 2).images
EXPECTED = FakeBox().image_features(IMAGES)


class Other(FakeBox):
    """Other weights: other features."""

    @property
    def info(self) -> BoxInfo:
        return BoxInfo("other", "", super().info.access, "0" * 64)

    def image_features(self, images: tuple[Image, ...]) -> np.ndarray:  # type: ignore[override]
        return -super().image_features(images)


def shards(root: Path) -> list[Path]:
    return sorted(root.rglob("*.safetensors"))


def encoded(box: FakeBox) -> int:
    return box.asked["image_encodings"]


def test_the_next_run_computes_nothing(tmp_path: Path) -> None:
    box = FakeBox()
    for _ in range(2):
        found = FeatureCache(tmp_path).features(IMAGES, box)
        np.testing.assert_array_equal(found, EXPECTED)
    assert encoded(box) == len(IMAGES)
    assert len(shards(tmp_path)) == 1


def test_only_new_images_are_computed_in_whatever_order(tmp_path: Path) -> None:
    box, cache = FakeBox(), FeatureCache(tmp_path)
    cache.features(IMAGES[:4], box)
    mixed = [IMAGES[7], IMAGES[2], IMAGES[9], IMAGES[2], IMAGES[7]]
    np.testing.assert_array_equal(cache.features(mixed, box), EXPECTED[[7, 2, 9, 2, 7]])
    assert encoded(box) == 6
    np.testing.assert_array_equal(
        FeatureCache(tmp_path).features(mixed, box), EXPECTED[[7, 2, 9, 2, 7]]
    )
    assert encoded(box) == 6


def test_a_few_rows_of_a_large_shard(tmp_path: Path) -> None:
    images = pictures("train", 8).images
    FeatureCache(tmp_path).features(images, FakeBox())
    box = FakeBox()
    found = FeatureCache(tmp_path).features([images[31], images[3]], box)
    np.testing.assert_array_equal(found, FakeBox().image_features([images[31], images[3]]))
    assert encoded(box) == 0


def test_features_belong_to_their_weights(tmp_path: Path) -> None:
    one, other = FakeBox(), Other()
    cache = FeatureCache(tmp_path)
    np.testing.assert_array_equal(cache.features(IMAGES, one), EXPECTED)
    np.testing.assert_array_equal(cache.features(IMAGES, other), -EXPECTED)
    np.testing.assert_array_equal(FeatureCache(tmp_path).features(IMAGES, one), EXPECTED)
    assert (encoded(one), encoded(other)) == (len(IMAGES), len(IMAGES))


DAMAGES = [
    "empty", "torn", "header", "noise", "no metadata", "short", "flipped", "shifted", "hole", "nan",
    "no checksum", "keys", "deep",
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_shards_are_computed_again(tmp_path: Path, damage: str) -> None:
    FeatureCache(tmp_path).features(IMAGES, FakeBox())
    (shard,) = shards(tmp_path)
    raw = shard.read_bytes()
    match damage:
        case "empty":
            shard.write_bytes(b"")
        case "torn":
            shard.write_bytes(raw[: len(raw) // 2])
        case "header":
            shard.write_bytes(raw[:5])
        case "noise":
            shard.write_bytes(bytes(255 - byte for byte in raw))
        case "no metadata":
            save_file({"features": EXPECTED}, shard)
        case "short":
            keys = f'["{IMAGES[0].key()}", "{IMAGES[1].key()}"]'
            write_arrays(shard, {"features": EXPECTED[:1]}, {"keys": keys})
        case "flipped":
            shard.write_bytes(raw[:-3] + bytes([raw[-3] ^ 4]) + raw[-2:])
        case "shifted":
            row = EXPECTED[0].nbytes
            shard.write_bytes(raw[: -EXPECTED.nbytes] + raw[-row:] + raw[-EXPECTED.nbytes : -row])
        case "hole":
            shard.write_bytes(raw[: -EXPECTED.nbytes // 2] + bytes(EXPECTED.nbytes // 2))
        case "nan":
            keys = read_arrays(shard).texts
            write_arrays(shard, {"features": np.full_like(EXPECTED, np.nan)}, keys)
        case "no checksum":
            save_file({"features": EXPECTED}, shard, read_arrays(shard).texts)
        case "keys":
            write_arrays(shard, {"features": EXPECTED}, {"keys": '[["a"], 3]'})
        case "deep":
            write_arrays(shard, {"features": EXPECTED}, {"keys": "[" * 100_000})
    box = FakeBox()
    notes: list[str] = []
    cache = FeatureCache(tmp_path, note=notes.append)
    np.testing.assert_array_equal(cache.features(IMAGES, box), EXPECTED)
    assert encoded(box) >= len(IMAGES) - 1
    told = damage in ("short", "flipped", "shifted", "hole", "nan", "no checksum")
    assert [note.startswith("1 file of the feature cache ") for note in notes] == [True] * told
    again = FakeBox()
    np.testing.assert_array_equal(FeatureCache(tmp_path).features(IMAGES, again), EXPECTED)
    assert encoded(again) <= 1


@fuzz(at=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_no_damage_is_believed(at: int, bit: int, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        FeatureCache(Path(folder)).features(IMAGES, FakeBox())
        (shard,) = shards(Path(folder))
        raw = bytearray(shard.read_bytes())
        raw[at % len(raw)] ^= 1 << bit
        shard.write_bytes(raw[: at % len(raw)] if cut else raw)
        found = FeatureCache(Path(folder)).features(IMAGES, FakeBox())
        np.testing.assert_array_equal(found, EXPECTED)


def test_a_shard_that_vanishes_is_computed_again(tmp_path: Path) -> None:
    box, cache = FakeBox(), FeatureCache(tmp_path)
    cache.features(IMAGES, box)
    for shard in shards(tmp_path):
        shard.unlink()
    np.testing.assert_array_equal(cache.features(IMAGES, box), EXPECTED)
    assert encoded(box) == 2 * len(IMAGES)


@pytest.mark.parametrize("place", ["root", "features", "weights"])
def test_a_folder_that_takes_nothing_is_no_obstacle(tmp_path: Path, place: str) -> None:
    root = tmp_path / "cache"
    blocked = {
        "root": root,
        "features": root / "features",
        "weights": root / "features" / ("f" * 32),
    }[place]
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file stands here")  # stops even root, unlike permissions
    box, cache = FakeBox(), FeatureCache(root)
    for turn in (1, 2):
        np.testing.assert_array_equal(cache.features(IMAGES, box), EXPECTED)
        assert encoded(box) == turn * len(IMAGES)
    assert blocked.read_text() == "a file stands here"


def test_a_run_killed_half_way_keeps_its_whole_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_IMAGES", 4)
    box = FakeBox()

    def killed_at_the_third() -> None:
        if box.asked["black_box_calls"] == 2:
            raise KeyboardInterrupt

    box.before = killed_at_the_third
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path).features(IMAGES, box)
    (folder,) = {shard.parent for shard in shards(tmp_path)}
    (folder / ".half-written.safetensors.77.tmp").write_bytes(b"\x08\0\0\0")
    (folder / "torn.safetensors").write_bytes(b"\x08\0\0\0")
    again = FakeBox()
    np.testing.assert_array_equal(FeatureCache(tmp_path).features(IMAGES, again), EXPECTED)
    assert encoded(again) == len(IMAGES) - 8


def test_progress_counts_what_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_IMAGES", 4)
    told: list[tuple[int, int]] = []
    cache = FeatureCache(tmp_path, lambda done, total: told.append((done, total)))
    cache.features(IMAGES[:3], FakeBox())
    cache.features(IMAGES, FakeBox())
    cache.features(IMAGES, FakeBox())
    assert told == [(0, 3), (3, 3), (0, 7), (4, 7), (7, 7)]


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMOPT_CACHE", str(tmp_path / "mine"))
    assert default_cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("LLMOPT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "llmopt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / ".cache" / "llmopt"
