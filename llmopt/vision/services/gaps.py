"""Prompts that are one sentence with names in a gap: the template behind them, found again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

GAP: Final = "___"


def gap(prompts: Sequence[str]) -> tuple[str, list[str]] | None:
    """The sentence that prompts share, with a gap, and what each has in it; None if there is none.

    Words stay whole: ``a red circle`` and ``a red cross`` share ``a red ___``.
    """
    before = re.sub(r"\w+$", "", _beginning(prompts))
    rests = [prompt[len(before) :] for prompt in prompts]
    after = re.sub(r"^\w+", "", _beginning([rest[::-1] for rest in rests])[::-1])
    names = [rest[: len(rest) - len(after)].strip() for rest in rests]
    if len(set(names)) < max(2, len(prompts)) or not all(names) or not (before + after).strip():
        return None
    return f"{before}{GAP}{after}", names


def _beginning(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)
    pairs = zip(first, last, strict=False)
    return first[: next((n for n, (a, b) in enumerate(pairs) if a != b), len(first))]
