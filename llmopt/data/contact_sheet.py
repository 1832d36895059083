"""Contact sheets: many small images with a caption under each, in one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

_PAPER = (250, 250, 248)
_INK = (40, 40, 44)


def contact_sheet(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    *,
    columns: int = 8,
    cell: int = 120,
    title: str | None = None,
) -> Image.Image:
    """Lay ``images`` out row by row, each fitted into a square of ``cell`` pixels over its label.

    Small images are enlarged by whole factors without smoothing, so that the sheet shows what the
    model sees; large ones are reduced. Labels that don't fit are cut with an ellipsis.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images but {len(labels)} labels")
    if not images:
        raise ValueError("no images to draw")
    font = ImageFont.load_default(size=12)
    gap, caption, head = 8, 18, 28 if title else 0
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    width = gap + columns * (cell + gap)
    height = head + gap + rows * (cell + caption + gap)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        heading = ImageFont.load_default(size=15)
        draw.text((gap, gap), _fit(title, heading, width - 2 * gap), fill=_INK, font=heading)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        left = gap + (i % columns) * (cell + gap)
        top = head + gap + (i // columns) * (cell + caption + gap)
        shown = _resize(image.convert("RGB"), cell)
        sheet.paste(shown, (left + (cell - shown.width) // 2, top + (cell - shown.height) // 2))
        draw.text((left, top + cell + 2), _fit(label, font, cell), fill=_INK, font=font)
    return sheet


def _resize(image: Image.Image, cell: int) -> Image.Image:
    longest = max(image.size)
    if longest > cell:
        image = image.copy()
        image.thumbnail((cell, cell))
        return image
    factor = cell // longest
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """``text``, cut so that it is at most ``width`` pixels wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
