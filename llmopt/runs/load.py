"""A finished run, opened again: its predictor, its task, its place in a list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from llmopt.errors import ConfigError, LlmoptError, RunFolderError
from llmopt.predictor import Predictor, predictor_from_state
from llmopt.runs import folder as run_folder


@dataclass(frozen=True)
class RunSummary:
    """One line of ``llmopt runs``.

    Attributes:
        folder: of the run.
        status: ``complete``, ``interrupted``, ``unfinished`` or ``damaged``.
        dataset, shots, seed, optimizer: what was asked; None where the config is damaged.
        start, best: test accuracies, fractions; None where not measured.
        ledger: what was spent; empty where not known.
    """

    folder: Path
    status: str
    dataset: str | None = None
    shots: int | None = None
    seed: int | None = None
    optimizer: str | None = None
    start: float | None = None
    best: float | None = None
    ledger: Mapping[str, Any] | None = None


def summarize(folder: Path) -> RunSummary:
    """What a run folder holds; never raises for a damaged one."""
    try:
        config = run_folder.read_run_config(folder)
    except LlmoptError:
        return RunSummary(folder, "damaged")
    asked = {
        "dataset": config.dataset,
        "shots": config.shots,
        "seed": config.seed,
        "optimizer": config.optimizer,
    }
    if not (folder / run_folder.RESULT).is_file():
        return RunSummary(folder, "unfinished", **asked)  # type: ignore[arg-type]
    try:
        result = run_folder.read_result(folder)
        return RunSummary(
            folder,
            result["status"],
            **asked,  # type: ignore[arg-type]
            start=result["baseline"]["test_accuracy"],
            best=result["best"]["test_accuracy"],
            ledger=result["ledger"],
        )
    except (LlmoptError, KeyError, TypeError):
        return RunSummary(folder, "damaged", **asked)  # type: ignore[arg-type]


def read_found(folder: Path) -> dict[str, Any]:
    """``prompts.json``: ``templates`` with their scores, best first, and ``classnames``.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    path = folder / run_folder.PROMPTS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        found["templates"], found["classnames"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is missing or damaged ({error})") from error
    return dict(found)


def load_predictor(folder: Path) -> Predictor:
    """The predictor of a run.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    path = folder / run_folder.PREDICTOR
    run_folder.read_result(folder)
    try:
        with safe_open(path, framework="numpy") as file:
            config = json.loads(file.metadata()["predictor"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return predictor_from_state(tensors, config)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"the predictor {path} is missing or damaged ({error})") from error
    except ConfigError as error:  # a kind that a package adds, which is not installed here
        raise RunFolderError(f"the predictor {path} cannot be opened: {error}") from error
