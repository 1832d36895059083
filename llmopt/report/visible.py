"""Outside text on a page: escaped, and nothing in it unseen."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

from markupsafe import Markup, escape

_KEPT: Final = "\n\t\u200d"  # lines, and what joins emoji


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
