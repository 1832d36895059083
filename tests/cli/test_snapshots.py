"""Commands print what was looked at once, on terminals of 80 and 120 columns."""

from __future__ import annotations

from pathlib import Path

import pytest
from snapshots import SNAPSHOTS, WIDTHS, prepare, shown


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("snapshots")
    prepare(root)
    return root


@pytest.mark.parametrize("width", WIDTHS)
def test_commands_print_what_was_looked_at(place: Path, width: int) -> None:
    """If that is meant to change: ``python tests/cli/snapshots.py``, and look at the difference."""
    assert shown(place, width) == (SNAPSHOTS / f"{width}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """But those that are there to be copied."""
    wide = [
        line
        for line in (SNAPSHOTS / f"{width}.txt").read_text(encoding="utf-8").splitlines()
        if len(line) > width and not line.startswith(("$ ", "run folder: ", "export: "))
    ]
    assert wide == []
