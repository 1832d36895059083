"""llmopt: find better prompts for a vision-language model you cannot open.

Public names are loaded on first use, so that ``import llmopt`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmopt._version import __version__

if TYPE_CHECKING:
    from llmopt.api import compare, evaluate, plan, reproduce, resume, run
    from llmopt.classifier import PromptClassifier, load
    from llmopt.errors import LlmoptError
    from llmopt.handle import Run
    from llmopt.heads.base import Head
    from llmopt.runs.config import RunConfig
    from llmopt.search.base import Optimizer
    from llmopt.spend.ledger import Caps
    from llmopt.task import Task
    from llmopt.template import Template
    from llmopt.vision.base import Access, BlackBox
    from llmopt.vision.function import FunctionBox

_WHERE = {
    "Access": "vision.base",
    "BlackBox": "vision.base",
    "Caps": "spend.ledger",
    "FunctionBox": "vision.function",
    "Head": "heads.base",
    "LlmoptError": "errors",
    "Optimizer": "search.base",
    "PromptClassifier": "classifier",
    "Run": "handle",
    "RunConfig": "runs.config",
    "Task": "task",
    "Template": "template",
    "compare": "api",
    "evaluate": "api",
    "load": "classifier",
    "plan": "api",
    "reproduce": "api",
    "resume": "api",
    "run": "api",
}

__all__ = [
    "Access",
    "BlackBox",
    "Caps",
    "FunctionBox",
    "Head",
    "LlmoptError",
    "Optimizer",
    "PromptClassifier",
    "Run",
    "RunConfig",
    "Task",
    "Template",
    "__version__",
    "compare",
    "evaluate",
    "load",
    "plan",
    "reproduce",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"llmopt.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'llmopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
