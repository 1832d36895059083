"""A finished run, opened again: its predictor, its task, its place in a list."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmopt.errors import ConfigError, LlmoptError, RunFolderError, TemplateError
from llmopt.predictor import Predictor, predictor_from_state
from llmopt.runs import folder as run_folder
from llmopt.runs import stored
from llmopt.runs.config import RunConfig
from llmopt.spend.files import Damaged, read_arrays


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
    return look(folder)[0]


def look(folder: Path) -> tuple[RunSummary, RunConfig | None, float]:
    """A run folder read once: its summary, its config unless damaged, and seconds it took."""
    try:
        config = run_folder.read_run_config(folder)
    except LlmoptError:
        return RunSummary(folder, "damaged"), None, 0.0
    asked = RunSummary(
        folder, "unfinished", config.dataset, config.shots, config.seed, config.optimizer
    )
    if not (folder / run_folder.RESULT).is_file():
        return asked, config, 0.0
    try:
        result = run_folder.stored_result(folder)
    except LlmoptError:
        return dataclasses.replace(asked, status="damaged"), config, 0.0
    found = dataclasses.replace(
        asked,
        status=result["status"],
        start=result["baseline"]["test_accuracy"],
        best=result["best"]["test_accuracy"],
        ledger=result["ledger"],
    )
    return found, config, result["seconds"]["total"]


def read_found(folder: Path) -> dict[str, Any]:
    """``prompts.json``: ``templates`` with their scores, best first, and ``classnames``.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    path = folder / run_folder.PROMPTS
    try:
        return stored.read(path, stored.Prompts)
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path} is missing or damaged ({error}); {run_folder.written_again(folder)}"
        ) from error


def load_predictor(folder: Path, note: Callable[[str], None] = lambda text: None) -> Predictor:
    """The predictor of a run.

    Args:
        folder: of the run.
        note: told when it has no checksum.

    Raises:
        RunFolderError: there is none, or it is damaged.
    """
    path = folder / run_folder.PREDICTOR
    run_folder.read_result(folder)
    try:
        kept = read_arrays(path)
        for name, array in kept.arrays.items():
            if not np.isfinite(array).all():
                raise Damaged(f"{name} holds what is no number")
        predictor = predictor_from_state(kept.arrays, json.loads(kept.texts["predictor"]))
    except ConfigError as error:  # a kind that a package adds, which is not installed here
        raise RunFolderError(f"the predictor {path} cannot be opened: {error}") from error
    except _WRONG as error:
        raise RunFolderError(
            f"the predictor {path} is missing or damaged ({error}); "
            f"{run_folder.written_again(folder)}"
        ) from error
    if not kept.checked:
        note(f"{path} has no checksum: damage to it would not be seen")
    return predictor


_WRONG = (
    AttributeError, IndexError, KeyError, RecursionError, TemplateError, TypeError, ValueError,
)  # fmt: skip
"""What the parts of a predictor raise where one of them is not what it should be."""
