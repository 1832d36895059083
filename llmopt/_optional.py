"""Libraries that are asked for only when something needs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from llmopt.errors import ConfigError


def require(module: str, extra: str, what: str) -> ModuleType:
    """The module, or an error that says how to install it.

    Args:
        module: what to import.
        extra: the extra of llmopt that brings it.
        what: what it is needed for.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what} needs '{module.partition('.')[0]}', which is not installed; "
            f"run: pip install 'llmopt[{extra}]'"
        ) from error
