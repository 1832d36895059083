"""Unpacking archives from elsewhere without trusting them.

Refused: members outside the target (``..``, absolute paths, drive letters), links, devices,
encrypted members, and archives that unpack to far more than they could honestly hold. Owners, modes
and times in the archive are ignored. A zip is judged as a whole before the first write; a tar can
only be read from front to back, and is judged on the way.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from llmopt.errors import DatasetError

MAX_RATIO: Final = 50
"""An archive may unpack to so many times its size (images hardly shrink; text does by 10)."""

MIN_LIMIT: Final = 64 << 20
"""Bytes that any archive may unpack to, however small it is."""

MIN_FILES: Final = 10_000
"""Files that any archive may hold, however small it is."""

BYTES_A_FILE: Final = 128
"""An archive may hold a file for so many of its bytes; the smallest image takes twice as many."""

_BLOCK: Final = 1 << 20
_MAX_READ: Final = 64 << 20

_DAMAGE: Final = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError,
    NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class _Member:
    """A file in an archive: its path there, the size it claims, and how to read it."""

    path: tuple[str, ...]
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path,
    into: Path,
    only: Collection[str] = (),
    *,
    nested: bool = False,
    max_bytes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Unpack a zip, or a tar that is plain or compressed with gzip, bzip2 or xz.

    Args:
        archive: the file.
        into: the folder to unpack into; made where it is absent.
        only: files and folders in the archive to unpack; all of it by default.
        nested: whether tars inside a tar are unpacked too, ``x.tar`` into ``x/``.
        max_bytes: the most it may unpack to; by default 50 times its size, or 64 MiB.
        progress: called with the number of bytes written so far.

    Returns:
        How many files were written.

    Raises:
        DatasetError: the archive is damaged, dangerous or of another kind, or the disk is full.
            What was written until then stays in ``into``.
    """
    size = archive.stat().st_size
    limit = max_bytes or max(MAX_RATIO * size, MIN_LIMIT)
    most = max(size // BYTES_A_FILE, MIN_FILES)
    wanted = [tuple(path.strip("/").split("/")) for path in only]
    claimed = written = files = 0
    try:
        with _members(archive, limit, nested) as members:
            for member in members:
                claimed += member.size
                if claimed > limit:
                    raise _bomb(archive, limit)
                if files >= most:
                    raise DatasetError(
                        f"archive {archive} holds more than {most:,} files, "
                        "more than its size can honestly hold"
                    )
                if wanted and not any(member.path[: len(w)] == w for w in wanted):
                    continue
                target = into.joinpath(*member.path)
                target.parent.mkdir(parents=True, exist_ok=True)
                for count in _copy(member, target):
                    written += count
                    if written > limit:  # the archive lied about sizes
                        raise _bomb(archive, limit)
                files += 1
                if progress is not None:
                    progress(written)
    except _DAMAGE as error:
        raise DatasetError(f"archive {archive} is damaged ({error}); fetch it again") from error
    except OSError as error:
        raise DatasetError(f"archive {archive} cannot be unpacked into {into}: {error}") from error
    return files


def _copy(member: _Member, target: Path) -> Iterator[int]:
    source = member.open()
    if source is None:
        return
    with source, target.open("wb") as sink:
        while block := source.read(_BLOCK):
            sink.write(block)
            yield len(block)


@contextmanager
def _members(archive: Path, limit: int, nested: bool) -> Iterator[Iterable[_Member]]:
    """The files in an archive, to be read one after the other."""
    with archive.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(archive) as source:
            yield _zip_members(archive, source, limit)
        return
    for magic, name in ((b"Rar!", "RAR"), (b"7z\xbc\xaf", "7-Zip")):
        if head.startswith(magic):
            raise DatasetError(
                f"{archive} is a {name} archive; unpack it by hand, with 7z or unrar"
            )
    if head.lstrip().lower().startswith((b"<!doc", b"<html")):
        raise DatasetError(f"{archive} is a web page, not an archive; fetch it again")
    with _tar_stream(archive, head) as stream:
        yield _tar_members(archive, stream, nested)


def _zip_members(archive: Path, source: zipfile.ZipFile, limit: int) -> list[_Member]:
    members = []
    for info in source.infolist():
        path = _safe(archive, info.filename)
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise DatasetError(f"archive {archive} holds a link or a device: {info.filename!r}")
        if info.flag_bits & 1:
            raise DatasetError(f"archive {archive} is encrypted: {info.filename!r}")
        if not info.is_dir():
            members.append(_Member(path, info.file_size, _opener(source, info)))
    if sum(member.size for member in members) > limit:
        raise _bomb(archive, limit)
    return members


def _opener(source: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: source.open(info)


def _tar_members(archive: Path, stream: IO[bytes], nested: bool) -> Iterator[_Member]:
    guarded: Any = _Guarded(archive, stream)
    with tarfile.open(fileobj=guarded, mode="r:") as source:
        while (info := source.next()) is not None:
            # tarfile keeps every header it has read; a million of them fill the memory.
            source.members = []  # type: ignore[attr-defined]
            path = _safe(archive, info.name)
            if not (info.isfile() or info.isdir()):
                raise DatasetError(f"archive {archive} holds a link or a device: {info.name!r}")
            if nested and info.isfile() and path[-1].endswith(".tar"):
                folder = (*path[:-1], path[-1].removesuffix(".tar"))
                content = source.extractfile(info)
                for member in _tar_members(archive, content, False) if content else ():
                    yield _Member((*folder, *member.path), member.size, member.open)
            elif info.isfile():
                yield _Member(path, info.size, _extractor(source, info))


def _extractor(source: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes] | None]:
    return lambda: source.extractfile(info)


def _tar_stream(archive: Path, head: bytes) -> IO[bytes]:
    """The bytes of the tar, whatever it is compressed with."""
    opener: Any = Path.open
    if head.startswith(b"\x1f\x8b"):
        opener = gzip.open
    elif head.startswith(b"BZh"):
        opener = bz2.open
    elif head.startswith(b"\xfd7zXZ"):
        opener = lzma.open
    stream: IO[bytes] = opener(archive, "rb")
    return stream


class _Guarded:
    """A stream that gives no more than 64 MiB at a time.

    Tar headers can be of any length, and tarfile reads them in one go: compressed zeros would fill
    the memory.
    """

    def __init__(self, archive: Path, stream: IO[bytes]) -> None:
        self._archive, self._stream = archive, stream
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_READ:
            raise _bomb(self._archive, _MAX_READ)
        return self._stream.read(size)


def _safe(archive: Path, name: str) -> tuple[str, ...]:
    """The parts of a member's path, which stays inside the folder unpacked into."""
    parts = name.replace("\\", "/").split("/")
    outside = not parts[0] and len(parts) > 1
    if outside or parts[0][1:2] == ":" or ".." in parts or "\0" in name:
        raise DatasetError(f"archive {archive} holds a path outside its folder: {name!r}")
    return tuple(part for part in parts if part not in ("", "."))


def _bomb(archive: Path, limit: int) -> DatasetError:
    return DatasetError(
        f"archive {archive} unpacks to more than {limit:,} bytes, more than it can honestly hold"
    )
