"""Templates: a sentence with exactly one ``{}``.

Templates come from people, files and language models, so they are outside text: they are cleaned
and checked here, and filled by plain replacement, never by ``str.format``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llmopt.errors import TemplateError

SLOT = "{}"
PLAIN = "a photo of a {}."

# Literal control tokens would be read by CLIP tokenizers as the real ones and cut the prompt short.
_CONTROL_TOKENS = re.compile(
    r"<\s*\|?\s*(?:start_?of_?text|end_?of_?text)\s*\|?\s*>", re.IGNORECASE
)
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\W_]+")


def clean(text: str) -> str:
    """Text without control tokens, invisible characters and runs of white space.

    Removes control characters, zero-width and bidirectional marks (Unicode categories Cc, Cf, Cs,
    Co and Cn) and composes the rest (NFC), so that what is shown is what is encoded.
    """
    if text.isascii() and text.isprintable() and "<" not in text:  # nearly all there is
        return " ".join(text.split())
    text = unicodedata.normalize("NFC", text)
    # Removing one token may join the halves of another: repeat until nothing is left to remove.
    while True:
        visible = "".join(
            " " if c in "\t\n\r\v\f" else c
            for c in text
            if c in "\t\n\r\v\f" or not unicodedata.category(c).startswith("C")
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

    def __str__(self) -> str:
        return self.text


def contains_classname(template: Template, classnames: Sequence[str]) -> str | None:
    """The first class name that stands in the template as whole words, or None.

    Such a template says the answer for one class and is wrong for all others.
    """
    words = _words(template.text)
    return next(
        (name for name in classnames if _words(name).strip() and _words(name) in words), None
    )


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _shown(text: str, limit: int = 80) -> str:
    return repr(text if len(text) <= limit else text[: limit - 1] + "…")
