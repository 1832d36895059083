"""Other names for the classes of a data set, joined by the classes' keys.

Lists that are joined by position have given published results wrong names: two lists seldom agree
on the order. A set of names is therefore a map from a class's key (its folder, its WordNet id, its
name in CoOp's split file) to what it is called in a prompt. A plain list of one's own is taken in
the order in which ``llmopt datasets show`` has the classes, and refused where it shows another.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

from llmopt.data.base import ListedDataset
from llmopt.data.benchmarks.catalog import CATALOG
from llmopt.data.text import parse_json, read_text
from llmopt.errors import DatasetError, nearest
from llmopt.resources import read_prompt
from llmopt.task import is_unicode
from llmopt.template import clean, display_name

OWN = "coop"
"""The data set's own names, which for the benchmarks are CoOp's."""

CURATED = "openai"
"""The names curated by CLIP's authors (for SVHN, by CLIP_benchmark's)."""


def with_classnames(
    dataset: ListedDataset, names: str, classes: int | None = None
) -> ListedDataset:
    """``dataset`` under other class names.

    Args:
        dataset: whose classes are renamed.
        names: ``coop``, ``openai``, or the path of a file (see :func:`read_names`).
        classes: how many classes the complete data set has, where that is known.

    Raises:
        DatasetError: there are no such names, or they are for other classes.
    """
    if names == OWN:
        return dataset
    if names == CURATED:
        curated = _curated(dataset.name)
        if len(dataset.keys) != classes:  # a part of the data set may well lack some classes
            curated = {key: name for key, name in curated.items() if key in dataset.keys}
        return _renamed(dataset, curated, "OpenAI's class names")
    path = Path(names)
    found, note = read_names(path), f"class names from {path.name}"
    if isinstance(found, dict):
        return _renamed(dataset, found, note)
    _check_order(dataset, found, path)
    return dataset.renamed(tuple(found), f"{note}, in the order of the classes")


def read_names(path: Path) -> dict[str, str] | list[str]:
    """Names by class key, of a JSON object or of a CSV file with lines ``key,name``; or a list.

    A list is a JSON array, or a text file with a name a line.

    Raises:
        DatasetError: the file is missing or holds something else.
    """
    text = read_text(path, f"give '{OWN}', '{CURATED}' or a file: class names")
    suffix = path.suffix.lower()
    names: object
    try:
        if suffix == ".csv":
            names = _of_csv(text)
        elif suffix == ".json" or text.lstrip()[:1] in ("{", "["):
            names = parse_json(text)
        else:
            names = text.rstrip().splitlines()
    except (ValueError, csv.Error) as error:
        raise DatasetError(
            f"class names {path} are not {_EXPECTED}: {error}", docs="your-photos"
        ) from error
    if isinstance(names, list):
        return [_checked(path, f"number {k}", name) for k, name in enumerate(names, 1)]
    if not isinstance(names, dict):
        raise DatasetError(f"class names {path} are not {_EXPECTED}")
    return {str(key): _checked(path, str(key), name) for key, name in names.items()}


_EXPECTED = (
    'a JSON object {"key": "name"}, CSV lines \'key,name\', or a name a line in the order of the '
    "classes ('llmopt datasets show NAME --json' prints keys and order)"
)


def _check_order(dataset: ListedDataset, names: list[str], path: Path) -> None:
    """Refuse a list that cannot be in the order of a data set's classes.

    Raises:
        DatasetError: it is longer or shorter, or has what one class is called in another's place.
    """
    order = f"'llmopt datasets show {dataset.name}' prints the order"
    if len(names) != len(dataset.keys):
        raise DatasetError(
            f"class names {path}: {len(names)} names for the {len(dataset.keys)} classes of "
            f"'{dataset.name}'; a list needs one for each, in their order ({order})"
        )
    places: dict[str, set[int]] = {}
    for place, pair in enumerate(_pairs(dataset)):
        for known in pair:
            places.setdefault(display_name(known).lower(), set()).add(place)
    for place, name in enumerate(names):
        usual = places.get(display_name(name).lower(), {place})
        if place not in usual:
            raise DatasetError(
                f"class names {path} are in another order: number {place + 1} is {name!r}, which "
                f"is what number {min(usual) + 1} of '{dataset.name}' is called; write them in the "
                f'data set\'s order ({order}), or as a JSON object {{"key": "name"}}'
            )


def _of_csv(text: str) -> dict[str, str]:
    names: dict[str, str] = {}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    for row in filter(None, reader):
        if len(row) != 2 or names.setdefault(row[0], row[1]) != row[1]:
            what = "names a key again" if len(row) == 2 else f"has {len(row)} fields"
            raise ValueError(f"line {reader.line_num} {what}: {','.join(row)[:80]!r}")
    return names


def _checked(path: Path, key: str, name: object) -> str:
    if not isinstance(name, str) or not is_unicode(name) or not clean(name):
        raise DatasetError(f"class names {path}: the name of '{key}' is not a text: {name!r}")
    if "{" in name or "}" in name:
        raise DatasetError(f"class names {path}: the name of '{key}' holds a brace: {name!r}")
    return clean(name)


def _curated(name: str) -> dict[str, str]:
    """Curated names where they differ from CoOp's by more than case and underscores."""
    if name not in CATALOG:
        raise DatasetError(f"there are no '{CURATED}' class names for dataset '{name}'")
    sets: dict[str, dict[str, str]] = json.loads(read_prompt("classnames/openai.json"))
    return sets.get(name, {})


def _renamed(dataset: ListedDataset, names: Mapping[str, str], note: str) -> ListedDataset:
    strangers = [key for key in names if key not in dataset.keys]
    if strangers:
        raise DatasetError(
            f"{note}: dataset '{dataset.name}' has no class '{strangers[0]}'"
            f"{nearest(strangers[0], dataset.keys)}"
            + (f" ({len(strangers)} such)" if len(strangers) > 1 else "")
        )
    return dataset.renamed(tuple(names.get(key, own) for key, own in _pairs(dataset)), note)


def _pairs(dataset: ListedDataset) -> zip[tuple[str, str]]:
    return zip(dataset.keys, dataset.classnames, strict=True)
