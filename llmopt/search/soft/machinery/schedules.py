"""How long a search is, and how its step size falls."""

from __future__ import annotations

import math
from collections.abc import Iterable

from llmopt.errors import ConfigError, nearest


def per_epoch(count: int, size: int) -> int:
    """Batches of one pass over ``count`` images.

    A smaller last batch is dropped, as CoOp's framework does it, unless it is the only one.
    """
    return max(1, count // size)


def cosine_rate(epoch: int, epochs: int, rate: float) -> float:
    """A learning rate that falls to zero on a cosine."""
    return rate * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


def warmed_up_rate(epoch: int, epochs: int, rate: float) -> float:
    """CoOp's learning rate: a first epoch at 1e-5, then the cosine, counted from its beginning."""
    return 1e-5 if epoch == 0 else cosine_rate(epoch - 1, epochs, rate)


def by_shots(shots: int, one: int, few: int, many: int) -> int:
    """A length by shots, as CoOp and CraFT have it: 1, 2 to 4, more."""
    return one if shots <= 1 else few if shots <= 4 else many


def steps_allowed(budget: int | None, shots: int, cost: int) -> int:
    """Steps of ``cost`` contexts that a search may take: CraFT's budget, unless one is set.

    The search scores where it stands before each of them and after the last as well.
    """
    return ((budget or by_shots(shots, 2000, 4000, 8000)) - 1) // (cost + 1)


def check_budget(budget: int | None, least: int) -> None:
    """Refuse a budget of contexts that does not pay for a step."""
    if budget is not None and budget < least:
        raise ConfigError(f"setting budget={budget} must be {least} or more")


def check_choice(setting: str, value: str, known: Iterable[str]) -> None:
    """Refuse a word that is not among those a table or a registry holds."""
    if value not in (known := list(known)):
        raise ConfigError(
            f"setting {setting}={value!r} must be one of: {', '.join(known)}{nearest(value, known)}"
        )
