"""Is a data set complete and sound? Everything that is wrong, at once, before anything runs.

Each image is looked at from both ends: its file is there, its first bytes are those of an image
format, and its last bytes end a JPEG or PNG as they should. That takes a few system calls and finds
what goes wrong in practice: missing files, empty ones, web pages and pointer files in place of
images, downloads that broke off. What looks odd is then decoded, and so is everything where
``deep`` is asked for.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Final, Literal

from llmopt.data.base import SPLITS, Dataset
from llmopt.data.benchmarks.catalog import CATALOG, Entry
from llmopt.data.classnames import OWN
from llmopt.data.loading import in_threads
from llmopt.data.registry import find_home, open_dataset, open_entry
from llmopt.data.soundness import NO_TEST, notes_on, shared_pictures, told
from llmopt.errors import DatasetError
from llmopt.images import FileImage, Image, regular

Kind = Literal["missing", "not an image", "damaged", "unreadable", "duplicate", "split"]
Progress = Callable[[int, int], None]


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


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        dataset: its name.
        sizes: images in each split; empty where the split could not be read.
        classes: number of classes.
        provenance, split_sha256: of the split.
        problems: all that is wrong.
        notes: what is unusual but may be meant.
        skipped: how many things its source holds that are not used, by reason.
        next_step: what to do now.
        images: how many images were looked at.
        decoded: how many of them were decoded in full.
        seconds: how long it took.
    """

    dataset: str
    sizes: dict[str, int]
    classes: int
    provenance: str
    split_sha256: str
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    skipped: dict[str, int]
    next_step: str
    images: int
    decoded: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def counts(self) -> dict[str, int]:
        """Problems of each kind."""
        return dict(Counter(problem.kind for problem in self.problems))

    def missing_by_folder(self) -> dict[str, int]:
        """How many files are missing in each folder, most first."""
        missing = (problem.path for problem in self.problems if problem.kind == "missing")
        return dict(Counter(str(Path(path).parent) for path in missing).most_common())


def check_dataset(
    name: str,
    root: Path,
    *,
    classnames: str = OWN,
    deep: bool = False,
    progress: Progress | None = None,
) -> CheckReport:
    """Look at every file of a data set.

    Args:
        name: as for :func:`llmopt.data.registry.open_dataset`.
        root: the folder that holds the benchmarks.
        classnames: as for ``open_dataset``; checked as well.
        deep: decode every image, on all cores.
        progress: called now and then with the images done and their total.

    Raises:
        DatasetError: there is no data set of that name, or the class names are for others.
    """
    entry = CATALOG.get(name.partition(":")[0])
    if entry is None:
        dataset = open_dataset(name, root, classnames=classnames)
        return _check(name, None, [], lambda: dataset, deep, progress)
    report = check_entry(entry, root, deep=deep, progress=progress)
    if report.sizes:  # class names and view are the caller's words, no fault of the files
        open_dataset(name, root, classnames=classnames)
    return report


def check_entry(
    entry: Entry, root: Path, *, deep: bool = False, progress: Progress | None = None
) -> CheckReport:
    """As :func:`check_dataset`, for a benchmark."""
    missing = _missing_parts(entry, root)
    return _check(entry.key, entry, missing, lambda: open_entry(entry, root), deep, progress)


def _check(
    name: str,
    entry: Entry | None,
    missing: list[Problem],
    open_it: Callable[[], Dataset],
    deep: bool,
    progress: Progress | None,
) -> CheckReport:
    start = time.perf_counter()
    found = _Found(missing)
    dataset: Dataset | None = None
    if not missing:
        try:
            dataset = open_it()
        except DatasetError as error:
            found.problems.append(Problem("split", "", str(error)))
    if dataset is not None:
        _look_for_twins(dataset, entry is not None, deep, found)
        found.notes += _notes(dataset, entry)
        _look_at(dataset, deep, progress, found)
    return _report(name, entry, dataset, found, start)


@dataclass
class _Found:
    problems: list[Problem]
    notes: list[str] = field(default_factory=list)
    images: int = 0
    decoded: int = 0


def _report(
    name: str, entry: Entry | None, dataset: Dataset | None, found: _Found, start: float
) -> CheckReport:
    sizes: dict[str, int] = {}
    if dataset is not None:
        sizes.update((which, len(dataset.split(which))) for which in SPLITS)
    return CheckReport(
        dataset=name,
        sizes=sizes,
        classes=len(dataset.classnames) if dataset else 0,
        provenance=dataset.provenance if dataset else "",
        split_sha256=dataset.split_sha256 if dataset else "",
        problems=tuple(found.problems),
        notes=tuple(found.notes),
        skipped=dict(dataset.skipped) if dataset else {},
        next_step=_next_step(name, entry, found.problems, sizes),
        images=found.images,
        decoded=found.decoded,
        seconds=time.perf_counter() - start,
    )


# --------------------------------------------------------------------------------- the whole


def _missing_parts(entry: Entry, root: Path) -> list[Problem]:
    home, missing = find_home(entry, root)
    return [Problem("missing", str(home / path)) for path in missing]


def _look_for_twins(dataset: Dataset, published: bool, deep: bool, found: _Found) -> None:
    """Pictures in two splits: a test image among the training images spoils a result.

    The makers of a published split may have put copies of one picture into two parts of it; only
    the same file in both is a fault of what lies here.
    """
    copies = []
    for one in shared_pictures({which: dataset.split(which) for which in SPLITS}, deep=deep):
        path, other = _path(one.image), _path(one.other)
        if published and path != other:
            copies.append(one)
            continue
        alias = f" as {other}" if path != other else ""
        detail = f"in {one.split} and in {one.other_split}{alias}"
        found.problems.append(Problem("duplicate", path, detail))
    found.notes += told(copies)


def _path(image: Image) -> str:
    return str(image.path) if isinstance(image, FileImage) else image.name


def _notes(dataset: Dataset, entry: Entry | None) -> list[str]:
    notes = notes_on(dataset, {which: dataset.split(which) for which in SPLITS})
    if not len(dataset.split("train")):
        notes.append("no training images: it can measure a run, but not start one")
    elif not len(dataset.split("test")):
        notes.append(NO_TEST)
    if entry is not None and dataset.name == entry.key:
        if len(dataset.classnames) != entry.classes:
            notes.append(f"{len(dataset.classnames)} classes, published with {entry.classes}")
        for which, size in zip(SPLITS, entry.sizes, strict=True):
            found = len(dataset.split(which))
            if size is not None and found != size:
                notes.append(f"{found:,} {which} images, published with {size:,}")
        if "NOT the published" in dataset.provenance:
            notes.append("the split file is not the published one: results are not comparable")
    return notes


def _next_step(
    name: str, entry: Entry | None, problems: Sequence[Problem], sizes: dict[str, int]
) -> str:
    if not problems:
        if sizes.get("train"):
            return f"run 'llmopt run --dataset {name}'"
        return f"run 'llmopt evaluate RUN --dataset {name}' on a finished run"
    kinds = {problem.kind for problem in problems}
    if entry is None:
        step = "put the files right"
    elif kinds == {"missing"}:
        return f"run 'llmopt datasets download {entry.key}'"
    elif kinds == {"split"}:
        return f"delete the split file and run 'llmopt datasets download {entry.key}'"
    else:
        step = f"delete these files and run 'llmopt datasets download {entry.key}'"
    if kinds <= {"damaged", "not an image", "unreadable"}:
        step += f", or leave them out: 'llmopt run --dataset {name} --skip-unreadable'"
    return f"{step}; then run 'llmopt datasets check {name}' again"


# ----------------------------------------------------------------------------------- images

_CHUNK: Final = 512
_SLOW_DISK: Final = 5e-4  # seconds an image
_SLOW_DISK_WORKERS: Final = 16


def _look_at(dataset: Dataset, deep: bool, progress: Progress | None, found: _Found) -> None:
    images = list(chain.from_iterable(dataset.split(which).images for which in SPLITS))
    for results in _in_chunks(images, deep):
        for problem, decoded in results:
            found.images += 1
            found.decoded += decoded
            if problem is not None:
                found.problems.append(problem)
        if progress is not None:
            progress(found.images, len(images))


_Result = tuple[Problem | None, bool]


def _in_chunks(images: Sequence[Image], deep: bool) -> Iterator[list[_Result]]:
    """Looks at the images, in the way that is fastest for the disk they lie on.

    On a local disk system calls are so short that threads only get in each other's way; where each
    takes a round trip over a network they multiply the speed.
    """

    def look(chunk: Sequence[Image]) -> list[_Result]:
        return [_look(image, deep) for image in chunk]

    chunks = (images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK))
    if deep:
        singles = (images[i : i + 1] for i in range(len(images)))
        yield from in_threads(look, singles)
        return
    for first in islice(chunks, 1):
        start = time.perf_counter()
        yield look(first)
        slow = time.perf_counter() - start > _SLOW_DISK * len(first)
        yield from in_threads(look, chunks, _SLOW_DISK_WORKERS) if slow else map(look, chunks)


def _look(image: Image, deep: bool) -> _Result:
    if not isinstance(image, FileImage):
        return _decode(image) if deep else (None, False)
    path = os.path.join(image.root, image.relative)  # noqa: PTH118 (pathlib takes most of the time)
    try:
        size = regular(path).st_size
        descriptor = os.open(path, os.O_RDONLY)
        try:
            head = os.read(descriptor, 32)
            os.lseek(descriptor, max(size - 12, 0), os.SEEK_SET)
            tail = os.read(descriptor, 12)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return Problem("missing", path), False
    except OSError as error:
        return Problem("unreadable", path, error.strerror or str(error)), False
    if not size:
        return Problem("damaged", path, "the file is empty"), False
    if deep or not _looks_sound(head, tail):
        problem, decoded = _decode(image)
        if problem is not None and not _signed(head):
            problem = Problem("not an image", path, _what_it_is(head))
        return problem, decoded
    return None, False


def _decode(image: Image) -> _Result:
    try:
        image.load()
    except DatasetError as error:
        cause = error.__cause__
        why = getattr(cause, "strerror", None) or str(cause or error)
        return Problem("damaged", _path(image), why), True
    return None, True


def _signed(head: bytes) -> bool:
    return head.startswith(_STARTS) or head[4:8] == b"ftyp" or head[8:12] == b"WEBP"


_JPEG: Final = b"\xff\xd8\xff"
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_STARTS: Final = (
    _JPEG, _PNG, b"GIF8", b"BM", b"II*\0", b"MM\0*", b"P1", b"P2", b"P3", b"P4", b"P5", b"P6",
    b"\0\0\0\x0cjP  ",
)  # fmt: skip


def _looks_sound(head: bytes, tail: bytes) -> bool:
    if head.startswith(_JPEG):
        return tail.endswith(b"\xff\xd9")
    if head.startswith(_PNG):
        return tail[4:8] == b"IEND"
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
