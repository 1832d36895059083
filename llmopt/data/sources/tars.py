"""``wds:PATH``: images in webdataset tars, as CLIP_benchmark reads and writes them.

``PATH`` holds ``train/``, ``val/`` or ``test/`` folders of tars, or tars only; it may have
``classnames.txt`` (a name per line, in label order; a blank line
keeps its place) and ``zeroshot_classification_templates.txt``
(with ``{c}`` for the class name). A tar's members come in pairs ``<key>.jpg`` and ``<key>.cls``,
the latter holding the label as a number. Images are read in place, so the tars must not be
compressed.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from llmopt.data.base import ListedDataset, Which
from llmopt.data.benchmarks.layouts import is_clutter
from llmopt.data.own_splits import THREE_WAYS, complete, name_splits, split_three_ways
from llmopt.data.sources.folder import format_not_read
from llmopt.data.sources.own import PLAIN_ONLY, keys_for, listed, own_dataset
from llmopt.data.text import read_lines
from llmopt.errors import DatasetError, TemplateError, seen_from
from llmopt.images import ArchivedImage, is_image_name
from llmopt.task import Labelled
from llmopt.template import Template

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"

MAX_CLASSES: Final = 1_000_000
"""A label above it, where no list of classes bounds it, is damage."""

_MAX_DIGITS: Final = 32


def open_tars(name: str, path: str) -> ListedDataset:
    """The data set in the tars below ``path`` (a folder, or a single tar).

    Raises:
        DatasetError: there are no tars, or a member is not as it should be.
    """
    root = Path(path).expanduser()
    given = _split_tars(name, root)
    loose = [root] if root.is_file() else _tars(root)
    if not given and not loose:
        raise DatasetError(
            f"dataset '{name}': no .tar files in {root} or its train, val and test folders "
            f"(compressed ones cannot be read in place: unpack them to .tar){seen_from(root)}"
        )
    folder = root.parent if root.is_file() else root
    names, notes = _names(folder / CLASSNAMES)
    skipped: Counter[str] = Counter()
    parts: dict[Which, Labelled]
    if given:
        listing = {which: _listed(tars, root, names, skipped) for which, tars in given.items()}
        parts, provenance = complete(listing)
        if loose:
            skipped["tars beside the splits"] = len(loose)
    else:
        parts, provenance = split_three_ways(_listed(loose, root, names, skipped)), THREE_WAYS
    return own_dataset(
        name,
        keys_for(classes := names or _numbers(root, parts.values())),
        parts,
        provenance,
        handcrafted=_templates(folder),
        classnames=classes,
        notes=notes,
        skipped=skipped,
        published=bool(names),
    )


def _split_tars(name: str, root: Path) -> dict[Which, list[Path]]:
    """The tars in folders that are called like splits."""
    folders = sorted(root.iterdir()) if root.is_dir() else []
    holding = {folder.name: tars for folder in folders if (tars := _tars(folder))}
    splits = name_splits(holding, f"dataset '{name}'")
    return {which: holding[folder] for which, folder in splits.items()}


def _tars(folder: Path) -> list[Path]:
    return sorted((tar for tar in folder.glob("*.tar") if not is_clutter(tar.name)), key=_natural)


def _numbers(root: Path, parts: Iterable[Labelled]) -> list[str]:
    """The labels as names, where nothing names them; all must occur."""
    labels = np.unique(np.concatenate([part.labels for part in parts] or [np.empty(0, int)]))
    if len(labels) and len(labels) <= labels[-1]:
        missing = next(i for i, label in enumerate(labels) if i != label)
        raise DatasetError(
            f"{root}: no images in class '{missing}', though label {labels[-1]} occurs; "
            f"add {CLASSNAMES} with a name per line if classes may lack images"
        )
    return [str(label) for label in range(len(labels))]


def _listed(
    tars: Sequence[Path], root: Path, names: Sequence[str], skipped: Counter[str]
) -> Labelled:
    images: list[ArchivedImage] = []
    labels: list[int] = []
    for tar in tars:
        for image, label in _pairs(tar, root, names, skipped):
            images.append(image)
            labels.append(label)
    return Labelled(tuple(images), np.array(labels, dtype=np.int64))


def _pairs(
    tar: Path, root: Path, names: Sequence[str], skipped: Counter[str]
) -> Iterator[tuple[ArchivedImage, int]]:
    """Images of one tar with their labels, in the order in which pairs are complete."""
    images: dict[str, ArchivedImage] = {}
    labels: dict[str, int] = {}
    place = tar.relative_to(root).as_posix() if tar != root else tar.name
    try:
        for member, archive in _members(tar):
            folder, slash, base = member.name.rpartition("/")
            # As webdataset has it, the key ends at the first dot of the file's name.
            stem, _, suffix = base.partition(".")
            key = folder + slash + stem
            if member.isdir():
                continue
            if not member.isfile() or member.issparse():
                skipped["links, pipes or devices"] += 1
            elif any(map(is_clutter, member.name.split("/"))):
                skipped["hidden or system files and folders"] += 1
            elif suffix == "cls":
                _refuse_second(tar, key, "labels", labels)
                content = archive.extractfile(member)
                number = content.read(_MAX_DIGITS) if content else b""
                labels[key] = _label(tar, member.name, number, names)
            elif is_image_name(f"x.{suffix}"):
                _refuse_second(tar, key, "images", images)
                images[key] = ArchivedImage(
                    tar, member.offset_data, member.size, f"{place}/{member.name}"
                )
            else:
                skipped[format_not_read(base)] += 1
            if key in images and key in labels:
                yield images.pop(key), labels.pop(key)
    except (OSError, tarfile.TarError, ValueError) as error:
        raise DatasetError(f"{tar} is not a tar that can be read: {error}") from error
    if images or labels:
        lone = next(iter(images or labels))
        raise DatasetError(f"{tar}: '{lone}' has {'no label' if images else 'no image'}")


def _members(tar: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    if not tar.is_file():
        raise DatasetError(f"{tar} is a folder, a pipe or a device, not a tar")
    with tarfile.open(tar, "r:") as archive:
        while (member := archive.next()) is not None:
            # tarfile keeps every header it has read; a million of them fill the memory.
            archive.members = []  # type: ignore[attr-defined]
            yield member, archive


def _refuse_second(tar: Path, key: str, what: str, found: dict[str, Any]) -> None:
    if key in found:
        raise DatasetError(f"{tar}: '{key}' has two {what}; a key stands for one image")


def _label(tar: Path, member: str, content: bytes, names: Sequence[str]) -> int:
    try:
        label = int(content.decode("ascii").strip())
    except ValueError as error:
        raise DatasetError(f"{tar}: {member} holds no label but {content[:20]!r}") from error
    if label < 0:
        raise DatasetError(f"{tar}: {member} holds the label {label}; labels start at 0")
    if names and label >= len(names):
        raise DatasetError(
            f"{tar}: {member} holds the label {label}, but {CLASSNAMES} names {len(names)} classes"
        )
    if label >= MAX_CLASSES:
        raise DatasetError(
            f"{tar}: {member} holds the label {label}; more than {MAX_CLASSES:,} classes are damage"
        )
    return label


def _names(path: Path) -> tuple[list[str], list[str]]:
    """The class names, and what is unusual about them; a class without a name has its number."""
    lines = read_lines(path, "class names") if path.exists() else []
    blank = [i for i, line in enumerate(lines) if not line]
    names = [line or str(i) for i, line in enumerate(lines)]
    if not blank or lines == [""]:
        return (names if lines != [""] else []), []
    return names, [
        f"{CLASSNAMES} has blank lines; these classes are called by number: {listed(blank)}"
    ]


def _templates(folder: Path) -> tuple[Template, ...]:
    path, templates = folder / TEMPLATES, []
    for line in filter(None, read_lines(path, "templates") if path.exists() else []):
        try:
            templates.append(Template(line.replace("{c}", "{}")))
        except TemplateError as error:
            raise DatasetError(f"{path}: {error}") from error
    return tuple(templates) or PLAIN_ONLY


def _natural(path: Path) -> tuple[list[int], str]:
    """``2.tar`` before ``10.tar``."""
    return [int(digits) for digits in re.findall(r"[0-9]{1,18}", path.name)], path.name
