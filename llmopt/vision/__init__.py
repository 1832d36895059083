"""The wall around the model: protocol, metering, and the boxes behind it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmopt.vision.base import Access, BlackBox, BoxInfo

if TYPE_CHECKING:
    from llmopt.vision.function import FunctionBox
    from llmopt.vision.metered import MeteredBox
    from llmopt.vision.openclip import OpenClipBlackBox
    from llmopt.vision.text_engine.engine import TextEngine

_LAZY = {
    "FunctionBox": "llmopt.vision.function",
    "MeteredBox": "llmopt.vision.metered",
    "OpenClipBlackBox": "llmopt.vision.openclip",
    "TextEngine": "llmopt.vision.text_engine.engine",
}

__all__ = [
    "Access",
    "BlackBox",
    "BoxInfo",
    "FunctionBox",
    "MeteredBox",
    "OpenClipBlackBox",
    "TextEngine",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'llmopt.vision' has no attribute {name!r}")
