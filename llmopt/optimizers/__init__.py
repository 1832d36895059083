"""One algorithm a file; this page is their list.

Modules are imported when an optimizer is asked for, so that listing them needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmopt.errors import ConfigError, nearest

if TYPE_CHECKING:
    from llmopt.optimizers.base import Optimizer

_WHERE = {
    "chat": ("chat", "Chat"),
    "random": ("random", "Random"),
    "zeroshot": ("zeroshot", "ZeroShot"),
    "handcrafted": ("handcrafted", "Handcrafted"),
    "craft": ("craft", "Craft"),
    "carrot": ("craft", "Carrot"),
    "cbbt": ("cbbt", "Cbbt"),
    "zip": ("zip", "Zip"),
    "bbt": ("bbt", "Bbt"),
    "bptvlm": ("bptvlm", "BptVlm"),
    "coop": ("coop", "Coop"),
}


def optimizer_names() -> list[str]:
    """What ``--optimizer`` takes."""
    return list(_WHERE)


def optimizer_class(name: str) -> type[Optimizer[Any]]:
    """The optimizer of that name.

    Raises:
        ConfigError: there is none; the nearest name is suggested.
    """
    if name not in _WHERE:
        raise ConfigError(
            f"unknown optimizer '{name}'{nearest(name, _WHERE)} (there are: {', '.join(_WHERE)})"
        )
    module, attribute = _WHERE[name]
    found: type[Optimizer[Any]] = getattr(
        importlib.import_module(f"llmopt.optimizers.{module}"), attribute
    )
    return found
