"""Is a data set complete and sound? Everything that is wrong, at once, before anything runs.

Each image is looked at from both ends, or decoded (:mod:`llmopt.data.looking`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llmopt.data.base import SPLITS, Dataset
from llmopt.data.benchmarks.catalog import CATALOG, Entry
from llmopt.data.classnames import OWN
from llmopt.data.looking import Problem, by_kind, look_at, place
from llmopt.data.registry import find_home, open_dataset, open_entry
from llmopt.data.soundness import NO_TEST, notes_on, shared_pictures, told
from llmopt.errors import DatasetError

Progress = Callable[[int, int], None]


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
        return by_kind(self.problems)

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
        images = [image for which in SPLITS for image in dataset.split(which).images]
        looked = look_at(
            images, deep=deep, progress=progress and (lambda done: progress(done, len(images)))
        )
        found.problems += looked.problems
        found.images, found.decoded = looked.images, looked.decoded
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
        path, other = place(one.image), place(one.other)
        if published and path != other:
            copies.append(one)
            continue
        alias = f" as {other}" if path != other else ""
        detail = f"in {one.split} and in {one.other_split}{alias}"
        found.problems.append(Problem("duplicate", path, detail))
    found.notes += told(copies)


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
