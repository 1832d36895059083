"""Outside text on a page: escaped, and nothing in it unseen."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

from markupsafe import Markup, escape

_KEPT: Final = "\n\t\u200d"  # lines, and what joins emoji
_WORD: Final = re.compile(r"\* (.{1,80}?): ([+-]\d.*)")  # of a word table


class _Shown(dict[int, str]):
    """What stands on the page for each character; filled as they are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if unicodedata.category(character).startswith("C") and character not in _KEPT:
            shown = f'<span class="unseen">U+{code:04X}</span>'
        else:
            shown = str(escape(character))
        self[code] = shown
        return shown


_SHOWN: Final = _Shown()


def visible(text: Any) -> Markup:
    """The text, escaped; control and direction characters stand as their code points."""
    return Markup(f"<bdi>{str(text).translate(_SHOWN)}</bdi>")


def blocks(text: str) -> list[tuple[str, list[Any]]]:
    """A message in paragraphs (``text``), lists, and tables of words with what each did."""
    found: list[tuple[str, list[Any]]] = []
    new = True
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        for line in paragraph.split("\n"):
            kind: str = "text"
            shown: Any = line
            if word := _WORD.match(line):
                kind, shown = "table", word.groups()
            elif line.startswith(("- ", "* ")):
                kind, shown = "list", line[2:]
            if found and found[-1][0] == kind and not new:
                found[-1][1].append(shown)
            else:
                found.append((kind, [shown]))
            new = False
        new = True
    return found
