"""Outside text on a page: escaped, and nothing in it unseen."""

from __future__ import annotations

import unicodedata
from typing import Any, Final

from markupsafe import Markup, escape

_KEPT: Final = "\n\t\u200d"  # lines, and what joins emoji


def visible(text: Any) -> Markup:
    """The text, escaped; control and direction characters stand as their code points."""
    parts = []
    for character in str(text):
        if unicodedata.category(character).startswith("C") and character not in _KEPT:
            parts.append(Markup('<span class="unseen">U+{:04X}</span>').format(ord(character)))
        else:
            parts.append(escape(character))
    return Markup("<bdi>{}</bdi>").format(Markup("").join(parts))
