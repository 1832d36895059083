"""``result.json``: what a run found, in the schema of the command-line contract."""

from __future__ import annotations

import dataclasses
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from llmopt._version import __version__
from llmopt.runs.config import RunConfig
from llmopt.runs.measure import Evaluation
from llmopt.search.base import Optimizer, Outcome
from llmopt.spend.ledger import Ledger
from llmopt.task import Task
from llmopt.vision.base import BoxInfo

SCHEMA = 1


def build(
    *,
    folder: Path,
    config: RunConfig,
    task: Task,
    info: BoxInfo,
    optimizer: Optimizer[Any],
    outcome: Outcome,
    train: tuple[float | None, float | None],
    val: tuple[float | None, float | None],
    evaluation: Evaluation | None,
    test_images: int,
    ledger: Ledger,
    evaluation_ledger: Ledger,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The result of a run.

    Args:
        train, val: accuracies of the start and of what was found; None without such images.
        evaluation: on the test images, or None if they were not opened (an interrupted run).
        seconds: ``total``, ``llm``, ``black_box``.
    """
    interrupted = outcome.stop_reason == "interrupted"
    gain = evaluation.gain if evaluation else None
    alias = {} if optimizer.name == config.optimizer else {"same_as": optimizer.name}
    return {
        "schema": SCHEMA,
        "run": str(folder),
        "status": "interrupted" if interrupted else "complete",
        "stop_reason": outcome.stop_reason,
        "task": {
            "dataset": config.dataset,
            "classes": len(task.classnames),
            "shots": task.shots,
            "seed": task.seed,
            "train_images": len(task.train),
            "val_images": len(task.val),
            "test_images": test_images,
            "split_sha256": task.split_sha256,
            "split": task.provenance,
        },
        "model": {
            "name": info.name,
            "pretrained": info.pretrained,
            "access": str(info.access),
            "weights_sha256": info.weights_sha256,
        },
        "optimizer": {
            "name": config.optimizer,
            "settings": optimizer.as_given(),
            "llm": config.llm or None,
            "summary": {**outcome.summary, **alias},
        },
        "baseline": {
            "template": task.start.text,
            "train_accuracy": train[0],
            "val_accuracy": val[0],
            "test_accuracy": evaluation.baseline_accuracy if evaluation else None,
            "test_accuracy_ci95": list(evaluation.baseline_ci95) if evaluation else None,
        },
        "best": {
            "templates": [dataclasses.asdict(t) for t in outcome.templates if t.weight > 0],
            "soft_prompt": outcome.predictor.soft_prompt,
            "head": outcome.predictor.head,
            "fallback": outcome.fallback,
            "train_accuracy": train[1],
            "val_accuracy": val[1],
            "test_accuracy": evaluation.best_accuracy if evaluation else None,
            "test_accuracy_ci95": list(evaluation.best_ci95) if evaluation else None,
        },
        "gain": {
            "test_accuracy": gain.difference if gain else None,
            "ci95": list(gain.ci95) if gain else None,
            "p_value": gain.p_value if gain else None,
        },
        "at_chance": evaluation.at_chance if evaluation else None,
        "ledger": ledger.snapshot(),
        "evaluation": evaluation_ledger.snapshot(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"llmopt": __version__, "python": platform.python_version(), "platform": sys.platform}
    for package in ("torch", "open_clip_torch", "numpy", "pillow", "langchain-core", "openai"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
