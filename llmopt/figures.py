"""Figures as people read them, and data as JSON can hold it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return "–" if value is None else f"{100 * value:+.1f}"


def interval(bounds: Any, signed: bool = False) -> str:
    """An interval of fractions, in per cent."""
    if bounds is None:
        return ""
    sign = "+" if signed else ""
    return f"[{100 * bounds[0]:{sign}.1f}, {100 * bounds[1]:{sign}.1f}]"


def p_text(value: float, equals: bool = False) -> str:
    """A p-value to three digits."""
    text = "< 0.001" if value < 0.001 else f"{value:.3f}"
    return f"= {text}" if equals and not text.startswith("<") else text


def plain(data: Any) -> Any:
    """Dataclasses, paths and tuples as what JSON can hold."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {f.name: plain(getattr(data, f.name)) for f in dataclasses.fields(data)}
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    return str(data) if isinstance(data, Path) else data
