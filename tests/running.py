"""Runs for tests, in this process and without the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmopt import api
from llmopt.runs import engine
from llmopt.runs.compose import Given, compose
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch
from llmopt.vision.base import BlackBox


def start(config: RunConfig, watch: Watch | None = None, box: BlackBox | None = None) -> Any:
    """The result of a new run; ``box`` is the config's own, open already."""
    return engine.start(compose(config, Given(box=box)), watch)


def resume(folder: Path, watch: Watch | None = None) -> Any:
    """The result of a run that goes on."""
    return api.resume(folder, callbacks=[watch] if watch else [], progress=False).result
