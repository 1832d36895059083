"""Image features on disk, shared by all runs.

Features are keyed by the box (weights and preprocessing) and the image's content, so a cache can
never serve the features of another model or of a changed file; a remote box has one of its own, by
its address. They lie in safetensors shards that are written whole or not at all; a process killed
half-way loses the batch it was on, no more. A shard whose checksum is wrong is thrown away, and its
images are encoded again.

Workers that need the same images wait for the first of them and read what it wrote. Of all that is
kept, the shards that nobody read for longest go when it grows beyond ``$LLMOPT_CACHE_SIZE``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from llmopt.errors import ConfigError, ModelError
from llmopt.images import Image
from llmopt.spend.files import Damaged, read_arrays, write_arrays
from llmopt.task import FloatArray

if TYPE_CHECKING:
    from llmopt.vision.base import BlackBox

SHARD_IMAGES = 2048
SIZE_VARIABLE: Final = "LLMOPT_CACHE_SIZE"
_HASH = re.compile("[0-9a-f]{64}")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) *([KMGT]?)I?B?", re.IGNORECASE)
_USUAL: Final = "20 GiB"
_PATIENCE: Final = 900.0
"""Seconds for which another worker that encodes the same images is waited for."""


class FeatureCache:
    """Image features of any number of boxes below one folder.

    Args:
        root: the folder; created when first written. If it cannot be written, features are simply
            computed again.
        on_progress: told (done, total) images while new ones are encoded.
        note: told what was thrown away.

    Raises:
        ConfigError: ``$LLMOPT_CACHE_SIZE`` is no size.
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
        self._most = most_bytes()
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
        pictures = {image.key(): image for image in images}
        found = self._gather(folder, pictures)
        todo = [key for key in pictures if key not in found]
        for start in range(0, len(todo), SHARD_IMAGES):
            self._on_progress(start, len(todo))
            block = todo[start : start + SHARD_IMAGES]
            with _alone_with(folder, block):
                found.update(self._gather(folder, block))  # by whoever was waited for
                if missing := [key for key in block if key not in found]:
                    rows = encode([pictures[key] for key in missing])
                    found.update(zip(missing, rows, strict=True))
                    self._write(folder, missing, rows)
        if todo:
            self._on_progress(len(todo), len(todo))
        return np.stack([found[image.key()] for image in images])

    def _gather(self, folder: Path, keys: Iterable[str]) -> dict[str, FloatArray]:
        """Rows by key, of those on disk in shards that are whole."""
        index = self._index.setdefault(folder.name, {})
        known = set(index.values())
        for path in sorted(set(folder.glob("*.safetensors")) - known):
            index.update(dict.fromkeys(_keys_of(path), path))
        wanted = {key: index[key] for key in keys if key in index}
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

    def _write(self, folder: Path, keys: list[str], rows: FloatArray) -> None:
        path = folder / f"{keys[0][:16]}-{len(keys)}-{os.getpid()}.safetensors"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            write_arrays(path, {"features": rows}, {"keys": json.dumps(keys)})
            self._index[folder.name].update(dict.fromkeys(keys, path))
        _trim(folder.parent, self._most)


def most_bytes() -> int:
    """What all features on disk may take together: ``$LLMOPT_CACHE_SIZE``, by default 20 GiB.

    Written like ``500 MB`` or ``2g``, of 1024 each; 0 keeps nothing.

    Raises:
        ConfigError: it is no size.
    """
    given = os.environ.get(SIZE_VARIABLE) or _USUAL
    if not (read := _SIZE.fullmatch(given.strip())):
        raise ConfigError(
            f"{SIZE_VARIABLE} is {given[:40]!r}; write a size such as '500 MB' or '20 GB'"
        )
    return int(float(read[1]) * 1024 ** " KMGT".index(read[2].upper() or " "))


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


@contextlib.contextmanager
def _alone_with(folder: Path, keys: Sequence[str]) -> Iterator[None]:
    """Hold what others who encode the same images wait for; where that can't be, go on without."""
    name = hashlib.sha256("".join(keys).encode()).hexdigest()[:2]  # so that no more than 256 stay
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError, Timeout):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(folder / f".{name}.lock").acquire(_PATIENCE))
        yield


def _trim(root: Path, most: int) -> None:
    """Delete the shards that were read longest ago until the rest takes no more than ``most``."""
    shards: list[tuple[float, int, Path]] = []
    for path in root.glob("*/*.safetensors*"):  # and what killed runs left half-written
        with contextlib.suppress(OSError):  # gone by now
            told = path.stat()
            shards.append((told.st_mtime, told.st_size, path))
    total = sum(size for _, size, _ in shards)
    for _, size, path in sorted(shards):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            total -= size


def _keys_of(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="numpy") as shard:
            return _keys(shard.metadata()["keys"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return []  # not one of ours, or damaged: its images are encoded again


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
    with contextlib.suppress(OSError):
        os.utime(path)  # what was read last goes last
    rows, keys = kept.arrays.get("features"), _keys(kept.texts.get("keys", ""))
    if not kept.checked or rows is None or rows.ndim != 2 or len(rows) != len(keys):
        raise Damaged("it is no shard of this version")
    if not np.isfinite(rows).all():
        raise Damaged("it holds what is no number")
    return dict(zip(keys, rows, strict=True))
