"""A finished run on test images again: its own, another data set's, or behind another model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from llmopt.data.registry import Dataset, open_dataset
from llmopt.data.tasks import open_test
from llmopt.data.views import class_map
from llmopt.errors import ConfigError
from llmopt.predictor import single
from llmopt.runs import folder as run_folder
from llmopt.runs import stored
from llmopt.runs.baselines import chosen, ensembles
from llmopt.runs.bounds import outside
from llmopt.runs.compose import OBJECT, Given, choose_dataset, choose_model
from llmopt.runs.config import RunConfig
from llmopt.runs.load import load_predictor, read_found
from llmopt.runs.measure import measure
from llmopt.runs.trust import refuse_untrusted
from llmopt.spend.events import Watch
from llmopt.spend.journal import Journal, read_journal
from llmopt.spend.ledger import Ledger
from llmopt.task import IntArray
from llmopt.template import Template
from llmopt.vision.metered import MeteredBox

_STREAM: Final = "evaluate"
_MEASURED: Final = "measured"
_DECIDING: Final = (
    "dataset", "classnames", "model", "pretrained", "blackbox", "precision", "decoder",
    "skip_unreadable",
)  # fmt: skip


def remeasure(
    folder: Path,
    changes: Mapping[str, Any],
    watch: Watch,
    given: Given | None = None,
    *,
    trust_config: bool = False,
) -> dict[str, Any]:
    """Score a run's start and best on test images; the opening is journaled.

    Args:
        folder: of a finished run.
        changes: other values of ``dataset``, ``model`` and so on; empty for the run's own.
        watch: hears what takes a while.
        given: a task with test images, or a black box, in place of a named one.
        trust_config: send this machine's token where the run folder says.

    Returns:
        Accuracies (fractions), their intervals and the paired gain, JSON-able; they are journaled
        too, so that :func:`measured_before` finds them.

    Raises:
        ConfigError: what was found belongs to another model.
        DatasetError: it has learned other classes, and cannot take new names.
    """
    given = given or Given()
    result = run_folder.read_result(folder)
    run_folder.warn_if_interrupted(folder, result, watch.warn)
    own = run_folder.read_run_config(folder).resolved()
    config = _changed(own, changes)
    if not trust_config and given.box is None:
        refuse_untrusted(config, folder / run_folder.CONFIG, chat=False)
    predictor = load_predictor(folder, watch.warn)
    dataset = choose_dataset(config, given.task)
    moved = bool(given.task) or config.dataset != own.dataset or "classnames" in changes
    behind_another = (config.model, config.pretrained) != (own.model, own.pretrained)
    if behind_another and not predictor.portable:
        raise ConfigError(
            f"run {folder} found a soft prompt or a head, which belongs to its model; "
            "only text prompts can be carried to another --model"
        )
    if moved:
        learned = partial(_among_learned, dataset, config, own, folder)
        predictor = predictor.for_classes(dataset.classnames, learned)
    test = open_test(dataset, skip_unreadable=config.skip_unreadable)
    box = choose_model(config, given.box).open(watch)
    ledger = Ledger()
    opened = {"dataset": config.dataset, "model": box.info.name}
    writable = os.access(folder, os.W_OK)
    if writable:
        _note(folder, "test_opened", images=len(test), **opened)
    else:  # somebody else's, or an archive
        watch.warn(f"{folder} cannot be written, so nothing there will tell of this look at test")
    watch.stage("measuring on the test images")
    baseline = single(Template(config.template), dataset.classnames)
    metered, names = MeteredBox(box, ledger, _cache(watch)), dataset.classnames
    asked = chosen(config.baselines, outside(box), len(names))
    others = ensembles(asked, metered, names)
    found = measure(metered, test, predictor, baseline, len(names), others=others)
    measured = {
        "schema": 2,
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
        **found.told(names),
        "evaluation": ledger.snapshot(),
    }
    if writable:
        _note(folder, _MEASURED, asked=_asked(config), found=measured)
    return measured


def measured_before(folder: Path, changes: Mapping[str, Any]) -> dict[str, Any] | None:
    """What :func:`remeasure` returned when it was last asked the same of a run, or None.

    Raises:
        RunFolderError: the run or its journal is damaged.
    """
    asked = _asked(_changed(run_folder.read_run_config(folder).resolved(), changes))
    found: dict[str, Any] | None = None
    for record in read_journal(folder / run_folder.JOURNAL):
        data = record["data"]
        if record["kind"] == _MEASURED and data.get("asked") == asked:
            found = data["found"] if stored.is_a(data.get("found"), stored.Remeasured) else found
    return found


def _note(folder: Path, kind: str, **data: Any) -> None:
    """Journal something about the test images, whatever was before: no step to be met again."""
    path = folder / run_folder.JOURNAL
    with run_folder.locked(folder), Journal(path) as journal:
        before = sum(record["stream"] == _STREAM for record in read_journal(path))
        journal.skip({_STREAM: before})
        journal.event(kind, stream=_STREAM, **data)


def _asked(config: RunConfig) -> dict[str, Any]:
    """What decides what is measured, of a run that stands."""
    return {name: getattr(config, name) for name in _DECIDING}


def _changed(own: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    if changes.get("model", own.model) != own.model:  # whose weights have other tags
        changes = {"pretrained": "", **changes}
    return RunConfig.make({**_plain(own), **changes}, "the options").resolved()


def _among_learned(dataset: Dataset, config: RunConfig, own: RunConfig, folder: Path) -> IntArray:
    """(K',) places of a data set's classes among those the run has learned, joined by key."""
    if own.dataset.startswith(OBJECT):
        keys = tuple(read_found(folder)["classnames"])
    else:
        keys = open_dataset(own.dataset, Path(config.data_root)).keys
    return class_map(keys, dataset.keys, dataset.name)


def _cache(watch: Watch) -> Any:
    from llmopt.spend.files import default_cache_dir
    from llmopt.vision.feature_cache import FeatureCache

    return FeatureCache(default_cache_dir(), watch.images, watch.warn)


def _plain(config: RunConfig) -> dict[str, Any]:
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
