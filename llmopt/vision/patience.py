"""How often a black box is asked again after a fault that may pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from llmopt.errors import RetryableError

ATTEMPTS: Final = 5
_LONGEST = 30.0

T = TypeVar("T")


def patiently(ask: Callable[[], T], pause: float) -> T:
    """What ``ask`` gives, after :data:`ATTEMPTS` tries at most.

    Args:
        ask: raises :class:`~llmopt.errors.RetryableError` where another try may help.
        pause: seconds before the second try; doubles from try to try, and is jittered.
    """
    import tenacity

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(RetryableError),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=pause, max=_LONGEST),
        reraise=True,
    )
    return retrying(ask)
