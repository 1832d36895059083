"""Templates: a sentence with exactly one ``{}``.

Templates come from people, files and language models, so they are outside text: they are cleaned
and checked here, and filled by plain replacement, never by ``str.format``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from llmopt.errors import TemplateError

SLOT = "{}"
PLAIN = "a photo of a {}."

# Literal control tokens would be read by CLIP tokenizers as the real ones and cut the prompt short.
_CONTROL_TOKENS = re.compile(
    r"<\s*\|?\s*(?:start_?of_?text|end_?of_?text)\s*\|?\s*>", re.IGNORECASE
)
# Zero-width joiners are spelling in scripts whose letters join: Arabic, Syriac, N'Ko, those of
# India and Sri Lanka, Tibetan, Burmese, Khmer, Mongolian. Elsewhere they only hide in a text.
_JOINED = (
    "\u0620-\u065f\u066e-\u06ef\u06fa-\u074f\u0750-\u07fa\u08a0-\u08ff\u0900-\u0dff\u0f40-\u0fbc"
    "\u1000-\u109f\u1780-\u17d3\u1820-\u18aa"
)
_VIRAMA = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
_JOINER = re.compile(
    f"(?<=[{_JOINED}])[\u200c\u200d](?=[\u200c\u200d]*[{_JOINED}])|(?<=[{_VIRAMA}])\u200d"
)
_SPACE = re.compile(r"\s+")


def clean(text: str) -> str:
    """Text without control tokens, invisible characters and runs of white space.

    Removes control characters, zero-width and bidirectional marks (Unicode categories Cc, Cf, Cs,
    Co and Cn) and composes the rest (NFC), so that what is shown is what is encoded. A joiner stays
    between letters of a script that spells with it.
    """
    if text.isascii() and text.isprintable() and "<" not in text:  # nearly all there is
        return " ".join(text.split())
    # Removing one token may join the halves of another: repeat until nothing is left to remove.
    while True:
        text = unicodedata.normalize("NFC", text)
        joiners = {found.start() for found in _JOINER.finditer(text)}
        visible = "".join(
            " " if c in "\t\n\r\v\f" else c
            for i, c in enumerate(text)
            if c in "\t\n\r\v\f" or not unicodedata.category(c).startswith("C") or i in joiners
        )
        stripped = _CONTROL_TOKENS.sub(" ", visible)
        stripped = _SPACE.sub(" ", stripped).strip()
        if stripped == text:
            return text
        text = stripped


def display_name(classname: str) -> str:
    """A class name as it stands in a prompt: underscores become spaces (CoOp's rule)."""
    return _SPACE.sub(" ", classname.replace("_", " ")).strip()


@dataclass(frozen=True)
class Template:
    """A sentence with exactly one ``{}`` and no other brace.

    Raises:
        TemplateError: ``text`` has no slot, more than one, another brace, or nothing visible.
    """

    text: str

    def __post_init__(self) -> None:
        cleaned = clean(self.text)
        slots = cleaned.count(SLOT)
        if slots != 1:
            found = "no" if slots == 0 else str(slots)
            raise TemplateError(
                f"template {_shown(cleaned)} has {found} '{{}}'; "
                "write exactly one where the class name goes, as in 'a photo of a {}.'"
            )
        rest = cleaned.replace(SLOT, "")
        if "{" in rest or "}" in rest:
            raise TemplateError(
                f"template {_shown(cleaned)} has a brace outside its '{{}}'; remove it"
            )
        object.__setattr__(self, "text", cleaned)

    def fill(self, classname: str) -> str:
        """The prompt for one class."""
        return self.text.replace(SLOT, display_name(classname))

    def fill_all(self, classnames: Iterable[str]) -> list[str]:
        """One prompt per class, in order."""
        return [self.fill(name) for name in classnames]

    @property
    def normal(self) -> str:
        """Normal form where no tokenizer is at hand: case and white space do not count."""
        return self.text.lower()

    @property
    def length(self) -> tuple[int, int]:
        """Words and letters: of templates equally good, the shorter one is taken."""
        return len(self.text.split()), len(self.text)

    def __str__(self) -> str:
        return self.text


def _shown(text: str, limit: int = 80) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
