"""``csv:PATH`` and ``jsonl:PATH``: one's own images, listed in a file.

A CSV file has a header line with ``path`` and ``label``, and may have ``split``; its fields are
separated by commas, semicolons, tabs or bars. A JSONL file has objects with the same fields, one a
line. Paths are relative to the file's folder or absolute; labels are class names or whole numbers.
Fields that are called otherwise are named after the path: ``csv:t.csv?path=picture&label=kind``.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from llmopt.data.base import SPLITS, ListedDataset, Which
from llmopt.data.own_splits import THREE_WAYS, complete, split_of, split_three_ways
from llmopt.data.sources.own import listed, own_dataset
from llmopt.data.text import parse_json, read_text
from llmopt.errors import DatasetError
from llmopt.images import FileImage
from llmopt.task import Labelled, checked_names

SEPARATORS: Final[Mapping[str, str]] = {
    ",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars",
}  # fmt: skip

FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "path": ("path", "file", "file_name", "filename", "filepath", "file_path", "image",
             "image_path", "img"),
    "label": ("label", "class", "class_name", "classname", "category"),
    "split": ("split",),
}  # fmt: skip
"""Names a field may have, the first that is there counting; in whatever case."""

_CSV_FORM: Final = (
    "the header must name a 'path' and a 'label', as in 'path,label'; what is called otherwise is "
    "named after the file: csv:FILE?path=A&label=B"
)
_JSON_FORM: Final = 'each line is an object such as {"path": "a.jpg", "label": "cat"}'

_WHOLE: Final = re.compile(r"\d+\.0+")


@dataclass
class _Table:
    """A table while it is read.

    Attributes:
        source: the file.
        form: what it should look like.
        called: names that a field may have, the first that is there counting.
        rows: by split (or ``""``), paths and labels.
        where: by split and path, the line that lists it and its label.
        names: of the fields seen.
        skipped: how many rows are not used, by reason.
    """

    source: Path
    form: str
    called: Mapping[str, tuple[str, ...]]
    rows: dict[Which | None, list[tuple[str, str]]] = field(default_factory=dict)
    where: dict[tuple[Which | None, str], tuple[int, str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, row: Mapping[str, Any]) -> None:
        """One record, once it is in order.

        Raises:
            DatasetError: it is not.
        """
        self.names |= row.keys()
        path = self._path(number, self._get(row, "path"))
        label = self._label(number, self._get(row, "label"))
        word = self._get(row, "split") or ""
        which = split_of(word) if isinstance(word, str) else None
        if word and which is None:
            raise self._wrong(number, f"split {word!r} is none of train, val and test")
        before, known = self.where.setdefault((which, path), (number, label))
        if known != label:
            raise self._wrong(
                number, f"{path!r} is labelled {label!r}, but {known!r} in line {before}"
            )
        if before != number:
            self.skipped["rows that repeat another"] += 1
        else:
            self.rows.setdefault(which, []).append((path, label))

    def _get(self, row: Mapping[str, Any], wanted: str) -> Any:
        return next((row[name] for name in self.called[wanted] if name in row), None)

    def _path(self, number: int, path: Any) -> str:
        if not isinstance(path, str) or not path.strip():
            raise self._wrong(number, f"a 'path' and a 'label' are needed; {self.form}")
        try:
            sound = not any(c in path for c in "\0\r\n") and os.fsencode(path)
        except UnicodeEncodeError:
            sound = False
        if not sound:
            raise self._wrong(number, f"no file can have the path {path[:80]!r}")
        return path

    def _label(self, number: int, label: Any) -> str:
        if label is None or (isinstance(label, str) and not label.strip()):
            raise self._wrong(number, f"a 'path' and a 'label' are needed; {self.form}")
        if isinstance(label, bool) or not isinstance(label, (str, int)):
            raise self._wrong(number, f"label {label!r:.80} is neither a name nor a whole number")
        text = str(label).strip()
        if text.lower() == "nan":
            raise self._wrong(number, f"label {text!r} stands for a missing value; give a name")
        if "\n" in text or "\r" in text:
            raise self._wrong(
                number, f"label {text[:80]!r} runs over lines; is a quote not closed?"
            )
        return checked_names([text], f"{self.source}, line {number}")[0]

    def _wrong(self, number: int, what: str) -> DatasetError:
        return DatasetError(f"{self.source}, line {number}: {what}")


def open_table(name: str, path: str) -> ListedDataset:
    """The data set listed in the file ``path``.

    Raises:
        DatasetError: the file is missing or a line is wrong; the line is named.
    """
    (source, called), notes = _named(path), []
    text = read_text(source, f"dataset {name!r}: table")
    if name.startswith("jsonl:") or source.suffix.lower() in (".jsonl", ".ndjson"):
        table = _Table(source, _JSON_FORM, called)
        records = _json_lines(source, text)
    else:
        table = _Table(source, _CSV_FORM, called)
        separator, header = _sniffed(source, text, called)
        if separator != ",":
            notes.append(f"fields are separated by {SEPARATORS[separator]}")
        records = _csv_rows(source, text, separator, header)
    for number, row in records:
        table.add(number, row)
    rows = table.rows
    if not rows:
        raise DatasetError(f"{source} lists no images")
    if None in rows and len(rows) > 1:
        raise DatasetError(f"{source}: some lines name a split and some do not; give all or none")
    keys = _label_order(source, {label for items in rows.values() for _, label in items})
    parts = {which: _images(source.parent, items, keys) for which, items in rows.items()}
    if None in parts:
        done, provenance = split_three_ways(parts[None]), THREE_WAYS
    else:
        done, provenance = complete({which: parts[which] for which in SPLITS if which in parts})
    return own_dataset(
        name,
        keys,
        done,
        provenance,
        notes=[*notes, *_fields_read(table)],
        skipped=table.skipped,
    )


def _sniffed(
    source: Path, text: str, called: Mapping[str, tuple[str, ...]]
) -> tuple[str, list[str]]:
    """What separates the fields, and their names, as the first line tells."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    found = {
        separator: [name.strip().lower() for name in next(csv.reader([first], delimiter=separator))]
        for separator in SEPARATORS
        if len(first) <= csv.field_size_limit()
    }
    for separator, header in found.items():
        if all(any(name in header for name in called[needed]) for needed in ("path", "label")):
            if len(set(header)) < len(header):
                raise DatasetError(f"{source}: two columns share a name: {first[:200]!r}")
            return separator, header
    separator = max(SEPARATORS, key=first.count)
    raise DatasetError(
        f"{source}, line 1: {_CSV_FORM}; found {first[:200]!r}, "
        f"{len(found.get(separator, ()))} fields separated by {SEPARATORS[separator]}"
    )


def _csv_rows(
    source: Path, text: str, separator: str, header: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and the records that end on them."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        next(row for row in reader if any(field.strip() for field in row))  # the header
        for row in reader:
            if any(surplus.strip() for surplus in row[len(header) :]):
                raise DatasetError(
                    f"{source}, line {reader.line_num}: {len(row)} fields, but the header names "
                    f"{len(header)}; put quotes around a field that holds a {separator!r}"
                )
            if row:
                yield reader.line_num, dict(zip(header, row, strict=False))
    except csv.Error as error:
        raise DatasetError(f"{source}, line {reader.line_num}: not CSV: {error}") from error


def _json_lines(source: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DatasetError(
                f"{source}, line {number}: not JSON: {error}; {_JSON_FORM}"
            ) from error
        if not isinstance(row, dict):
            row = {}
        yield number, {str(name).strip().lower(): value for name, value in row.items()}


def _named(path: str) -> tuple[Path, Mapping[str, tuple[str, ...]]]:
    """The file of an address, and what its fields are called.

    Raises:
        DatasetError: the address names another field, or one twice.
    """
    whole = Path(path).expanduser()
    before, mark, said = path.rpartition("?")
    if not mark or whole.exists():
        return whole, FIELDS
    given = [part.partition("=") for part in said.split("&")]
    called = {wanted: name.strip().lower() for wanted, _, name in given}
    if len(called) < len(given) or not called.keys() <= FIELDS.keys() or "" in called.values():
        raise DatasetError(
            f"'?{said}' must say what the fields of {before} are called, as in "
            "?path=A&label=B&split=C"
        )
    return Path(before).expanduser(), {**FIELDS, **{k: (name,) for k, name in called.items()}}


def _fields_read(table: _Table) -> list[str]:
    """What is unusual in the fields: other names than ours, and fields that are not read."""
    names = table.names
    read = {
        wanted: next((name for name in aliases if name in names), wanted)
        for wanted, aliases in table.called.items()
    }
    notes = [f"'{name}' is read as the {wanted}" for wanted, name in read.items() if name != wanted]
    if others := sorted(names - set(read.values())):
        notes.append(f"fields that are not read: {listed(others)}")
    return notes


def _label_order(source: Path, labels: set[str]) -> tuple[str, ...]:
    """By number where all labels are numbers, else by spelling."""
    if all(_WHOLE.fullmatch(label) for label in labels):
        raise DatasetError(
            f"{source}: labels such as {min(labels)!r} are whole numbers written as fractions; "
            "write '0' or, better, a name"
        )
    if all(label.isascii() and label.isdecimal() for label in labels):
        return tuple(sorted(labels, key=lambda label: (len(n := label.lstrip("0")), n, label)))
    return tuple(sorted(labels))


def _images(root: Path, items: list[tuple[str, str]], keys: tuple[str, ...]) -> Labelled:
    number = {key: label for label, key in enumerate(keys)}
    images = tuple(FileImage(root, path.replace("\\", "/")) for path, _ in items)
    return Labelled(images, np.array([number[label] for _, label in items], dtype=np.int64))
