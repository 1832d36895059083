"""Keeping secrets out of everything that is shown or written.

Providers echo keys in error messages, headers and redirect addresses. Every text that comes from
outside and may reach a log, a journal, an error or a report passes through one :class:`Scrubber`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus

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
    r"|(?i:(?<=[?&]key=)|(?<=api_key=)|(?<=api-key=)|(?<=token=)|(?<=password=)|(?<=secret=)"
    r"|(?<=[?&]sig=)|(?<=signature=))[^&\s\"'<>]{8,}"
    r"|(?<=://)[^/@\s]+(?=@)"
)
# How names of parameters of addresses end besides, where they hold a secret.
_PARAMETERS: Final = frozenset(
    {"key", "apikey", "token", "auth", "pass", "pwd", "sig", "signature", "jwt", "sas"}
)
# Before the host, or with a password that holds what ends a host.
_USER = re.compile(r"://[^/?#\s]*@|://[^/@\s\[]*:(?!\d*(?:/|$))[^@]*@")
# Surer than the shapes above, for texts that are refused and not only masked.
_KEY = re.compile(
    r"\b(?:sk|pk|gsk|xai|hf|r8|pplx|nvapi|csk|ghp|glpat)[-_](?=[\w-]*\d)[\w-]{16,}|\bAIza[\w-]{30,}"
)


def looks_secret(name: str) -> bool:
    """Whether a setting, header or environment variable of that name holds a secret."""
    return bool(_SECRET_NAME.search(name.replace("-", "_")))


def in_address(address: str) -> str:
    """The secret that an address holds, for people; empty if it holds none."""
    if _USER.search(address):
        return "a user name or password"
    _, *rest = re.split("[?#]", address)
    for name, value in parse_qsl("&".join(rest)):
        last = re.split("[-_]", name.lower())[-1]
        if value and (looks_secret(name) or last in _PARAMETERS):
            return f"the parameter '{name[:40]}'"
    return ""


def is_key(text: str) -> bool:
    """Whether a text holds what is surely a key of one of the common services."""
    return bool(_KEY.search(text))


def _parts(secret: str) -> Iterator[str]:
    """A secret, what follows its scheme (``Bearer``), and what ``Basic`` wraps."""
    yield secret
    for part in secret.split():
        yield part
        with contextlib.suppress(binascii.Error, ValueError):
            user, colon, password = base64.b64decode(part, validate=True).decode().partition(":")
            if colon:
                yield from (f"{user}:{password}", password)


def _forms(secret: str) -> Iterator[str]:
    """A secret as it is, and as it stands in addresses, JSON, pages, hex and Base64."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield from (secret, repr(secret)[1:-1], html.escape(secret), raw.hex(), raw.hex().upper())
    yield from (json.dumps(secret, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    for quoted in (quote(raw), quote(raw, safe=""), quote_plus(raw)):
        yield from (quoted, re.sub("%..", lambda found: found[0].lower(), quoted))
    for before in range(3):  # bytes that stand before it in a triple
        encoded = base64.b64encode(bytes(before) + raw).decode()
        whole = (before + len(raw)) * 8 // 6  # the next holds bits of what follows
        core = encoded[(before * 8 + 5) // 6 : whole]
        yield from (core, core.translate(str.maketrans("+/", "-_")))


class Scrubber:
    """Masks known secrets in any usual encoding, and whatever has the shape of one.

    Args:
        secrets: values never to be shown.
        environ: where further secrets may lie; the process environment by default.
    """

    def __init__(
        self, secrets: Iterable[str] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        environ = os.environ if environ is None else environ
        found = {*secrets, *(v for k, v in environ.items() if looks_secret(k))}
        parts = {part for secret in found for part in _parts(secret) if len(part) >= _SHORTEST}
        forms = {form for part in parts for form in _forms(part) if len(form) >= _SHORTEST}
        # Longest first: a secret may be part of another.
        self._known = sorted(forms, key=lambda form: (-len(form), form))

    def __call__(self, text: str) -> str:
        """The text with every secret masked."""
        for form in self._known:
            text = text.replace(form, MASK)
        return _SHAPES.sub(MASK, text)

    def finds(self, text: str) -> bool:
        """Whether the text holds a secret."""
        return self(text) != text

    def __repr__(self) -> str:
        return "Scrubber()"
