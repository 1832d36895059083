"""Image features on disk: right or computed anew, never wrong, never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from safetensors.numpy import save_file

from llmopt.errors import ConfigError
from llmopt.images import Image
from llmopt.spend.files import default_cache_dir, read_arrays, write_arrays
from llmopt.testing.world import FakeBox, pictures
from llmopt.vision import feature_cache
from llmopt.vision.base import BoxInfo
from llmopt.vision.feature_cache import SIZE_VARIABLE, FeatureCache, most_bytes

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


def test_of_workers_that_need_the_same_images_one_encodes_them(tmp_path: Path) -> None:
    boxes = [FakeBox() for _ in range(6)]
    first_is_at_it, others_may = threading.Event(), threading.Event()

    def slowly() -> None:
        first_is_at_it.set()
        assert others_may.wait(30)

    boxes[0].before = slowly
    with ThreadPoolExecutor(len(boxes)) as pool:
        asked = [pool.submit(FeatureCache(tmp_path).features, IMAGES, boxes[0])]
        assert first_is_at_it.wait(30)
        asked += [pool.submit(FeatureCache(tmp_path).features, IMAGES, box) for box in boxes[1:]]
        # Who needs other images waits for nobody.
        apart = pictures("test", 2).images
        FeatureCache(tmp_path).features(apart, other := FakeBox())
        others_may.set()
        for one in asked:
            np.testing.assert_array_equal(one.result(30), EXPECTED)
    assert [encoded(box) for box in boxes] == [len(IMAGES), 0, 0, 0, 0, 0]
    assert encoded(other) == len(apart)


def test_an_encoding_that_fails_or_dies_holds_nobody_up(tmp_path: Path) -> None:
    failing = FakeBox()
    failing.before = lambda: (_ for _ in ()).throw(RuntimeError("the card fell off"))
    with pytest.raises(RuntimeError, match="fell off"):
        FeatureCache(tmp_path).features(IMAGES, failing)
    dying = FakeBox()
    program = (
        "import os, sys; from pathlib import Path\n"
        "from llmopt.testing.world import FakeBox, pictures\n"
        "from llmopt.vision.feature_cache import FeatureCache\n"
        "box = FakeBox(); box.before = lambda: os.kill(os.getpid(), 9)\n"
        "FeatureCache(Path(sys.argv[1])).features(pictures('train', 2).images, box)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert ended.returncode == -9
    np.testing.assert_array_equal(FeatureCache(tmp_path).features(IMAGES, dying), EXPECTED)
    assert encoded(dying) == len(IMAGES)


def test_who_waits_too_long_encodes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "_PATIENCE", 0.1)
    stuck, others_may, box = FakeBox(), threading.Event(), FakeBox()
    at_it = threading.Event()
    stuck.before = lambda: (at_it.set(), others_may.wait(30))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(FeatureCache(tmp_path).features, IMAGES, stuck)
        assert at_it.wait(30)
        np.testing.assert_array_equal(FeatureCache(tmp_path).features(IMAGES, box), EXPECTED)
        others_may.set()
        asked.result(30)
    assert encoded(box) == len(IMAGES)


def test_what_was_read_longest_ago_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = [pictures("train", 12).images[i : i + 8] for i in range(0, 32, 8)]
    for age, group in enumerate(groups[:3]):
        FeatureCache(tmp_path).features(group, FakeBox())
        for shard in shards(tmp_path):
            at = shard.stat().st_mtime - 1000 + age
            os.utime(shard, (at, at))
    left = tmp_path / "features" / ("f" * 32) / ".half.safetensors.77.tmp"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(bytes(100))
    os.utime(left, (1, 1))
    FeatureCache(tmp_path).features(groups[0], nothing := FakeBox())
    size = shards(tmp_path)[0].stat().st_size
    monkeypatch.setenv(SIZE_VARIABLE, str(3 * size))
    FeatureCache(tmp_path).features(groups[3], FakeBox())
    assert (encoded(nothing), left.exists(), len(shards(tmp_path))) == (0, False, 3)
    boxes = [FakeBox() for _ in groups]
    monkeypatch.setenv(SIZE_VARIABLE, "1 TB")
    for group, box in zip(groups, boxes, strict=True):
        FeatureCache(tmp_path).features(group, box)
    assert sum(encoded(box) for box in boxes) == 8
    assert encoded(boxes[0]) == encoded(boxes[3]) == 0


def test_a_cache_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIZE_VARIABLE, "0")
    for _ in range(2):
        box = FakeBox()
        np.testing.assert_array_equal(FeatureCache(tmp_path).features(IMAGES, box), EXPECTED)
        assert encoded(box) == len(IMAGES)
    assert not shards(tmp_path)


@pytest.mark.parametrize(
    ("given", "size"),
    [("", 20 * 2**30), ("1000", 1000), ("500 MB", 500 * 2**20), ("2g", 2 * 2**30),
     ("1.5 KiB", 1536), (" 1 tb ", 2**40), ("0", 0)],
)  # fmt: skip
def test_sizes(monkeypatch: pytest.MonkeyPatch, given: str, size: int) -> None:
    monkeypatch.setenv(SIZE_VARIABLE, given)
    assert most_bytes() == size


@pytest.mark.parametrize("given", ["much", "-1", "1e3", "nan", "20 XB", "20 GB 3", "9" * 5000])
def test_what_is_no_size(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv(SIZE_VARIABLE, given)
    with pytest.raises(ConfigError, match=f"^{SIZE_VARIABLE} is .*; write a size such as"):
        most_bytes()


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
