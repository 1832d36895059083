"""What an export format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmopt.export.prompts import PromptList

Files = dict[str, bytes]
"""Content by file name."""


@dataclass(frozen=True)
class Format:
    """How prompts are written for another tool.

    Attributes:
        write: takes a prompt list, and a list to which it adds a warning for everything that the
            format can't keep; gives the files.
        text: whether a single file can be shown on a terminal.
        by_class: whether it has a place for classes with prompts of their own.
    """

    write: Callable[[PromptList, list[str]], Files]
    text: bool = True
    by_class: bool = False
