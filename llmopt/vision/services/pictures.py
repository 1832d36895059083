"""Pictures as services take them: of a bounded size, in a format that all of them read."""

from __future__ import annotations

import base64
import io
import tomllib
from functools import cache
from importlib.resources import files
from math import ceil
from typing import Any, Final

from PIL import Image as PillowImage

from llmopt.images import Image

_LOSSLESS: Final = 128 * 128
"""Pixels up to which a picture goes as PNG: it is small, and what JPEG smooths would matter."""


_DEAREST: Final = "openai:gpt-4o-mini"
_MARGIN: Final = 2
_NOT_KNOWN: Final = 1_000


def picture_tokens(spec: str, side: int) -> tuple[int, int]:
    """Tokens that a chat model makes of a picture: as a rule, and at most.

    Args:
        spec: ``PROVIDER:MODEL``; a model that is not in the table may make as many as any.
        side: pixels of the longer side of the picture.
    """
    dearest = _rule(_DEAREST, side)
    assert dearest is not None
    usual = _rule(spec, side)
    if usual is None:
        return _NOT_KNOWN, dearest
    return usual, min(dearest, _MARGIN * usual)


def _rule(spec: str, side: int) -> int | None:
    provider, _, model = spec.partition(":")
    rules = _rules().get(provider, {})
    begins = max((name for name in rules if model.startswith(name)), key=len, default=None)
    # "gpt-5.9" is not "gpt-5", of which nothing is known: a version is a whole word.
    if begins is None or (begins[-1].isdigit() and model[len(begins) :][:1] == "."):
        return None
    rule = rules[begins]
    parts = ceil(side / rule.get("of", 1)) ** 2
    tokens: float = rule.get("base", 0) + rule.get("each", 0) * parts
    return ceil(tokens)


@cache
def _rules() -> dict[str, Any]:
    source = files("llmopt.vision.services").joinpath("pictures.toml").read_text(encoding="utf-8")
    return tomllib.loads(source)


def shrunk(image: PillowImage.Image, side: int) -> PillowImage.Image:
    """The picture with no side longer than ``side`` pixels."""
    if max(image.size) <= side:
        return image
    small = image.copy()
    small.thumbnail((side, side), PillowImage.Resampling.BICUBIC)
    return small


def packed(image: Image, side: int) -> tuple[str, str]:
    """Media type and base64 of a picture of at most ``side`` pixels a side."""
    picture = shrunk(image.load(), side).convert("RGB")
    lossless = picture.width * picture.height <= _LOSSLESS
    buffer = io.BytesIO()
    picture.save(buffer, "PNG") if lossless else picture.save(buffer, "JPEG", quality=92)
    kind = "image/png" if lossless else "image/jpeg"
    return kind, base64.b64encode(buffer.getvalue()).decode("ascii")


def data_uri(image: Image, side: int) -> str:
    """The same as an address that holds the picture."""
    kind, content = packed(image, side)
    return f"data:{kind};base64,{content}"
