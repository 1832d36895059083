"""Libraries that are asked for only when something needs them."""

from __future__ import annotations

import importlib
from types import ModuleType

from llmopt.errors import ConfigError


def require(module: str, extra: str, what: str) -> ModuleType:
    """The module, or an error that says how to install it or why it does not work.

    Args:
        module: what to import.
        extra: the extra of llmopt that brings it.
        what: what it is needed for.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        why = "is not installed" if missing else f"cannot be imported ({error})"
        raise ConfigError(
            f"{what} needs '{package}', which {why}; run: pip install 'llmopt[{extra}]'"
        ) from error
