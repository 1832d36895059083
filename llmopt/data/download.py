"""Fetch a benchmark and put it in its place, whole or not at all.

Everything happens in ``<root>/.llmopt-download/<key>``: files are fetched (several at once),
verified, unpacked, put in order and checked there. Only then is the folder renamed to where it
belongs. Where a folder is already there, what it lacks is moved into it; nothing that was there
before is changed.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import filelock

from llmopt.data.archives import unpack
from llmopt.data.benchmarks.catalog import CATALOG, Entry, Fetch
from llmopt.data.benchmarks.conversions import export_imagenet_val, export_svhn
from llmopt.data.benchmarks.fetch import Fetcher, Progress, Report
from llmopt.data.check import CheckReport, check_entry
from llmopt.data.registry import dataset_names, find_home
from llmopt.errors import DatasetError, nearest

STAGING: Final = ".llmopt-download"


@dataclass(frozen=True)
class DownloadReport:
    """What a download did.

    Attributes:
        dataset: its key.
        home: where it lies now.
        fetched: files that were fetched; empty if everything was there.
        seconds: how long it took.
        check: what a check of the result found.
    """

    dataset: str
    home: Path
    fetched: tuple[str, ...]
    seconds: float
    check: CheckReport


def download_dataset(
    name: str, root: Path, *, workers: int = 4, report: Report | None = None
) -> DownloadReport:
    """Fetch what a benchmark lacks below ``root``.

    Args:
        name: a benchmark's key.
        root: the folder that holds the benchmarks; made where it is absent.
        workers: files fetched at a time.
        report: called with the progress of each file.

    Raises:
        DatasetError: it is no benchmark, must be fetched by hand (the message has the steps), a
            source failed, or what is there already is damaged. A later call goes on from there.
    """
    key = name.partition(":")[0]
    if key in CATALOG:
        return download_entry(CATALOG[key], root, workers=workers, report=report)
    if key in dataset_names():
        raise DatasetError(f"dataset '{key}' needs no download")
    raise DatasetError(
        f"dataset '{name}' is no benchmark that can be downloaded{nearest(name, CATALOG)}; "
        "see 'llmopt datasets list'"
    )


def download_entry(
    entry: Entry,
    root: Path,
    *,
    workers: int = 4,
    report: Report | None = None,
    pause: float = 1.0,
) -> DownloadReport:
    """As :func:`download_dataset`; ``pause`` is the wait before a second try, in seconds."""
    start = time.perf_counter()
    home = _home(entry, root)
    wanted = [fetch for fetch in entry.fetches if not _present(fetch, home)]
    if not wanted:
        check = check_entry(entry, root)
        if check.ok:
            return DownloadReport(entry.key, home, (), time.perf_counter() - start, check)
        wanted = _lacking(entry, home, check)
    staging = root / STAGING / entry.key
    staging.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(staging.with_suffix(".lock"))
    try:
        with lock.acquire(timeout=0):
            needed = [*wanted, *(helper for fetch in wanted for helper in fetch.helpers)]
            _refuse_full_disk(needed, staging / "files")
            files = _fetch_all(needed, staging / "files", workers, report, pause)
            tree = staging / "root" / entry.folders[0]
            _assemble(wanted, files, staging, tree, report)
            if not home.exists():
                _must_be_sound(check_entry(entry, staging / "root"), staging)
            _put_in_place(wanted, tree, home)
            shutil.rmtree(staging)
    except filelock.Timeout as error:
        raise DatasetError(
            f"another download of '{entry.key}' into {root} is in progress"
        ) from error
    check = check_entry(entry, root)
    _must_be_sound(check, home)
    return DownloadReport(
        entry.key, home, tuple(f.file for f in wanted), time.perf_counter() - start, check
    )


def _home(entry: Entry, root: Path) -> Path:
    """The folder that has some of it already, or CoOp's place."""
    home, _ = find_home(entry, root)
    products = [product for fetch in entry.fetches for product in fetch.products]
    has_some = any((home / product).exists() for product in products)
    return home if has_some else root / entry.folders[0]


def _present(fetch: Fetch, home: Path) -> bool:
    return all((home / product).exists() for product in fetch.products)


def _lacking(entry: Entry, home: Path, check: CheckReport) -> list[Fetch]:
    """The downloads that hold what a folder lacks.

    Raises:
        DatasetError: there is something in it that must first be removed.
    """
    wrong = [problem for problem in check.problems if problem.kind != "missing"]
    if wrong:
        raise DatasetError(
            f"dataset '{entry.key}' is at {home}, but {len(wrong):,} things in it are wrong "
            f"(first: {wrong[0]}); 'llmopt datasets check {entry.key}' lists them; delete them, "
            "and what is missing will be fetched"
        )
    missing = [Path(problem.path) for problem in check.problems]
    return [
        fetch
        for fetch in entry.fetches
        if any(path.is_relative_to(home / p) for p in fetch.products for path in missing)
    ]


def _refuse_full_disk(needed: list[Fetch], folder: Path) -> None:
    """What an archive holds takes about as much room again as the archive."""
    folder.mkdir(parents=True, exist_ok=True)
    have = {path.name.removesuffix(".part"): path.stat().st_size for path in folder.iterdir()}
    coming = [fetch for fetch in needed if fetch.urls or fetch.file in have]
    room = sum((fetch.size or 0) * (2 if fetch.place else 1) for fetch in coming)
    room -= sum(have.values())
    free = shutil.disk_usage(folder).free
    if free < room:
        raise DatasetError(f"{room / 1e9:.1f} GB are needed at {folder}, {free / 1e9:.1f} are free")


def _fetch_all(
    needed: list[Fetch], folder: Path, workers: int, report: Report | None, pause: float
) -> dict[str, Path]:
    fetcher = Fetcher(folder, report, pause=pause)
    with ThreadPoolExecutor(workers, thread_name_prefix="llmopt-fetch") as pool:
        futures = {fetch.file: pool.submit(fetcher.fetch, fetch) for fetch in needed}
        try:
            # All are tried to the end, so that one message names all that is to be done by hand.
            wait(futures.values())
        finally:
            fetcher.close()  # on Ctrl-C, that ends the transfers under way
    files, errors = {}, []
    for name, future in futures.items():
        try:
            files[name] = future.result()
        except DatasetError as error:
            errors.append(str(error))
    if errors:
        raise DatasetError("\n".join(errors))
    return files


def _assemble(
    wanted: list[Fetch], files: dict[str, Path], staging: Path, tree: Path, report: Report | None
) -> None:
    """Unpack the files and move what is wanted of them into ``tree``."""
    unpacked = staging / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for fetch in wanted:
        file = files[fetch.file]

        def tell(done: int, name: str = fetch.file) -> None:
            if report is not None:
                report(Progress(name, "unpack", done, None))

        if not fetch.place:
            shutil.copy2(file, tree / fetch.file)
        elif fetch.kind == "svhn":
            export_svhn(file, tree / fetch.place[0][1])
        elif fetch.kind == "imagenet val":
            export_imagenet_val(file, files[fetch.helpers[0].file], tree / fetch.place[0][1])
        elif fetch.kind == "tar of tars":
            unpack(file, tree / fetch.place[0][1], nested=True, progress=tell)
        else:
            _unpack(fetch, file, unpacked / fetch.file, tell)
            _move(fetch, unpacked / fetch.file, tree)


def _unpack(fetch: Fetch, file: Path, into: Path, tell: Callable[[int], None]) -> None:
    sources = fetch.inner or tuple(source for source, _ in fetch.place)
    unpack(file, into, sources, progress=tell)
    for inner in fetch.inner:
        if not (into / inner).exists():
            raise DatasetError(f"{fetch.file} has no {inner}: it is another archive")
        unpack(into / inner, into, progress=tell)


def _move(fetch: Fetch, unpacked: Path, tree: Path) -> None:
    for source, target in fetch.place:
        if not (unpacked / source).exists():
            raise DatasetError(f"{fetch.file} has no {source}: it is another archive")
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / source).rename(tree / target)


def _must_be_sound(check: CheckReport, place: Path) -> None:
    if not check.ok:
        shown = "; ".join(str(problem) for problem in check.problems[:3])
        raise DatasetError(
            f"what was fetched of '{check.dataset}' is not complete: {len(check.problems):,} "
            f"problems ({shown}); it lies in {place}"
        )


def _put_in_place(wanted: list[Fetch], tree: Path, home: Path) -> None:
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        tree.rename(home)
        return
    for product in (product for fetch in wanted for product in fetch.products):
        _move_in(tree / product, home / product)


def _move_in(source: Path, target: Path) -> None:
    """Move a file or folder to where it is missing; of a folder that is there, what it lacks."""
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    elif source.is_dir() and target.is_dir():
        for path in source.iterdir():
            _move_in(path, target / path.name)
