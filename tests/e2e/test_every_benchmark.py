"""Each of the eighteen benchmarks, in miniature, through check and whole runs on a random model.

The model is drawn at random, so nothing is learned; what is tested is that every layout, name list
and split goes all the way from files to a result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from miniatures import KEYS, TRAINABLE, build
from running import start
from small_clip import write_model

from llmopt.data.check import check_dataset
from llmopt.runs.config import RunConfig
from llmopt.runs.remeasure import remeasure
from llmopt.spend.events import Watch

SEARCHES: dict[str, dict[str, Any]] = {
    "chat": {"probes": 0, "restarts": 1, "iterations": 1, "pool": 4, "proposals": 2},
    "craft": {"budget": 32, "dim": 8, "population": 8, "head": "none"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny open_clip model with random weights, as a ``local-dir``."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All miniatures below one folder."""
    root = tmp_path_factory.mktemp("data")
    for key in KEYS:
        build(key, root)
    return root


def config(model: str, data: Path, runs: Path, key: str, optimizer: str) -> RunConfig:
    return RunConfig(
        dataset=key,
        data_root=str(data),
        model=model,
        optimizer=optimizer,
        settings=SEARCHES[optimizer],
        llm="builtin" if optimizer == "chat" else "",
        runs=str(runs),
    )


@pytest.mark.parametrize("key", KEYS)
def test_every_file_is_found_and_sound(data: Path, key: str) -> None:
    report = check_dataset(key, data)
    assert report.ok, report.problems
    assert report.images > 0


@pytest.mark.parametrize("optimizer", SEARCHES)
@pytest.mark.parametrize("key", TRAINABLE)
def test_a_whole_run(model: str, data: Path, tmp_path: Path, key: str, optimizer: str) -> None:
    result = start(config(model, data, tmp_path, key, optimizer))
    task = result["task"]
    assert result["status"] == "complete"
    assert task["dataset"] == key
    assert 0 < task["train_images"] <= task["classes"]
    assert 0 <= result["best"]["test_accuracy"] <= 1
    spent = result["ledger"]
    assert spent["labelled_images"] == task["train_images"] + task["val_images"]
    assert spent["soft_prompt_encodings" if optimizer == "craft" else "llm_calls"] > 0


@pytest.mark.parametrize("optimizer", SEARCHES)
def test_a_classifier_of_imagenet_is_carried_over(
    model: str, data: Path, tmp_path: Path, optimizer: str
) -> None:
    result = start(config(model, data, tmp_path, "imagenet", optimizer))
    for key in sorted(set(KEYS) - set(TRAINABLE)):
        found = remeasure(Path(result["run"]), {"dataset": key}, Watch())
        assert found["dataset"] == key
        assert found["test_images"] > 0
        assert 0 <= found["best_accuracy"] <= 1
