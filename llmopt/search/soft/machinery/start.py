"""Where a soft prompt starts: from a template, or from given words.

A soft prompt is m token vectors that stand in a prompt where a template has words:
``[start | context | "class name." | end]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from llmopt.errors import ConfigError
from llmopt.template import SLOT, Template, display_name

if TYPE_CHECKING:
    from llmopt.vision.base import BlackBox
    from llmopt.vision.metered import MeteredBox


@dataclass(frozen=True, eq=False)
class SoftStart:
    """A template as a soft prompt.

    Attributes:
        context: (m, e) float32 vectors of the words before the slot, m >= 1.
        names: what follows the context, one a class, without the full stop that ends it.
    """

    context: torch.Tensor
    names: tuple[str, ...]


def soft_start(box: MeteredBox, template: Template, classnames: Sequence[str]) -> SoftStart:
    """The soft prompt whose text features are the template's own.

    Words after the slot move into the names: ``a {} on the left.`` is the context ``a`` followed by
    ``circle on the left.`` A template with nothing before its slot has no vector to change, so it
    gets those of ``a photo of a``; one that does not end in a full stop gets one. Both differ from
    the template then.
    """
    before, after = template.text.split(SLOT)
    names = plain_names([f"{name}{after}".removesuffix(".") for name in classnames])
    context = box.embed_text(before.strip() or "a photo of a")
    return SoftStart(torch.from_numpy(np.array(context, dtype=np.float32)), names)


def plain_names(classnames: Sequence[str]) -> tuple[str, ...]:
    """The class names as they stand in prompts."""
    return tuple(display_name(name) for name in classnames)


def words_start(box: MeteredBox, words: str, classnames: Sequence[str]) -> SoftStart:
    """The soft prompt of ``words`` followed by the plain class names."""
    return soft_start(box, Template(f"{words} {SLOT}."), classnames)


def check_room(box: BlackBox, tokens: int, classnames: Sequence[str]) -> None:
    """Refuse more vectors than the model has room for before the longest class name.

    Raises:
        ConfigError: it names the setting, the class and the room there is.
    """
    for name in plain_names(classnames):
        if (over := box.token_excess("x " * tokens + f"{name}.")) > 0:
            raise ConfigError(
                f"setting tokens={tokens} leaves no room for class name '{name}' in prompts of "
                f"{box.info.name}; {tokens - over} is the most"
            )
