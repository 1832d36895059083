"""Property tests of what comes from outside: many drawn examples; none may hang or grow."""

import resource
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

FAST, SLOW = 50, 1000
SECONDS = 5
GIB = 2**20  # in the kibibytes that the kernel counts in


def fuzz(**strategies: Any) -> Callable[[Callable[..., None]], Callable[[int], None]]:
    """A test of the same 50 examples each time, and of any 1,000 in the slow set.

    The function gets one keyword per strategy and no fixtures (make folders with tempfile). An
    example that takes above 5 s fails, and so does a process that grows by 1 GiB.
    """

    def wrap(check: Callable[..., None]) -> Callable[[int], None]:
        @pytest.mark.parametrize("examples", [FAST, pytest.param(SLOW, marks=pytest.mark.slow)])
        def test(examples: int) -> None:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            limits = settings(
                max_examples=examples,
                derandomize=examples == FAST,
                deadline=timedelta(seconds=SECONDS),
                suppress_health_check=list(HealthCheck),
            )
            limits(given(**strategies)(check))()
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GIB

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return wrap
