"""Charts of matplotlib as inline SVG that follows the page's colours and can be read aloud.

Colours become the page's own variables, so one chart serves a light and a dark page; ids get a
prefix, so that charts do not take each other's parts; fonts are the page's. What matplotlib adds
for SVG files of their own (metadata, a style sheet for everything) is left out.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: Final = {
    "ink": "#1b1f24",
    "muted": "#5c6670",
    "grid": "#d5dae0",
    "one": "#0b62a4",
    "two": "#c4500a",
    "three": "#2e7d4f",
    "four": "#8a4fbf",
}
"""Names in the page's style sheet, and the colours of pictures that stand alone."""

_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "llmopt",
    "text.parse_math": False,
    "font.size": 9,
    "axes.edgecolor": COLOURS["muted"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.labelcolor": COLOURS["ink"],
    "ytick.labelcolor": COLOURS["ink"],
}
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_VARIABLES = {value: f"var(--{name})" for name, value in COLOURS.items()}
_FONT = re.compile(r"font(?:-size|-family)?:[^;]*(?:;|$)")
_DIGITS = re.compile(r"(\.\d\d)\d+")
_DRAWN = frozenset({"d", "x", "y"})
_SIZE = re.compile(r"font(?:-size)?:[^;]*?([\d.]+)px")


@contextmanager
def drawing() -> Iterator[None]:
    """The look of all charts; glyphs the font lacks are the reader's font's business."""
    import matplotlib

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        yield


def inline(figure: Figure, prefix: str, title: str, description: str) -> Markup:
    """A figure as an ``<svg>`` element.

    Args:
        figure: what to show.
        prefix: of its ids; must differ from chart to chart of a page.
        title, description: what it is, and what it shows, for those who do not see it.
    """
    with drawing():
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(content.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag not in _WANTED or (child.tag == f"{_SVG}defs" and not len(child)):
                parent.remove(child)
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", content.getvalue().decode()))
    for element in root.iter():
        _restyle(element, prefix, used)
        element.tail = None
        if element.tag != "text" and not (element.text or "").strip():
            element.text = None
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    width = float(root.attrib["viewBox"].split()[2])
    root.attrib |= {
        "class": "chart",
        "style": f"max-width: {1.5 * width:.0f}px; min-width: {0.85 * width:.0f}px",
        "role": "img",
        "aria-labelledby": f"{prefix}-title {prefix}-text",
    }
    for tag, name, text in (("desc", "text", description), ("title", "title", title)):
        element = ElementTree.Element(tag, {"id": f"{prefix}-{name}"})
        element.text = text
        root.insert(0, element)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def png(figure: Figure) -> bytes:
    """A figure as a picture of its own, on white."""
    with drawing():
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=200, facecolor="white")
    return content.getvalue()


_WANTED = {
    f"{_SVG}{tag}"
    for tag in ("g", "path", "use", "defs", "clipPath", "rect", "image", "text", "tspan", "svg")
}


def _restyle(element: Any, prefix: str, used: set[str]) -> None:
    element.tag = element.tag.removeprefix(_SVG)
    if (name := element.attrib.pop("id", None)) in used:
        element.attrib["id"] = f"{prefix}-{name}"
    if link := element.attrib.pop(_LINK, None) or element.attrib.pop("href", None):
        element.attrib["href"] = f"#{prefix}-{link[1:]}" if link.startswith("#") else link
    for attribute, value in list(element.attrib.items()):
        value = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", value)
        for colour, variable in _VARIABLES.items():
            value = value.replace(colour, variable)
        element.attrib[attribute] = _DIGITS.sub(r"\1", value) if attribute in _DRAWN else value
    if element.tag == "text" and "style" in element.attrib:
        style = element.attrib["style"]
        size = _SIZE.search(style)
        kept = _FONT.sub("", style).strip()
        element.attrib["style"] = f"font-size: {size.group(1) if size else 10}px; {kept}"
