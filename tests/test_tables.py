"""Tables within a width: figures whole, names shortened, columns left out, cards; rows chosen."""

from __future__ import annotations

import io
import re
from operator import itemgetter
from typing import Any

import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from rich.cells import cell_len

from llmopt.errors import ConfigError
from llmopt.screen import Screen, shorten, wrapped
from llmopt.tables import Column, choose, pick, print_table, text_columns

Row = tuple[Any, ...]
COLUMNS: list[Column[Row]] = [
    Column("run", itemgetter(0), least=10),
    Column("best score", itemgetter(1), "{:,.1f} %".format),
    Column("queries", itemgetter(2), "{:,}".format, rank=1),
    Column("cost", itemgetter(3), rank=2),
]
ROWS: list[Row] = [
    ("runs/shapes-small-1shot-seed1", 99.6, 2304, None),
    ("runs/other", 7.0, 12, None),
    ("=cmd|' /C calc'!A0", None, 1234567, None),
]


def drawn(width: int, rows: list[Row] = ROWS, *, terminal: bool = True, **options: Any) -> str:
    out = Screen(
        file=io.StringIO(), force_terminal=terminal, width=width, height=25, color_system=None
    )
    print_table(out, options.pop("columns", COLUMNS), rows, **options)
    text: str = out.file.getvalue()  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize("width", [20, 27, 30, 40, 60, 80, 200])
def test_figures_are_whole_and_lines_fit_at_any_width(width: int) -> None:
    text = drawn(width, hint=" (--wide)")
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "99.6 %" in text
    assert "1,234,567" in text or "left out: queries" in text
    assert "cost" not in text  # nothing stands in it
    assert "7.0 %" in text


def test_columns_of_the_highest_rank_go_first_and_are_named() -> None:
    assert drawn(26, hint=" (--wide)").splitlines()[-1] == "left out: queries (--wide)"
    assert "left out" not in drawn(40)
    assert "runs/sh…t-seed1" in drawn(80, columns=[Column("run", itemgetter(0), least=15),
        Column("long", lambda row: "x" * 63)])  # fmt: skip


def test_a_row_is_a_card_where_nothing_else_fits() -> None:
    text = drawn(20, columns=pick("run,queries,best score", COLUMNS))
    assert text.splitlines()[:3] == [
        "runs/shape…hot-seed1",
        "  queries     2,304",
        "  best score  99.6 %",
    ]


def test_texts_of_a_card_end_their_lines_between_words() -> None:
    columns = [
        Column[Row]("stage", itemgetter(0), least=10),
        Column[Row]("best score", itemgetter(1)),
        Column[Row]("where", itemgetter(2), least=10),
        Column[Row]("why", itemgetter(3), least=20, wrap=True),
    ]
    rows: list[Row] = [
        ("head", "100.0 %", "runs/a-folder-of-some-length", "no gain on few images:\n+0.07 nats"),
        ("soft", "99.6 %", "on the few shots", "runs/a-folder-of-some-length"),
    ]
    assert drawn(32, rows, columns=columns).splitlines() == [
        "head",
        "  best score  100.0 %",
        "  where       runs/a-fo…e-length",
        "  why         no gain on few",
        "              images:",
        "              +0.07 nats",
        "soft",
        "  best score  99.6 %",
        "  where       on the few shots",
        "  why         runs/a-folder-of-some-length",
    ]
    assert drawn(26, rows[1:], columns=columns).splitlines()[2:4] == [
        "  where       on the few",
        "              shots",
    ]


def test_pipes_and_wide_tables_are_as_wide_as_they_come() -> None:
    rows = [("x" * 300, 1.0, 2, "unknown")]
    for text in (drawn(40, rows, terminal=False), drawn(40, rows, wide=True)):
        assert "x" * 300 in text
        assert "unknown" in text
        assert len(text.splitlines()) == 3


def test_a_row_looks_the_same_beside_one_of_several_lines() -> None:
    columns = [
        Column[Row]("run", itemgetter(0), least=5),
        Column[Row]("value", itemgetter(1)),
        Column[Row]("what it says", itemgetter(2), least=10, wrap=True),
    ]
    rows: list[Row] = [("a \u4e2d\u6587", " 1.0 ", "few words"), ("b", "22.5", "")]
    alone = drawn(36, rows, columns=columns).splitlines()[2:]
    beside = drawn(36, [*rows, ("c", "3", "x\ny")], columns=columns).splitlines()[2:4]
    assert [line.rstrip() for line in beside] == alone
    assert alone[1].split() == ["b", "22.5"]


@fuzz(
    rows=st.lists(
        st.tuples(st.text(max_size=50), st.none() | st.floats(0, 1e9), st.none() | st.integers(),
                  st.none() | st.text(max_size=9)), max_size=5),
    width=st.integers(12, 200),
)  # fmt: skip
def test_any_rows_can_be_shown_and_chosen(rows: list[Row], width: int) -> None:
    text = drawn(width, rows, title="a title of some words")
    assert not re.search(r"[\x00-\x08\x1b\u202e]", text)
    for sort in ("run", "-run", "cost", "-best score", "QUERIES"):
        assert sorted(map(repr, choose(rows, COLUMNS, sort=sort))) == sorted(map(repr, rows))
    for name, width in ((row[0], width) for row in rows):
        assert cell_len(shorten(name, width)) <= max(width, 1)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (["best_score>90"], 1), (["best score >= 7", "queries<100"], 1), (["queries=2,304"], 1),
        (["best score!=7"], 2), (["run~SHAPES"], 1), (["run=runs/other"], 1), (["cost=None"], 0),
        (["cost!=x"], 3), (["run~="], 1), (["best score<100%"], 2), (["run!=runs/other"], 2),
    ],
)  # fmt: skip
def test_rows_are_filtered(filters: list[str], kept: int) -> None:
    assert len(choose(ROWS, COLUMNS, filters=filters)) == kept


def test_rows_are_sorted_with_unknown_last() -> None:
    assert [row[1] for row in choose(ROWS, COLUMNS, sort="best score")] == [7.0, 99.6, None]
    assert [row[1] for row in choose(ROWS, COLUMNS, sort="-best-score")] == [99.6, 7.0, None]
    assert choose(ROWS, COLUMNS, sort="-queries")[0][2] == 1234567


def test_mistakes_are_named_with_the_way_out() -> None:
    with pytest.raises(ConfigError, match="unknown column 'bset score'; did you mean 'best score'"):
        pick("run,bset score", COLUMNS)
    with pytest.raises(ConfigError, match="'best' is no condition; write COLUMN=VALUE"):
        choose(ROWS, COLUMNS, filters=["best"])
    for wanted in ("abc", ""):
        with pytest.raises(ConfigError, match=f"'best score' holds numbers, and '{wanted}' is no"):
            choose(ROWS, COLUMNS, filters=[f"best score>{wanted}"])
    with pytest.raises(ConfigError, match="unknown column 'x'"):
        choose([], COLUMNS, sort="-x")


def test_names_are_shortened_in_the_middle_by_cells() -> None:
    assert shorten("runs/shapes-small", 9) == "runs…mall"
    assert shorten("short", 9) == "short"
    assert cell_len(shorten("犬" * 30, 10)) <= 10
    assert shorten("ab", 1) == "…"


def test_prose_is_wrapped_between_words_only() -> None:
    path = "runs/" + "x" * 30
    assert wrapped(f"a word and {path} more", 12).split("\n") == ["a word and", path, "more"]
    assert wrapped("one\n\ntwo", 20) == "one\n\ntwo"
    assert wrapped("why:   one two three", 14, 7) == "why:   one two\n       three"


def test_ready_texts_are_names_figures_and_words() -> None:
    text = drawn(
        60, [("a", "1", "long words " * 9)], columns=text_columns("", "n", "w", words=("w",))
    )
    assert "…" not in text
    assert text.count("long words") + text.count("long") >= 9
