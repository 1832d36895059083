"""Charts as inline SVG that follows the page's colours and can be read aloud.

Colours are the page's own variables, so one chart serves a light and a dark page; fonts are the
page's. Nothing is shared between charts, so there is nothing that could be taken from another.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape
from PIL import Image

from llmopt.report.plot import COLOURS, WIDTH, Axis, Heat, Level, Mark, Plot, drawable

_SMALL: Final = 8.5  # font size
_LAYERS: Final = 4  # faint points are drawn in so many layers, so that crowds look denser
_UNITS: Final[dict[str, list[tuple[float, float]]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
    "up": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
    "down": [(0, 1.2), (1.1, -0.9), (-1.1, -0.9)],
    "plus": [
        (-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4), (0.4, 1.2),
        (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4),
    ],
    "star": [
        ((1.6 if i % 2 == 0 else 0.65) * math.sin(math.pi * i / 5),
         -(1.6 if i % 2 == 0 else 0.65) * math.cos(math.pi * i / 5))
        for i in range(10)
    ],
}  # fmt: skip
"""Corners of the shapes that are not round, for radius 1."""


def draw(shown: Plot | Heat, prefix: str, title: str, description: str) -> Markup:
    """A chart as an ``<svg>`` element.

    Args:
        shown: the chart.
        prefix: of its ids; must differ from chart to chart of a page.
        title, description: what it is, and what it shows, for those who do not see it.
    """
    width, height, content = _heat(shown) if isinstance(shown, Heat) else _plot(shown)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="max-width: {1.5 * width:.0f}px; min-width: {0.85 * width:.0f}px" role="img" '
        f'aria-labelledby="{prefix}-title {prefix}-text">'
        f'<title id="{prefix}-title">{escape(title)}</title>'
        f'<desc id="{prefix}-text">{escape(description)}</desc>{"".join(content)}</svg>'
    )


# --- marks on axes -------------------------------------------------------------------------------


def _plot(plot: Plot) -> tuple[float, float, list[str]]:
    (x_low, x_high), (y_low, y_high) = plot.ends()
    x_ticks, y_ticks = plot.x.ticks(x_low, x_high), plot.y.ticks(y_low, y_high)
    legend, top = _legend(plot.legend)
    left = 8 + max((_wide(plot.y.name(tick)) for tick in y_ticks), default=0.0)
    left += 14 if plot.y.label else 0
    right, bottom = WIDTH - 10, plot.height - 30
    x = _Scale(plot.x, x_low, x_high, left, right)
    y = _Scale(plot.y, y_low, y_high, bottom, top)
    content = legend
    for tick in x_ticks:
        content.append(_line(x(tick), top, x(tick), bottom, "grid", 0.6))
        content.append(_text(x(tick), bottom + 12, plot.x.name(tick), "middle"))
    for tick in y_ticks:
        if not plot.y.names:
            content.append(_line(left, y(tick), right, y(tick), "grid", 0.6))
        content.append(_text(left - 5, y(tick) + 3, plot.y.name(tick), "end"))
    content.append(_line(left, top, left, bottom, "muted", 0.8))
    content.append(_line(left, bottom, right, bottom, "muted", 0.8))
    content.append(_text((left + right) / 2, plot.height - 4, plot.x.label, "middle"))
    if plot.y.label:
        content.append(_text(10, (top + bottom) / 2, plot.y.label, "middle", turned=True))
    for level in plot.levels:
        dash = "1 2.5" if level.label else ""
        if level.upright:
            content.append(_line(x(level.at), top, x(level.at), bottom, level.colour, 1.0, dash))
        else:
            content.append(_line(left, y(level.at), right, y(level.at), level.colour, 1.0, dash))
    for mark in plot.marks:
        points = [
            (x(a), y(b)) for a, b in zip(mark.x, mark.y, strict=True) if drawable(a) and drawable(b)
        ]
        content += _mark(mark, points)
    return WIDTH, plot.height, content


class _Scale:
    """From values of an axis to places of the drawing."""

    def __init__(self, axis: Axis, low: float, high: float, begin: float, end: float) -> None:
        self._log = axis.log
        self._low = math.log10(low) if axis.log else low
        over = (math.log10(high) if axis.log else high) - self._low
        self._begin, self._unit = begin, (end - begin) / over

    def __call__(self, value: float) -> float:
        value = math.log10(value) if self._log else value
        return self._begin + (value - self._low) * self._unit


def _mark(mark: Mark, points: Sequence[tuple[float, float]]) -> Iterator[str]:
    if mark.line and points:
        path, before = "M" + _at(*points[0]), points[0]
        for point in points[1:]:
            path += f"L{_at(point[0], before[1])}" if mark.steps else ""
            path += "L" + _at(*point)
            before = point
        dash = "; stroke-dasharray: 4 3" if mark.dashed else ""
        yield (
            f'<path d="{path}" style="fill: none; stroke: var(--{mark.colour}); '
            f'stroke-width: {mark.line:g}{dash}"/>'
        )
    if not mark.dot:
        return
    layers = _LAYERS if mark.faint else 1
    opacity = "; opacity: 0.35" if mark.faint else ""
    for layer in range(layers):
        some = points[layer::layers]
        if not some:
            continue
        if mark.shape == "circle" and not mark.hollow:
            path = "".join(f"M{_at(*point)}h0" for point in some)
            style = f"stroke-linecap: round; stroke-width: {2 * mark.dot:g}"
            style += f"; stroke: var(--{mark.colour})"
        else:
            path = "".join(_glyph(mark.shape, mark.dot, *point) for point in some)
            paint = ("stroke", "fill") if mark.hollow else ("fill", "stroke")
            style = f"{paint[0]}: var(--{mark.colour}); {paint[1]}: none"
        yield f'<path d="{path}" style="{style}{opacity}"/>'


def _glyph(shape: str, radius: float, x: float, y: float) -> str:
    if shape == "circle":
        return f"M{_at(x - radius, y)}" + "".join(
            f"a{radius:g} {radius:g} 0 1 0 {way * 2 * radius:g} 0" for way in (1, -1)
        )
    return "M" + "L".join(_at(x + radius * a, y + radius * b) for a, b in _UNITS[shape]) + "z"


def _legend(entries: Sequence[Mark | Level]) -> tuple[list[str], float]:
    """Entries in rows that are filled one after the other, and where the chart can begin."""
    content: list[str] = []
    x, y = 8.0, 10.0
    if not entries:
        return content, 8.0
    for entry in entries:
        width = 20 + _wide(entry.label)
        if x + width > WIDTH and x > 8:
            x, y = 8.0, y + 13
        if isinstance(entry, Level):
            content.append(_line(x, y - 3, x + 14, y - 3, entry.colour, 1.0, "1 2.5"))
        else:
            if entry.line:
                dash = "4 3" if entry.dashed else ""
                content.append(_line(x, y - 3, x + 14, y - 3, entry.colour, entry.line, dash))
            content += _mark(dataclasses.replace(entry, line=0), [(x + 7, y - 3)])
        content.append(_text(x + 18, y, entry.label))
        x += width + 12
    return content, y + 12


# --- matrices ------------------------------------------------------------------------------------


def _heat(heat: Heat) -> tuple[float, float, list[str]]:
    count = len(heat.panels[0][1])
    side = 165.0 if not heat.names else min(330.0, max(80.0, 11.0 * count))
    room = max(map(_wide, heat.names), default=0.0)
    left, top = 20 + room, 22.0
    bottom = top + side
    content = [_text(10, top + side / 2, heat.y, "middle", turned=True)]
    for number, name in enumerate(heat.names):
        content.append(_text(left - 4, top + side * (number + 0.5) / count + 3, name, "end"))
    x = left
    for title, shares in heat.panels:
        content.append(_text(x + side / 2, top - 7, title, "middle"))
        content.append(_picture(shares, x, top, side, side))
        content.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{side:.1f}" height="{side:.1f}" '
            'style="fill: none; stroke: var(--muted); stroke-width: 0.8"/>'
        )
        for number, name in enumerate(heat.names):
            place = x + side * (number + 0.5) / count + 3
            content.append(_text(place, bottom + 4, name, "end", turned=True))
        content.append(_text(x + side / 2, bottom + 14 + room, heat.x, "middle"))
        x += side + 14
    content.append(_picture(np.linspace(1, 0, 64)[:, None], x, top, 8, side))
    for share, text in ((0, "100"), (0.5, "50"), (1, "0")):
        content.append(_text(x + 12, top + share * side + 3, text))
    width = x + 12 + _wide("100") + 16
    content.append(_text(width - 4, top + side / 2, heat.scale, "middle", turned=True))
    return width, bottom + 20 + room, content


def _picture(
    shares: npt.NDArray[np.float64], x: float, y: float, width: float, height: float
) -> str:
    """Shares from 0 to 1 as a picture of one colour that is there or not."""
    red, green, blue = bytes.fromhex(COLOURS["one"][1:])
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[..., :3] = red, green, blue
    pixels[..., 3] = np.round(0.95 * 255 * np.clip(shares, 0, 1))
    content = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(content, "PNG")
    encoded = base64.b64encode(content.getvalue()).decode()
    return (
        f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        'preserveAspectRatio="none" style="image-rendering: pixelated" '
        f'href="data:image/png;base64,{encoded}"/>'
    )


# --- strokes -------------------------------------------------------------------------------------


def _at(x: float, y: float) -> str:
    return f"{x:.1f} {y:.1f}"


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dash: str = ""
) -> str:
    dashes = f"; stroke-dasharray: {dash}" if dash else ""
    return (
        f'<path d="M{_at(x1, y1)}L{_at(x2, y2)}" '
        f'style="stroke: var(--{colour}); stroke-width: {width:g}{dashes}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", turned: bool = False) -> str:
    turn = f' transform="rotate(-90 {_at(x, y)})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}"{turn} style="font-size: {_SMALL}px; '
        f'text-anchor: {anchor}; fill: var(--ink)">{escape(text)}</text>'
    )


def _wide(text: str) -> float:
    """About how wide a text is; fonts differ."""
    letters = (2.0 if unicodedata.east_asian_width(c) in "WF" else 1.0 for c in text)
    return 0.6 * _SMALL * sum(letters)
