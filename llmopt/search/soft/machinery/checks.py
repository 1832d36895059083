"""Ranges of settings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmopt.errors import ConfigError, nearest


def check_choice(setting: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is not among ``allowed``."""
    if value not in allowed:
        raise ConfigError(
            f"setting {setting}={value!r} must be one of: {', '.join(allowed)}"
            + nearest(value, allowed)
        )


def check_range(setting: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside of [low, high]."""
    if not low <= value <= high:
        span = f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ConfigError(f"setting {setting}={value} must be {span}")
