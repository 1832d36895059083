"""How long a test waits before it says that something hangs. Speed is measured in benchmarks."""

from __future__ import annotations

from typing import Final

HUNG: Final = 60.0
"""Seconds, of a clock or of a processor, that no sound code comes near on a busy machine.

What they guard against lasts longer by orders of magnitude: a pause of hours, a loop without
end, a pattern whose time grows with the square of a megabyte.
"""
