"""Where the natural-language files lie.

That is ``prompts/`` and ``docs/`` in a checkout, ``llmopt/_prompts`` and ``llmopt/_docs`` in an
installed wheel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def prompts_root() -> Path:
    """The folder that holds ``meta/``, ``templates/`` and ``classnames/``."""
    return _root("prompts")


@cache
def docs_root() -> Path:
    """The folder that holds the pages of the documentation."""
    return _root("docs")


def _root(name: str) -> Path:
    here = Path(__file__).resolve().parent
    packaged = here / f"_{name}"
    return packaged if packaged.is_dir() else here.parent / name


def read_prompt(name: str) -> str:
    """The text of a file below ``prompts/``, such as ``meta/system.txt``."""
    return (prompts_root() / name).read_text(encoding="utf-8")


def read_lines(name: str) -> list[str]:
    """The lines of such a file, without blank ones and ``#`` comments."""
    lines = (line.strip() for line in read_prompt(name).splitlines())
    return [line for line in lines if line and not line.startswith("#")]
