"""llmopt: find better prompts for a vision-language model you cannot open.

Public names are loaded on first use, so that ``import llmopt`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmopt._version import __version__

if TYPE_CHECKING:
    from llmopt.classifier import PromptClassifier, load
    from llmopt.task import FewShot, Task, TestSet
    from llmopt.template import Template

_LAZY = {
    "FewShot": "llmopt.task",
    "PromptClassifier": "llmopt.classifier",
    "Task": "llmopt.task",
    "Template": "llmopt.template",
    "TestSet": "llmopt.task",
    "load": "llmopt.classifier",
}

__all__ = [
    "FewShot",
    "PromptClassifier",
    "Task",
    "Template",
    "TestSet",
    "__version__",
    "load",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'llmopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
