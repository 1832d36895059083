"""Where the natural-language files lie.

That is ``prompts/`` in a checkout and ``llmopt/_prompts`` in an installed wheel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def prompts_root() -> Path:
    """The folder that holds ``meta/``, ``templates/`` and ``classnames/``."""
    here = Path(__file__).resolve().parent
    packaged = here / "_prompts"
    return packaged if packaged.is_dir() else here.parent / "prompts"


def read_prompt(name: str) -> str:
    """The text of a file below ``prompts/``, such as ``meta/system.txt``."""
    return (prompts_root() / name).read_text(encoding="utf-8")


def read_lines(name: str) -> list[str]:
    """The lines of such a file, without blank ones and ``#`` comments."""
    lines = (line.strip() for line in read_prompt(name).splitlines())
    return [line for line in lines if line and not line.startswith("#")]
