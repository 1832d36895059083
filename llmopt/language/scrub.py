"""Keeping secrets out of everything that is shown or written.

Providers echo keys in error messages, headers and redirect addresses. Every text that comes from
outside and may reach a log, a journal, an error or a report passes through one :class:`Scrubber`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

MASK = "[secret]"
# Shorter values ("none", "ollama") are no secrets, and masking them would garble ordinary words.
_SHORTEST = 8
_SECRET_NAME = re.compile(
    r"(?:api|access|secret|auth|private|bearer)_?(?:key|token)|_key$|_token$|password|passwd|secret"
    r"|credential|authorization|cookie",
    re.IGNORECASE,
)
# Keys of the common services, also where they are shortened with stars or dots, as services do.
_SHAPES = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|r8|pplx|nvapi|lsv2|fw|key|csk|ghp|glpat)[-_][A-Za-z0-9_*.…-]{8,}"
    r"|\bAIza[A-Za-z0-9_*-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+"
    r"|(?i:(?<=bearer )|(?<=basic ))[A-Za-z0-9+/=_.~-]{8,}"
    r"|(?i:(?<=[?&]key=)|(?<=api_key=)|(?<=api-key=)|(?<=token=))[^&\s\"'<>]{8,}"
    r"|(?<=://)[^/@\s:]+:[^/@\s]+(?=@)"
)


def looks_secret(name: str) -> bool:
    """Whether a setting, header or environment variable of that name holds a secret."""
    return bool(_SECRET_NAME.search(name.replace("-", "_")))


class Scrubber:
    """Masks known secrets, and whatever has the shape of one.

    Args:
        secrets: values never to be shown.
        environ: where further secrets may lie; the process environment by default.
    """

    def __init__(
        self, secrets: Iterable[str] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        environ = os.environ if environ is None else environ
        found = {*secrets, *(v for k, v in environ.items() if looks_secret(k))}
        # Longest first: a secret may be part of another.
        values = sorted((v for v in found if len(v) >= _SHORTEST), key=lambda v: (-len(v), v))
        self._known = re.compile("|".join(map(re.escape, values))) if values else None

    def __call__(self, text: str) -> str:
        """The text with every secret masked."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _SHAPES.sub(MASK, text)

    def finds(self, text: str) -> bool:
        """Whether the text holds a secret."""
        return self(text) != text

    def __repr__(self) -> str:
        return "Scrubber()"
