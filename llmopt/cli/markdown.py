"""Docstrings and values as Markdown, for the pages of reference."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are one line each."""
    lines = [names, ["---"] * len(names), *rows]
    cells = [[one_line(cell).replace("|", r"\|") for cell in row] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def one_line(text: str | None) -> str:
    """A text on one line; nothing of None."""
    return " ".join((text or "").split())


def plain(text: str) -> str:
    """A docstring without the marks of Sphinx."""
    return re.sub(r":\w+:`[~.]*([^`]*)`", r"\1", text).replace("``", "'")


def prose(text: str) -> str:
    """A docstring as Markdown."""
    return re.sub(r":\w+:`[~.]*([^`]*)`", r"`\1`", text).replace("``", "`").replace("'{}'", "`{}`")


def typed(value: Any) -> str:
    """A default as it is typed."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(typed, value))
    return str(value).lower() if value is None or isinstance(value, bool) else f"{value}"


def value(given: object) -> str:
    """A setting's value as it is typed."""
    return f"`{typed(given) or '(empty)'}`"


def shown(text: str) -> str:
    """A docstring as it stands there."""
    return f"```text\n{plain(text)}\n```"


def with_tables(text: str) -> str:
    """A docstring as Markdown, its tables too."""
    first, *parts = re.split(r"^(=+(?: =+)+)\n", text, flags=re.MULTILINE)
    text = first
    for rule, names, _, rows, _, after in zip(*[iter(parts)] * 6, strict=True):
        starts = [found.start() for found in re.finditer("=+", rule)]
        columns = [slice(*pair) for pair in pairwise([*starts, None])]
        cells = [[line[one] for one in columns] for line in f"{names}{rows}".splitlines()]
        text += f"{table(cells[0], cells[1:])}\n{after}"
    return prose(text)
