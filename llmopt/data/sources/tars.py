"""``wds:PATH``: images in webdataset tars, as CLIP_benchmark reads and writes them.

``PATH`` holds ``train/``, ``val/`` or ``test/`` folders of tars, or tars only; it may have
``classnames.txt`` (a name per line, in label order) and ``zeroshot_classification_templates.txt``
(with ``{c}`` for the class name). A tar's members come in pairs ``<key>.jpg`` and ``<key>.cls``,
the latter holding the label as a number. Images are read in place, so the tars must not be
compressed.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llmopt.data.base import ListedDataset, Which
from llmopt.data.sources.folder import SPLIT_FOLDERS, complete, keys_for, own_dataset
from llmopt.data.sources.own_splits import THREE_WAYS, split_three_ways
from llmopt.errors import DatasetError, TemplateError
from llmopt.images import ArchivedImage, is_image_name
from llmopt.task import Labelled
from llmopt.template import PLAIN, Template

CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"


def open_tars(name: str, path: str) -> ListedDataset:
    """The data set in the tars below ``path`` (a folder, or a single tar).

    Raises:
        DatasetError: there are no tars, or a member is not as it should be.
    """
    root = Path(path).expanduser()
    given = {which: tars for which in SPLIT_FOLDERS if (tars := _tars(root, which))}
    loose = [root] if root.is_file() else sorted(root.glob("*.tar"), key=_natural)
    if not given and not loose:
        raise DatasetError(
            f"dataset '{name}': no .tar files in {root} or its train, val and test folders "
            "(compressed ones cannot be read in place: unpack them to .tar)"
        )
    parts: dict[Which, Labelled]
    if given:
        parts = {which: _listed(tars, root) for which, tars in given.items()}
        parts, provenance = complete(parts)
    else:
        parts, provenance = split_three_ways(_listed(loose, root)), THREE_WAYS
    count = 1 + max(int(part.labels.max(initial=-1)) for part in parts.values())
    folder = root.parent if root.is_file() else root
    names = _lines(folder / CLASSNAMES) or [str(label) for label in range(count)]
    if len(names) < count:
        raise DatasetError(
            f"{folder / CLASSNAMES} names {len(names)} classes, but label {count - 1} occurs"
        )
    return own_dataset(name, keys_for(names), parts, provenance, _templates(folder), tuple(names))


def _tars(root: Path, which: Which) -> list[Path]:
    folders = [root / name for name in SPLIT_FOLDERS[which] if (root / name).is_dir()]
    return sorted((tar for folder in folders for tar in folder.glob("*.tar")), key=_natural)


def _listed(tars: list[Path], root: Path) -> Labelled:
    images: list[ArchivedImage] = []
    labels: list[int] = []
    for tar in tars:
        for image, label in _pairs(tar, root):
            images.append(image)
            labels.append(label)
    return Labelled(tuple(images), np.array(labels, dtype=np.int64))


def _pairs(tar: Path, root: Path) -> Iterator[tuple[ArchivedImage, int]]:
    """Images of one tar with their labels, in the order in which pairs are complete."""
    images: dict[str, ArchivedImage] = {}
    labels: dict[str, int] = {}
    place = tar.relative_to(root).as_posix() if tar != root else tar.name
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                folder, slash, base = member.name.rpartition("/")
                # As webdataset has it, the key ends at the first dot of the file's name.
                stem, _, suffix = base.partition(".")
                key = folder + slash + stem
                if not member.isfile() or base.startswith("."):
                    continue
                if suffix == "cls":
                    content = archive.extractfile(member)
                    labels[key] = _label(tar, member.name, content.read() if content else b"")
                elif is_image_name(f"x.{suffix}"):
                    images[key] = ArchivedImage(
                        tar, member.offset_data, member.size, f"{place}/{member.name}"
                    )
                if key in images and key in labels:
                    yield images.pop(key), labels.pop(key)
    except (OSError, tarfile.TarError) as error:
        raise DatasetError(f"{tar} is not a tar that can be read: {error}") from error
    if images or labels:
        lone = next(iter(images or labels))
        raise DatasetError(f"{tar}: '{lone}' has {'no label' if images else 'no image'}")


def _label(tar: Path, member: str, content: bytes) -> int:
    try:
        label = int(content.decode("ascii").strip())
    except ValueError as error:
        raise DatasetError(f"{tar}: {member} holds no label but {content[:20]!r}") from error
    if label < 0:
        raise DatasetError(f"{tar}: {member} holds the label {label}; labels start at 0")
    return label


def _templates(folder: Path) -> tuple[Template, ...]:
    templates = []
    for line in _lines(folder / TEMPLATES):
        try:
            templates.append(Template(line.replace("{c}", "{}")))
        except TemplateError as error:
            raise DatasetError(f"{folder / TEMPLATES}: {error}") from error
    return tuple(templates) or (Template(PLAIN),)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _natural(path: Path) -> tuple[list[int], str]:
    """``2.tar`` before ``10.tar``."""
    return [int(digits) for digits in re.findall(r"\d+", path.name)], path.name
