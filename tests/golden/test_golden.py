"""Every optimizer and every command answers as it did when ``golden.json`` was written.

Exit codes, what is found, what is spent and the files of a run folder are the same, floats within
1e-6. Times, versions and paths are not looked at, nor are sentences. An optimizer may leave out
settings it does not read.

Where a change is meant, record it anew (``python tests/golden/record.py CASE``) and say so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases import CASES, Case
from record import GOLDEN, expected, play, prime, without_lost

TOLERANCE = 1e-6
LAST_DIGIT = 1.5e-6
"""Logarithms are rounded to six digits, and the last of them may be another one."""
SHOWN = 20


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    """What was recorded, by case."""
    found: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def primed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature cache that every case starts from."""
    return prime(tmp_path_factory.mktemp("primer"))


def differences(now: Any, then: Any, where: str = "") -> Iterator[str]:
    """A line for each place where two JSON values are not the same."""
    if isinstance(now, dict) and isinstance(then, dict):
        for key in {**then, **now}:
            place = f"{where}/{key}"
            if key not in now:
                if where.endswith("/optimizer/settings"):
                    continue
                yield f"{place} is gone; it was {_short(then[key])}"
            elif key not in then:
                yield f"{place} is new: {_short(now[key])}"
            else:
                yield from differences(now[key], then[key], place)
    elif isinstance(now, list) and isinstance(then, list) and len(now) == len(then):
        for number, (one, other) in enumerate(zip(now, then, strict=True)):
            yield from differences(one, other, f"{where}/{number}")
    elif not _same(now, then):
        yield f"{where} is {_short(now)}; it was {_short(then)}"


def _same(now: Any, then: Any) -> bool:
    if isinstance(now, float) and isinstance(then, float):
        return math.isclose(now, then, rel_tol=TOLERANCE, abs_tol=LAST_DIGIT)
    return type(now) is type(then) and bool(now == then)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]} …"


def test_every_case_is_recorded(golden: dict[str, Any]) -> None:
    assert list(golden) == [case.name for case in CASES]


@pytest.mark.parametrize(
    ("now", "then", "line"),
    [
        ({"a": [1, 2.0]}, {"a": [1, 2.0 + 1e-9]}, None),
        ({"a": 1}, {"a": 1.0}, "/a is 1; it was 1.0"),
        ({"a": {"b": 2}}, {"a": {"b": 3}}, "/a/b is 2; it was 3"),
        ({"a": 1.00001}, {"a": 1.0}, "/a is 1.00001; it was 1.0"),
        ({}, {"a": True}, "/a is gone; it was true"),
        ({"a": None}, {}, "/a is new: null"),
        ([1], [1, 2], " is [1]; it was [1, 2]"),
        (
            {"optimizer": {"settings": {"a": 1}}},
            {"optimizer": {"settings": {"a": 1, "b": 2}}},
            None,
        ),
    ],
)
def test_what_differs_is_named(now: Any, then: Any, line: str | None) -> None:
    assert list(differences(now, then)) == ([] if line is None else [line])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_golden(case: Case, golden: dict[str, Any], tmp_path: Path, primed: Path) -> None:
    now, then = play(case, tmp_path, primed), expected(case, golden)
    if case.like:
        now, then = without_lost(now), without_lost(then)
    found = list(differences(now, then))
    typed = "\n".join(f"  llmopt {step.line}  {step.signal}".rstrip() for step in case.steps)
    more = f"\n… and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    assert not found, f"differs in {len(found)} places:\n{typed}\n" + (
        "\n".join(found[:SHOWN]) + more
    )
