"""Runs that are written in place of being made, so that cells take no time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paper_runs import paper_run, reconfigure

from llmopt.errors import ServiceError
from llmopt.runs import engine
from llmopt.runs.compose import ModelChoice, Setup
from llmopt.runs.config import RunConfig
from llmopt.spend.events import Watch

SPENT = 100


class Runs:
    """In place of the engine.

    Attributes:
        fails: seeds whose runs fail.
        started: what was asked for.
        opened: models, each time one was.
    """

    def __init__(self) -> None:
        self.fails: set[int] = set()
        self.started: list[RunConfig] = []
        self.opened: list[str] = []

    def start(self, setup: Setup, watch: Watch) -> dict[str, Any]:
        config = setup.config
        if config.seed in self.fails:
            raise ServiceError("the service is gone")
        self.started.append(config)
        folder = paper_run(
            Path(config.runs),
            optimizer=config.optimizer,
            seed=config.seed,
            spent={"text_encodings": SPENT},
        )
        reconfigure(folder, config.to_toml())
        return {"status": "complete", "run": str(folder)}

    def open(self, choice: ModelChoice, watch: Watch) -> object:
        self.opened.append(choice.model)
        return object()


@pytest.fixture(name="runs")
def written_runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(engine, "start", runs.start)
    monkeypatch.setattr(ModelChoice, "open", lambda self, watch: runs.open(self, watch))
    return runs
