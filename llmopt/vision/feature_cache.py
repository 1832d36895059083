"""Image features on disk, shared by all runs.

Features are keyed by the box (weights and preprocessing) and the image's content, so a cache can
never serve the features of another model or of a changed file. They lie in safetensors shards
that are written whole or not at all; a process killed half-way loses the batch it was on, no more.
Shards are memory-mapped when read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from llmopt.images import Image
from llmopt.spend.files import replace_atomically
from llmopt.task import FloatArray

if TYPE_CHECKING:
    from llmopt.vision.base import BlackBox

SHARD_IMAGES = 2048


class FeatureCache:
    """Image features of any number of boxes below one folder.

    Args:
        root: the folder; created when first written. If it cannot be written, features are simply
            computed again.
        on_progress: told (done, total) images while new ones are encoded.
    """

    def __init__(
        self, root: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
    ) -> None:
        self._root = root
        self._on_progress = on_progress
        self._index: dict[str, dict[str, tuple[Path, int]]] = {}

    def features(self, images: Sequence[Image], box: BlackBox) -> FloatArray:
        """(N, d) features of ``images``, computed by ``box`` where they are not on disk."""
        folder = self._root / "features" / box.info.weights_sha256[:32]
        weights = box.info.weights_sha256
        index = self._index.get(weights)
        if index is None:
            index = self._index[weights] = _read_index(folder)
        keys = [image.key() for image in images]
        found = _gather({key: index[key] for key in keys if key in index})
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
        todo = list(missing.items())
        for start in range(0, len(todo), SHARD_IMAGES):
            self._on_progress(start, len(todo))
            block = todo[start : start + SHARD_IMAGES]
            rows = box.image_features([image for _, image in block])
            new_keys = [key for key, _ in block]
            found.update(zip(new_keys, rows, strict=True))
            if path := _write_shard(folder, new_keys, rows):
                index.update({key: (path, i) for i, key in enumerate(new_keys)})
        if todo:
            self._on_progress(len(todo), len(todo))
        return np.stack([found[key] for key in keys])


def _read_index(folder: Path) -> dict[str, tuple[Path, int]]:
    index: dict[str, tuple[Path, int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as shard:
                keys = json.loads(shard.metadata()["keys"])
                if shard.get_slice("features").get_shape()[0] != len(keys):
                    continue
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue  # not one of ours, or damaged: its images are encoded again
        index.update({key: (path, i) for i, key in enumerate(keys)})
    return index


def _gather(wanted: dict[str, tuple[Path, int]]) -> dict[str, FloatArray]:
    """Rows by key; without those of a shard that is gone by now."""
    by_shard: dict[Path, list[tuple[str, int]]] = {}
    for key, (path, row) in wanted.items():
        by_shard.setdefault(path, []).append((key, row))
    found: dict[str, FloatArray] = {}
    for path, rows in by_shard.items():
        try:
            with safe_open(path, framework="numpy") as shard:
                features = shard.get_slice("features")
                if 4 * len(rows) >= features.get_shape()[0]:
                    whole = shard.get_tensor("features")
                    found.update({key: whole[row] for key, row in rows})
                else:
                    found.update({key: features[row : row + 1][0] for key, row in rows})
        except (SafetensorError, OSError):
            continue
    return found


def _write_shard(folder: Path, keys: list[str], rows: FloatArray) -> Path | None:
    path = folder / f"{keys[0][:16]}-{len(keys)}-{os.getpid()}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replace_atomically(path) as temporary:
            save_file(
                {"features": np.ascontiguousarray(rows)}, temporary, {"keys": json.dumps(keys)}
            )
    except OSError:
        return None
    return path
