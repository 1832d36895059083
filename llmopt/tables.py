"""Tables that fit where they are shown, and rows chosen by what stands in them.

A table that is too wide gives way in this order: names are shortened in the middle and words
wrapped, columns of the highest rank are left out (and named below), and at last each row becomes a
card, whose texts are wrapped. Figures are never cut.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from llmopt.errors import ConfigError, nearest
from llmopt.screen import shorten, wrapped

T = TypeVar("T")

GAP: Final = 2  # blanks between columns


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a table.

    Attributes:
        name: its heading, and what ``--columns``, ``--sort`` and ``--filter`` call it.
        get: a row's value, as people read it (accuracies in per cent); None where it has none.
        show: the value as text.
        rank: where there is no room, columns of the highest rank are left out first; 0 never.
        least: cells it can be shortened to; 0 where it holds figures, which are never cut.
        wrap: it holds words, which are wrapped rather than shortened.
    """

    name: str
    get: Callable[[T], Any]
    show: Callable[[Any], str] = str
    rank: int = 0
    least: int = 0
    wrap: bool = False

    def text(self, row: T) -> str:
        """A row's cell; empty where it has no value."""
        value = self.get(row)
        return "" if value is None else self.show(value)


def text_columns(*names: str, **marks: Any) -> list[Column[Sequence[str]]]:
    """Columns for rows of ready texts; the first is a name, the others are figures.

    Args:
        names: headings.
        marks: ``words`` and ``texts``, collections of headings: what wraps, and what is shortened.
    """
    words, texts = marks.get("words", ()), marks.get("texts", names[:1])
    return [
        Column(
            name,
            operator.itemgetter(place),
            least=24 if name in words else 20 if name in texts else 0,
            wrap=name in words,
        )
        for place, name in enumerate(names)
    ]


def print_table(
    out: Console,
    columns: Iterable[Column[T]],
    rows: Sequence[T],
    *,
    title: str = "",
    wide: bool = False,
    hint: str = "",
) -> None:
    """Rows under their headings, within the width of the console.

    Args:
        out: where to.
        columns: those without any content are left out.
        rows: top to bottom.
        title: a line above.
        wide: as wide as it comes.
        hint: how to see the columns that are left out, where the command knows a way.
    """
    room = None if wide or not out.is_terminal else out.width
    if title:
        text = title if room is None else wrapped(title, room)
        out.print(Text(text, style="bold"), soft_wrap=True)
    found = {column: [column.text(row) for row in rows] for column in columns}
    cells = {column: texts for column, texts in found.items() if any(texts)}
    widths = _widths(cells, room)
    if widths is None:
        _print_cards(out, cells, len(rows))
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
    for column, width in widths.items():
        table.add_column(
            Text(column.name),
            width=width,
            justify="left" if column.least else "right",
            overflow="fold",
        )
    lines = [
        [cells[c][n] if c.wrap else shorten(cells[c][n], width) for c, width in widths.items()]
        for n in range(len(rows))
    ]
    # Rich looks at each cell many times, which is only worth it where one takes several lines.
    fit = all(
        text.isprintable() and cell_len(text) <= width
        for line in lines
        for text, width in zip(line, widths.values(), strict=True)
    )
    for line in [] if fit else lines:
        table.add_row(*map(Text, line))
    whole = out.options.update(width=sum(widths.values()) + GAP * len(widths))
    out.print(Segments(out.render(table, whole)), crop=False, end="")
    if fit and widths:
        for line in lines:
            out.print(Text(_line(line, widths).rstrip()), soft_wrap=True)
    if hidden := [column.name for column in cells if column not in widths]:
        told = wrapped(f"left out: {', '.join(hidden)}{hint}", out.width)
        out.print(Text(told, style="dim"), soft_wrap=True)


def _line(texts: Sequence[str], widths: dict[Column[T], int]) -> str:
    """Texts that fit, each at its side of its column."""
    shown = []
    for text, (column, width) in zip(texts, widths.items(), strict=True):
        text = text if column.least else text.rstrip()
        blanks = " " * (width - cell_len(text))
        shown.append(text + blanks if column.least else blanks + text)
    return (" " * GAP).join(shown)


def _widths(cells: dict[Column[T], list[str]], room: int | None) -> dict[Column[T], int] | None:
    """Cells of each column that is shown; None where not even the least of them fits."""
    texts = {column: max(map(cell_len, found)) for column, found in cells.items()}
    longest = {column: max(cell_len(column.name), texts[column]) for column in cells}
    if room is None:
        return longest
    least = {  # a heading may be wrapped
        c: max(*map(cell_len, c.name.split() or [""]), min(n, c.least) if c.least else n, 0)
        for c, n in texts.items()
    }
    shown = list(cells)
    while sum(least[c] for c in shown) + GAP * (len(shown) - 1) > room:
        highest = max((c.rank for c in shown), default=0)
        if not highest:
            return None
        shown.remove(next(c for c in reversed(shown) if c.rank == highest))
    left = room - sum(least[c] for c in shown) - GAP * (len(shown) - 1)
    widths = {}
    for column in sorted(shown, key=lambda c: longest[c] - least[c]):
        wanting = sum(longest[c] > least[c] for c in shown if c not in widths)
        more = min(longest[column] - least[column], left // wanting if wanting else 0)
        widths[column], left = least[column] + more, left - more
    return {column: widths[column] for column in shown}


def _print_cards(out: Console, cells: dict[Column[T], list[str]], rows: int) -> None:
    first, *others = cells
    label = max((cell_len(column.name) for column in others), default=0)
    for place in range(rows):
        out.print(Text(shorten(cells[first][place], out.width), style="bold"), soft_wrap=True)
        for column in others:
            if text := cells[column][place]:
                told = _in_card(column, text, max(out.width - label - 4, 1))
                told = told.replace("\n", "\n" + " " * (label + 4))
                out.print(Text(f"  {column.name:<{label}}  {told}"), soft_wrap=True)


def _in_card(column: Column[T], text: str, room: int) -> str:
    """A value in lines that end between words; of a name, what fits no line is shortened."""
    if not column.least:
        return text
    lines = wrapped(text, room).split("\n")
    return "\n".join(lines if column.wrap else [shorten(line, room) for line in lines])


# --- rows chosen by what stands in them ----------------------------------------------------------

_TESTS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "~": operator.contains,
    "=": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_CONDITION: Final = re.compile(rf"(.*?)({'|'.join(map(re.escape, _TESTS))})(.*)", re.DOTALL)


def choose(
    rows: Sequence[T], columns: Sequence[Column[T]], *, sort: str = "", filters: Iterable[str] = ()
) -> list[T]:
    """Rows that meet every condition, in order.

    Args:
        rows: what there is.
        columns: what they can be asked for.
        sort: a column's name, with a ``-`` before it for the greatest first. What has no value
            comes last.
        filters: ``COLUMN=VALUE``, or with ``!=``, ``<``, ``<=``, ``>``, ``>=``, or ``~`` for "holds
            the text". What has no value meets ``!=`` only.

    Raises:
        ConfigError: an unknown column, or what is no condition.
    """
    kept = list(rows)
    for condition in filters:
        meets = _condition(condition, columns)
        kept = [row for row in kept if meets(row)]
    if sort:
        column = named(sort.removeprefix("-"), columns)
        known = [row for row in kept if column.get(row) is not None]
        known.sort(key=lambda row: _key(column.get(row)), reverse=sort.startswith("-"))
        kept = known + [row for row in kept if column.get(row) is None]
    return kept


def named(name: str, columns: Sequence[Column[T]]) -> Column[T]:
    """The column of a name; case, blanks and dashes do not matter.

    Raises:
        ConfigError: there is none; the nearest is suggested.
    """
    for column in columns:
        if _plain(column.name) == _plain(name):
            return column
    known = [column.name for column in columns]
    raise ConfigError(
        f"unknown column '{name}'{nearest(name, known)} (there are: {', '.join(known)})"
    )


def pick(names: str, columns: Sequence[Column[T]]) -> list[Column[T]]:
    """The columns of a list of names with commas, none of which may be left out; all if empty."""
    chosen = [named(name, columns) for name in names.split(",") if name.strip()]
    ranked = [Column(c.name, c.get, c.show, 0, c.least, c.wrap) for c in dict.fromkeys(chosen)]
    return ranked or list(columns)


def _condition(text: str, columns: Sequence[Column[T]]) -> Callable[[T], bool]:
    parts = _CONDITION.fullmatch(text)
    if parts is None:
        raise ConfigError(
            f"--filter '{text}' is no condition; write COLUMN=VALUE, or !=, <, <=, >, >=, or ~ for "
            "'holds the text'"
        )
    column, sign, wanted = named(parts[1], columns), parts[2], parts[3].strip()
    test, number = _TESTS[sign], _number(wanted)

    def meets(row: T) -> bool:
        value = column.get(row)
        if value is None:
            return sign == "!=" and bool(wanted)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and sign != "~":
            if number is None:
                raise ConfigError(
                    f"--filter '{text}': '{column.name}' holds numbers, and '{wanted}' is none"
                )
            return test(value, number)
        return test(str(value).casefold(), wanted.casefold())

    return meets


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("% ").lstrip("$").replace(",", ""))
    except ValueError:
        return None


def _key(value: Any) -> tuple[bool, Any]:
    """Numbers before texts."""
    return (False, value) if isinstance(value, (int, float)) else (True, str(value).casefold())


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
