"""What reaches a terminal: outside text, within its width and without what controls it."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections.abc import Iterable
from typing import Any, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Escapes, what turns the direction of writing, and halves of characters, which cannot be encoded.
UNSEEN: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with a sign in the place of each character that a terminal would obey."""
    return UNSEEN.sub("\N{REPLACEMENT CHARACTER}", text)


def shorten(text: str, width: int) -> str:
    """The text within so many cells of a terminal; what is too much is left out in the middle."""
    if cell_len(text) <= width:
        return text
    head = set_cell_size(text, (width - 1) - (width - 1) // 2).rstrip()
    tail = text
    while cell_len(tail) > (width - 1) // 2:
        tail = tail[1:]
    return f"{head}…{tail}"


def wrapped(text: str, width: int, hang: int = 0) -> str:
    """Lines of so many characters that end between words; a path or a word is never broken.

    All but the first line of a paragraph hang by so many blanks.
    """
    return "\n".join(
        line
        for paragraph in text.split("\n")
        for line in textwrap.wrap(
            paragraph, max(width, 1), break_long_words=False, break_on_hyphens=False,
            drop_whitespace=True, replace_whitespace=False, subsequent_indent=" " * hang,
        )
        or [""]
    )  # fmt: skip


class Screen(Console):
    """A console that takes what it is given as plain text: no markup, emoji or control characters.

    On stderr it tells progress, which is no reason to end a run when it cannot be written.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Segments of text; what rich itself has the terminal do is left as it is."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(printable(text), style)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, if it can be."""
        with contextlib.suppress(*([OSError] if self.stderr else [])):
            super().print(*objects, **options)
