"""What stands in the files of images, told from both their ends.

An image's file is there, its first bytes are those of an image format, and its last bytes end it as
they should. That takes a few system calls, some 10 µs, and finds what goes wrong in practice:
missing files, empty ones, web pages and pointer files in place of images, downloads that broke off.
What looks odd is then decoded, and so is everything where ``deep`` is asked for.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal

from llmopt.data.loading import in_threads
from llmopt.errors import DatasetError
from llmopt.images import ArchivedImage, FileImage, Image, regular

Kind = Literal["missing", "not an image", "damaged", "unreadable", "duplicate", "split"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: what sort of thing.
        path: the file or folder, or ``""`` for the split as a whole.
        detail: more, where there is more to say.
    """

    kind: Kind
    path: str
    detail: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.kind, self.path, self.detail) if part)


@dataclass
class Looked:
    """What looking at images came to.

    Attributes:
        problems: images that cannot be used.
        images: how many were looked at.
        decoded: how many of them were decoded in full.
    """

    problems: list[Problem] = field(default_factory=list)
    images: int = 0
    decoded: int = 0


def look_at(
    images: Sequence[Image],
    *,
    deep: bool = False,
    seconds: float = math.inf,
    progress: Callable[[int], None] | None = None,
) -> Looked:
    """Look at images, in order.

    Args:
        images: files, parts of archives, pixels; the last can only be decoded.
        deep: decode every image, on all cores.
        seconds: after so many, no more are looked at.
        progress: called now and then with the images done.
    """
    found, late = Looked(), time.monotonic() + seconds
    for results in _in_chunks(images, deep, late):
        found.images += len(results)
        found.decoded += sum(decoded for _, decoded in results)
        found.problems += [problem for problem, _ in results if problem is not None]
        if progress is not None:
            progress(found.images)
    return found


def by_kind(problems: Iterable[Problem]) -> dict[str, int]:
    """How many problems there are of each kind."""
    return dict(Counter(problem.kind for problem in problems))


def place(image: Image) -> str:
    """Where an image lies, or what it is called."""
    return str(image.path) if isinstance(image, FileImage) else image.name


_Result = tuple[Problem | None, bool]
_CHUNK: Final = 512
_SLOW_DISK: Final = 5e-4  # seconds an image
_SLOW_DISK_WORKERS: Final = 16


def _in_chunks(images: Sequence[Image], deep: bool, late: float) -> Iterator[list[_Result]]:
    """Looks at the images, in the way that is fastest for the disk they lie on.

    On a local disk system calls are so short that threads only get in each other's way; where each
    takes a round trip over a network they multiply the speed.
    """

    def look(chunk: Sequence[Image]) -> list[_Result]:
        return [_look(image, deep) for image in chunk if time.monotonic() < late]

    if deep:
        yield from in_threads(look, (images[i : i + 1] for i in range(len(images))))
        return
    chunks = (images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK))
    for first in islice(chunks, 1):
        start = time.perf_counter()
        yield look(first)
        slow = time.perf_counter() - start > _SLOW_DISK * len(first)
        yield from in_threads(look, chunks, _SLOW_DISK_WORKERS) if slow else map(look, chunks)


def _look(image: Image, deep: bool) -> _Result:
    if not isinstance(image, (FileImage, ArchivedImage)):
        return _decode(image) if deep else (None, False)
    try:
        size, head, tail = _ends(image)
    except FileNotFoundError:
        return Problem("missing", place(image)), False
    except (OSError, ValueError) as error:  # a name may hold a NUL
        why = getattr(error, "strerror", None) or str(error)
        return Problem("unreadable", place(image), why), False
    if not size:
        return Problem("damaged", place(image), "the file is empty"), False
    if deep or not _looks_sound(head, tail, size):
        problem, decoded = _decode(image)
        if problem is not None and not _signed(head):
            problem = Problem("not an image", place(image), _what_it_is(head))
        return problem, decoded
    return None, False


def _ends(image: FileImage | ArchivedImage) -> tuple[int, bytes, bytes]:
    """An image's length, first 32 and last 12 bytes."""
    if isinstance(image, FileImage):
        path = os.path.join(image.root, image.relative)  # noqa: PTH118 (pathlib takes most of the time)
        start, size = 0, regular(path).st_size
    else:
        path = str(image.archive)
        start, size = image.offset, image.size
        if regular(path, most=math.inf).st_size < start + size:
            raise OSError(errno.EIO, "the archive ends inside it")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        head = os.pread(descriptor, min(32, size), start)
        return size, head, os.pread(descriptor, 12, start + max(size - 12, 0))
    finally:
        os.close(descriptor)


def _decode(image: Image) -> _Result:
    try:
        image.load()
    except DatasetError as error:
        cause = error.__cause__
        why = getattr(cause, "strerror", None) or str(cause or error)
        return Problem("damaged", place(image), why), True
    return None, True


def _signed(head: bytes) -> bool:
    return head.startswith(_STARTS) or head[4:8] == b"ftyp" or head[8:12] == b"WEBP"


_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_GIF: Final = b"GIF8"
_STARTS: Final = (
    _JPEG, _PNG, _GIF, b"BM", b"II*\0", b"MM\0*", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6",
    b"\0\0\0\x0cjP  ",
)  # fmt: skip


def _looks_sound(head: bytes, tail: bytes, size: int) -> bool:
    if head.startswith(_JPEG):
        return tail.endswith(b"\xff\xd9")
    if head.startswith(_PNG):
        return tail[4:8] == b"IEND"
    if head.startswith(_GIF):
        return tail.endswith(b";")
    if head[8:12] == b"WEBP":
        return int.from_bytes(head[4:8], "little") + 8 <= size
    return _signed(head)


def _what_it_is(head: bytes) -> str:
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page in its place"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in its place; run 'git lfs pull'"
    if not head.strip(b"\0"):
        return "zeros in its place"
    return f"starts with {head[:8]!r}"
