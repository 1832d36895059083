"""Libraries that are asked for only when a data set needs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from llmopt.errors import DatasetError


def require(module: str, extra: str, what: str) -> ModuleType:
    """The module, or an error that says how to install it.

    Args:
        module: what to import.
        extra: the extra of llmopt that brings it.
        what: what it is needed for.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DatasetError(
            f"{what} needs '{module.partition('.')[0]}', which is not installed; "
            f"run: pip install 'llmopt[{extra}]'"
        ) from error
