"""Pictures as services take them: of a bounded size, in a format that all of them read."""

from __future__ import annotations

import base64
import io
from typing import Final

from PIL import Image as PillowImage

from llmopt.images import Image

_LOSSLESS: Final = 128 * 128
"""Pixels up to which a picture goes as PNG: it is small, and what JPEG smooths would matter."""


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
