"""The wall around the model: protocol, metering, and the boxes behind it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmopt.blackbox.base import Access, BlackBox, BoxInfo

if TYPE_CHECKING:
    from llmopt.blackbox.metered import MeteredBox
    from llmopt.blackbox.openclip import OpenClipBlackBox
    from llmopt.blackbox.text_engine import TextEngine

_LAZY = {
    "MeteredBox": "llmopt.blackbox.metered",
    "OpenClipBlackBox": "llmopt.blackbox.openclip",
    "TextEngine": "llmopt.blackbox.text_engine",
}

__all__ = ["Access", "BlackBox", "BoxInfo", "MeteredBox", "OpenClipBlackBox", "TextEngine"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'llmopt.blackbox' has no attribute {name!r}")
