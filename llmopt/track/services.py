"""MLflow, Weights & Biases and TensorBoard, each imported when it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from llmopt._optional import require
from llmopt.registry import Registry
from llmopt.runs.config import RunConfig
from llmopt.track.base import Tracker, Tracking, Value

PROJECT: Final = "llmopt"


class MlflowTracker(Tracker):
    """Where ``MLFLOW_TRACKING_URI`` says, experiment ``llmopt`` unless ``MLFLOW_EXPERIMENT_NAME``
    says otherwise."""

    def __init__(self) -> None:
        self._mlflow: Any = require("mlflow", "mlflow", "--track mlflow")

    def start(self, name: str, settings: Mapping[str, Value]) -> None:
        """Open an MLflow run."""
        import os

        if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
            self._mlflow.set_experiment(PROJECT)
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_params(dict(settings))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """As metrics."""
        self._mlflow.log_metrics(dict(figures), step=step)

    def finish(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """Final metrics and artifacts."""
        self._mlflow.log_metrics(dict(figures))
        for path in files:
            self._mlflow.log_artifact(str(path))
        self._mlflow.end_run()


class WandbTracker(Tracker):
    """Project ``llmopt`` unless ``WANDB_PROJECT`` says otherwise."""

    def __init__(self) -> None:
        self._wandb: Any = require("wandb", "wandb", "--track wandb")
        self._run: Any = None

    def start(self, name: str, settings: Mapping[str, Value]) -> None:
        """Open a run."""
        import os

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = self._wandb.init(project=project, name=name, config=dict(settings))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """As history."""
        self._run.log(dict(figures), step=step)

    def finish(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """Summary and an artifact."""
        self._run.summary.update(dict(figures))
        artifact = self._wandb.Artifact(_plain(self._run.name or PROJECT), type="run")
        for path in files:
            artifact.add_file(str(path))
        self._run.log_artifact(artifact)
        self._run.finish()


class TensorBoardTracker(Tracker):
    """Event files in the folder ``tensorboard``, a folder below it for each run."""

    def __init__(self, root: Path = Path("tensorboard")) -> None:
        require("tensorboard", "tensorboard", "--track tensorboard")
        self._root = root
        self._writer: Any = None

    def start(self, name: str, settings: Mapping[str, Value]) -> None:
        """Open an event file."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self._root / name))
        text = "\n".join(f"    {name} = {value}" for name, value in settings.items())
        self._writer.add_text("settings", text)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """As scalars."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, figures: Mapping[str, float], files: list[Path]) -> None:
        """Final scalars; TensorBoard keeps no files, so texts are shown as texts."""
        for name, value in figures.items():
            self._writer.add_scalar(f"final/{name}", value, 0)
        for path in files:
            if path.suffix in (".json", ".toml"):
                lines = path.read_text(encoding="utf-8").splitlines()
                self._writer.add_text(path.name, "\n".join(f"    {line}" for line in lines))
        self._writer.close()


TRACKERS: Final[Registry[type[Tracker]]] = Registry(
    "tracker",
    "trackers",
    {
        "mlflow": "llmopt.track.services:MlflowTracker",
        "wandb": "llmopt.track.services:WandbTracker",
        "tensorboard": "llmopt.track.services:TensorBoardTracker",
    },
    base="llmopt.track.base:Tracker",
)
"""What ``--track`` takes."""


def track(name: str, config: RunConfig, warn: Callable[[str], None]) -> Tracking:
    """A watch that tells the tracker called ``name``.

    Args:
        name: of the tracker.
        config: whose settings it is told.
        warn: told if the tracker fails; the run goes on without it.

    Raises:
        ConfigError: there is no such tracker, or it is not installed.
    """
    return Tracking(TRACKERS.get(name)(), warn, name, settings(config))


def settings(config: RunConfig) -> dict[str, Value]:
    """A config as flat names and values; nothing in it is a secret."""
    flat: dict[str, Value] = {}
    for name, value in asdict(config).items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": v for key, v in value.items()}
        elif value not in (None, ""):
            flat[name] = value
    return flat


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)
