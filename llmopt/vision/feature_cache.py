"""Image features on disk, shared by all runs.

Features are keyed by the box (weights and preprocessing) and the image's content, so a cache can
never serve the features of another model or of a changed file; a remote box has one of its own, by
its address. They lie in safetensors shards that are written whole or not at all; a process killed
half-way loses the batch it was on, no more. A shard whose checksum is wrong is thrown away, and its
images are encoded again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from llmopt.errors import ModelError
from llmopt.images import Image
from llmopt.spend.files import Damaged, read_arrays, write_arrays
from llmopt.task import FloatArray

if TYPE_CHECKING:
    from llmopt.vision.base import BlackBox

SHARD_IMAGES = 2048
_HASH = re.compile("[0-9a-f]{64}")


class FeatureCache:
    """Image features of any number of boxes below one folder.

    Args:
        root: the folder; created when first written. If it cannot be written, features are simply
            computed again.
        on_progress: told (done, total) images while new ones are encoded.
        note: told what was thrown away.
    """

    def __init__(
        self,
        root: Path,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._root = root
        self._on_progress = on_progress
        self._note = note
        self._index: dict[str, dict[str, Path]] = {}

    def features(
        self,
        images: Sequence[Image],
        box: BlackBox,
        encode: Callable[[Sequence[Image]], FloatArray] | None = None,
    ) -> FloatArray:
        """(N, d) features of ``images``, computed by ``box`` where they are not on disk.

        ``encode``, if given, asks the box in its place.
        """
        encode = encode or box.image_features
        folder = self._root / "features" / cache_key(box)
        index = self._index.get(folder.name)
        if index is None:
            index = self._index[folder.name] = _read_index(folder)
        keys = [image.key() for image in images]
        found = self._gather({key: index[key] for key in keys if key in index})
        missing = {key: image for key, image in zip(keys, images, strict=True) if key not in found}
        todo = list(missing.items())
        for start in range(0, len(todo), SHARD_IMAGES):
            self._on_progress(start, len(todo))
            block = todo[start : start + SHARD_IMAGES]
            rows = encode([image for _, image in block])
            new_keys = [key for key, _ in block]
            found.update(zip(new_keys, rows, strict=True))
            if path := _write_shard(folder, new_keys, rows):
                index.update(dict.fromkeys(new_keys, path))
        if todo:
            self._on_progress(len(todo), len(todo))
        return np.stack([found[key] for key in keys])

    def _gather(self, wanted: dict[str, Path]) -> dict[str, FloatArray]:
        """Rows by key; without those of shards that are gone or damaged by now."""
        found: dict[str, FloatArray] = {}
        thrown = 0
        for path in sorted(set(wanted.values())):
            try:
                rows = _read_shard(path)
            except Damaged:
                if path.exists():
                    path.unlink(missing_ok=True)
                    thrown += 1
                continue
            found.update({key: row for key, row in rows.items() if wanted.get(key) == path})
        if thrown:
            self._note(
                f"{thrown} file{'s' * (thrown > 1)} of the feature cache {self._root} had no "
                "checksum or a wrong one, and went: the images are encoded again"
            )
        return found


def cache_key(box: BlackBox) -> str:
    """The name of the folder in which the features of a box lie.

    That of a remote box is made of its address as well as of the hash it claims: it can neither
    choose a path nor fill the cache of a model that runs here.

    Raises:
        ModelError: the hash of a box in this process is not one.
    """
    weights = box.info.weights_sha256
    if box.address:
        both = f"{box.address}\n{weights}".encode()
        return f"remote-{hashlib.sha256(both).hexdigest()[:32]}"
    if not _HASH.fullmatch(weights):
        raise ModelError(
            f"the weights_sha256 of black box '{box.info.name}' is {weights[:80]!r}; it must be "
            "64 hexadecimal digits"
        )
    return weights[:32]


def _read_index(folder: Path) -> dict[str, Path]:
    index: dict[str, Path] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as shard:
                index.update(dict.fromkeys(_keys(shard.metadata()["keys"]), path))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue  # not one of ours, or damaged: its images are encoded again
    return index


def _keys(text: str) -> list[str]:
    try:
        keys = json.loads(text)
    except RecursionError:
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise Damaged("its keys are no list of texts")
    return keys


def _read_shard(path: Path) -> dict[str, FloatArray]:
    """Rows by key, of a shard that is whole.

    Raises:
        Damaged: it is not.
    """
    kept = read_arrays(path)
    rows, keys = kept.arrays.get("features"), _keys(kept.texts.get("keys", ""))
    if not kept.checked or rows is None or rows.ndim != 2 or len(rows) != len(keys):
        raise Damaged("it is no shard of this version")
    if not np.isfinite(rows).all():
        raise Damaged("it holds what is no number")
    return dict(zip(keys, rows, strict=True))


def _write_shard(folder: Path, keys: list[str], rows: FloatArray) -> Path | None:
    path = folder / f"{keys[0][:16]}-{len(keys)}-{os.getpid()}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(path, {"features": rows}, {"keys": json.dumps(keys)})
    except OSError:
        return None
    return path
