"""A finished run on test images again: its own, another data set's, or behind another model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmopt.blackbox.metered import MeteredBox
from llmopt.data.registry import open_dataset
from llmopt.data.tasks import open_test
from llmopt.errors import ConfigError
from llmopt.predictor import TextPredictor, single
from llmopt.run import folder as run_folder
from llmopt.run.config import RunConfig
from llmopt.run.engine import open_box
from llmopt.run.evaluate import evaluate
from llmopt.run.journal import Journal
from llmopt.run.ledger import Ledger
from llmopt.run.open import load_predictor
from llmopt.run.watch import Watch
from llmopt.templates import Template


def evaluate_run(folder: Path, changes: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """Score a run's start and best on test images; the opening is journaled.

    Args:
        folder: of a finished run.
        changes: other values of ``dataset``, ``model`` and so on; empty for the run's own.
        watch: told what takes a while.

    Returns:
        accuracies, intervals and paired gain, JSON-able.
    """
    result = run_folder.read_result(folder)
    config = run_folder.read_run_config(folder)
    if "model" in changes and "pretrained" not in changes:
        changes = {**changes, "pretrained": ""}
    config = RunConfig.from_mapping({**_plain(config), **changes}, "the options").resolved()
    predictor = load_predictor(folder)
    names = {"classnames": config.classnames} if config.classnames else {}
    dataset = open_dataset(config.dataset, Path(config.data_root), **names)
    if isinstance(predictor, TextPredictor):
        predictor = dataclasses.replace(predictor, classnames=dataset.classnames)
    elif dataset.name != result["task"]["dataset"] or "model" in changes:
        raise ConfigError(
            f"run {folder} found a soft prompt, which belongs to its model and classes; "
            "only text prompts can be carried to another --dataset or --model"
        )
    test = open_test(dataset)
    box = open_box(config, watch)
    ledger = Ledger()
    with run_folder.locked(folder):
        journal = Journal(folder / run_folder.JOURNAL)
        try:
            journal.event(
                "test_opened",
                stream="evaluate",
                images=len(test),
                dataset=config.dataset,
                model=box.info.name,
            )
        finally:
            journal.close()
    watch.stage("measuring on the test images")
    baseline = single(Template(config.template), dataset.classnames)
    found = evaluate(
        MeteredBox(box, ledger, _cache(watch)), test, predictor, baseline, len(dataset.classnames)
    )
    return {
        "schema": 1,
        "run": str(folder),
        "dataset": config.dataset,
        "model": {"name": box.info.name, "pretrained": box.info.pretrained},
        "test_images": len(test),
        "best": predictor.describe(),
        "baseline_accuracy": found.baseline_accuracy,
        "baseline_accuracy_ci95": list(found.baseline_ci95),
        "best_accuracy": found.best_accuracy,
        "best_accuracy_ci95": list(found.best_ci95),
        "gain": {
            "test_accuracy": found.gain.difference,
            "ci95": list(found.gain.ci95),
            "p_value": found.gain.p_value,
        },
        "winners_curse": {
            "train_accuracy": result["best"]["train_accuracy"],
            "val_accuracy": result["best"]["val_accuracy"],
            "test_accuracy": found.best_accuracy,
        },
        "at_chance": found.at_chance,
        "evaluation": ledger.snapshot(),
    }


def _cache(watch: Watch) -> Any:
    from llmopt.blackbox.feature_cache import FeatureCache, default_cache_dir

    return FeatureCache(default_cache_dir(), watch.images)


def _plain(config: RunConfig) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
