"""``csv:PATH`` and ``jsonl:PATH``: one's own images, listed in a file.

A CSV file has a header line with ``path`` and ``label``, and may have ``split`` (train, val or
test). A JSONL file has objects with the same fields. Paths are relative to the file's folder or
absolute; labels are class names or numbers.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llmopt.data.base import SPLITS, ListedDataset, Which
from llmopt.data.sources.folder import SPLIT_FOLDERS, complete, own_dataset
from llmopt.data.sources.own_splits import THREE_WAYS, split_three_ways
from llmopt.errors import DatasetError
from llmopt.images import FileImage
from llmopt.task import Labelled

_SPLIT_WORDS = {word: which for which, words in SPLIT_FOLDERS.items() for word in words}


def open_table(name: str, path: str) -> ListedDataset:
    """The data set listed in the file ``path``.

    Raises:
        DatasetError: the file is missing or a line is wrong; the line is named.
    """
    source = Path(path).expanduser()
    rows: dict[str, list[tuple[str, str]]] = {}
    try:
        for number, row in _rows(source):
            split, image, label = _checked(source, number, row)
            rows.setdefault(split, []).append((image, label))
    except OSError as error:
        raise DatasetError(
            f"dataset '{name}': {source} cannot be read: {error.strerror or error}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{source} is not a table of text: {error}") from error
    if not rows:
        raise DatasetError(f"{source} lists no images")
    if "" in rows and len(rows) > 1:
        raise DatasetError(f"{source}: some lines name a split and some do not; give all or none")
    keys = _label_order({label for listed in rows.values() for _, label in listed})
    listed = {split: _listed(source.parent, items, keys) for split, items in rows.items()}
    if "" in listed:
        parts, provenance = split_three_ways(listed[""]), THREE_WAYS
    else:
        given: dict[Which, Labelled] = {which: listed[which] for which in SPLITS if which in listed}
        parts, provenance = complete(given)
    return own_dataset(name, keys, parts, provenance)


def _rows(source: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers and the records on them."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        if source.suffix.lower() in (".jsonl", ".ndjson"):
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parse(source, number, line)
            return
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, row


def _parse(source: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{source}, line {number}: not JSON: {error}") from error


def _checked(source: Path, number: int, row: Any) -> tuple[str, str, str]:
    """Split (or ``""``), path and label of one record."""
    path, label = (row.get("path"), row.get("label")) if isinstance(row, dict) else (None, None)
    if not isinstance(path, str) or not path or isinstance(label, bool) or label in (None, ""):
        raise DatasetError(
            f"{source}, line {number}: a 'path' and a 'label' are needed; "
            "a CSV file starts with the line 'path,label'"
        )
    split = row.get("split") or ""
    if split and split not in _SPLIT_WORDS:
        raise DatasetError(
            f"{source}, line {number}: split {split!r} is none of train, val and test"
        )
    return _SPLIT_WORDS.get(split, ""), path, str(label).strip()


def _label_order(labels: set[str]) -> tuple[str, ...]:
    """By number where all labels are numbers, else by spelling."""
    if all(label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=int))
    return tuple(sorted(labels))


def _listed(root: Path, items: list[tuple[str, str]], keys: tuple[str, ...]) -> Labelled:
    number = {key: label for label, key in enumerate(keys)}
    images = tuple(FileImage(root, path.replace("\\", "/")) for path, _ in items)
    return Labelled(images, np.array([number[label] for _, label in items], dtype=np.int64))
