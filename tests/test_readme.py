"""The README is a page: short, with links that lead somewhere and figures that are told once.

What it says to do is done in ``test_pages.py``.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import run

CHECKOUT = Path(__file__).resolve().parents[1]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def test_it_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) <= 110
    assert len(re.findall(r"^!\[", README, re.MULTILINE)) == 1
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert all(len(code.splitlines()) <= 13 for code in snippets)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (CHECKOUT / target).is_file(), target


def test_figures_are_those_of_the_page_that_tells_how_they_were_made() -> None:
    _, _, section = README.partition("## How well\n")
    page = (CHECKOUT / "docs" / "how-well.md").read_text(encoding="utf-8")
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    figures = {one for row in rows for one in re.findall(r"\d+\.\d|\d\d of \d\d|\d+ to \d+", row)}
    assert len(figures) > 8
    assert {figure for figure in figures if figure not in page} == set()


@pytest.mark.slow
@pytest.mark.parametrize("shots", ["16", "1"])
def test_what_a_head_gains_on_digits_is_what_is_printed(tmp_path: Path, shots: str) -> None:
    options = "--dataset digits --optimizer zeroshot --model shapes-tiny --head auto --json"
    found = json.loads(run("run", "--shots", shots, *options.split(), cwd=tmp_path).out)
    page = README if shots == "16" else (CHECKOUT / "docs" / "how-well.md").read_text("utf-8")
    for side in ("baseline", "best"):
        assert f"{100 * found[side]['test_accuracy']:.1f} %" in page
