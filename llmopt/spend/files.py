"""Files that are either whole or absent, and arrays that are what was written when they are read.

Everything a run keeps is written here, so that a full disk or a folder that went away is told in
one way, and a flipped bit is seen.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from llmopt.errors import RunFolderError

if TYPE_CHECKING:
    import numpy.typing as npt

_DIGEST: Final = "sha256"
_WAYS_OUT: Final = {
    errno.ENOENT: "was the folder moved away? Put it back, or 'llmopt resume' it where it lies",
    errno.ENOSPC: "make room there, then 'llmopt resume'",
}


class Damaged(ValueError):
    """A file does not hold what was written into it; the message says how that is known."""


@dataclass(frozen=True)
class Stored:
    """Arrays and texts of a file.

    Attributes:
        arrays, texts: by name.
        checked: their checksum is right; False in a file of an earlier version, which has none.
    """

    arrays: dict[str, npt.NDArray[Any]]
    texts: dict[str, str]
    checked: bool


@contextlib.contextmanager
def replace_atomically(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or none of it; a pipe or a device is written to."""
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(content)
        return
    with replace_atomically(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file or none of it."""
    write_bytes(path, text.encode("utf-8"))


def write_arrays(
    path: Path, arrays: Mapping[str, npt.NDArray[Any]], texts: Mapping[str, str]
) -> None:
    """Write arrays and texts as one safetensors file with a checksum over both, or none of it."""
    import numpy as np
    from safetensors.numpy import save

    # safetensors writes memory as it lies, whatever the strides say.
    laid = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # Bytes first: when the disk is full, safetensors' own writer raises what is no OSError.
    write_bytes(path, save(laid, {**texts, _DIGEST: _digest(laid, texts)}))


def read_arrays(path: Path) -> Stored:
    """What :func:`write_arrays` wrote; any safetensors file can be read.

    Raises:
        Damaged: it is missing, not such a file, or its checksum is wrong.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise Damaged("there is no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            texts = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, AttributeError, MemoryError, TypeError, ValueError) as error:
        raise Damaged(f"{error!s:.120}") from error
    digest = texts.pop(_DIGEST, None)
    if digest is not None and digest != _digest(arrays, texts):
        raise Damaged("its checksum is wrong")
    return Stored(arrays, texts, digest is not None)


def _digest(arrays: Mapping[str, npt.NDArray[Any]], texts: Mapping[str, str]) -> str:
    whole = hashlib.sha256(json.dumps(sorted(texts.items())).encode())
    for name, array in sorted(arrays.items()):
        whole.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


@contextlib.contextmanager
def keeping(path: Path) -> Iterator[None]:
    """Tell what the disk refuses as an error that says how to go on.

    Raises:
        RunFolderError: ``path`` cannot be written.
    """
    try:
        yield
    except OSError as error:
        way_out = _WAYS_OUT.get(error.errno or 0, "allow writing there, then 'llmopt resume'")
        raise RunFolderError(
            f"cannot write {path}: {error.strerror or error}; "
            f"nothing written before is lost: {way_out}"
        ) from error


def default_cache_dir() -> Path:
    """``$LLMOPT_CACHE``, else ``llmopt`` in the user's cache folder."""
    if chosen := os.environ.get("LLMOPT_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmopt"
