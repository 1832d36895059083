"""Engines by name."""

from __future__ import annotations

from typing import Final, Literal

from llmopt.errors import ConfigError, nearest
from llmopt.sweep.engine import Engine
from llmopt.sweep.local import LocalEngine

Jobs = int | Literal["auto"]
NAMES: Final = ("local",)


def choose_engine(engine: str | Engine, jobs: Jobs) -> Engine:
    """An engine by its name, or as it is given.

    Args:
        engine: one of :data:`NAMES`, or an engine.
        jobs: workers at a time, of one that is named.

    Raises:
        ConfigError: there is none of that name, or not so many jobs.
    """
    if not isinstance(engine, str):
        return engine
    if engine not in NAMES:
        raise ConfigError(
            f"unknown engine '{engine}'{nearest(engine, NAMES)} (there are: {', '.join(NAMES)})"
        )
    return LocalEngine(jobs)


def parse_jobs(text: str) -> Jobs:
    """A number of workers, or ``auto``.

    Raises:
        ConfigError: it is neither.
    """
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdecimal() and 0 < int(text) <= 10_000:
        return int(text)
    raise ConfigError(f"--jobs {text!r} must be a number of runs at a time, or auto")
