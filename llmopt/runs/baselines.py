"""Ensembles that people expect beside a start: a gain over a weak start only is none.

They are measured on the test images after the search, as the start is, and no choice sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from llmopt.predictor import TextPredictor
from llmopt.search.text.handcrafted import published
from llmopt.vision.metered import MeteredBox

LABELS: Final = {"subset": "7 templates", "openai": "80 templates"}
"""Baselines by their names in files, and what people call them."""

_MEANT: Final = {"none": (), "subset": ("subset",), "all": ("subset", "openai")}
_MOST: Final = 1_000  # classes; of more, 87 templates take longer than many a search


def chosen(asked: str, paid: bool, classes: int) -> tuple[str, ...]:
    """Which are measured.

    Args:
        asked: ``none``, ``subset``, ``all``; ``auto`` is all where they cost nothing but a little
            time.
        paid: what the black box receives may cost more than time here.
        classes: K.
    """
    if asked == "auto":
        asked = "none" if paid or classes > _MOST else "all"
    return _MEANT[asked]


def size(names: Sequence[str]) -> int:
    """How many templates they hold together."""
    return sum(len(published(name)) for name in names)


def ensembles(
    names: Sequence[str], box: MeteredBox, classnames: Sequence[str]
) -> dict[str, TextPredictor]:
    """The baselines as predictors; templates that the box would cut short are left out."""
    longest = max(classnames, key=len)
    found = {}
    for name in names:
        templates = tuple(one for one in published(name) if box.fits(one.fill(longest)))
        if templates:
            even = (1 / len(templates),) * len(templates)
            found[name] = TextPredictor(templates, tuple(classnames), even)
    return found
