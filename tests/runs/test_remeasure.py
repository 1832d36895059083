"""Which models a run's classifier can be scored behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paper_runs import paper_run, reconfigure

from llmopt.data.shapes import SHAPES
from llmopt.errors import ConfigError
from llmopt.runs.compose import ModelChoice
from llmopt.runs.remeasure import remeasure
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.spend.events import Watch


class Opened(Exception):
    """Nothing is scored here."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Models that were to be loaded."""
    found: list[tuple[str, str]] = []

    def opening(self: ModelChoice, watch: Watch) -> Any:
        found.append((self.model, self.pretrained))
        raise Opened

    monkeypatch.setattr(ModelChoice, "open", opening)
    return found


def soft_run(root: Path, model: str = "") -> Path:
    predictor = SoftPredictor(np.zeros((2, 8), dtype=np.float32), SHAPES)
    run = paper_run(root, predictor=predictor, classnames=SHAPES)
    if model:
        path = run / "config.toml"
        tagged = f'model = "{model}"\npretrained = "openai"'
        reconfigure(run, path.read_text().replace('model = "shapes-tiny"', tagged))
    return run


def test_a_soft_prompt_is_scored_behind_its_own_model_named(
    tmp_path: Path, opened: list[tuple[str, str]]
) -> None:
    run, tagged = soft_run(tmp_path), soft_run(tmp_path, "RN50")
    own: list[tuple[Path, dict[str, str]]] = [
        (run, {"model": "shapes-tiny"}),
        (run, {"model": "shapes-tiny", "pretrained": ""}),
        (tagged, {"model": "RN50", "pretrained": "openai"}),
        (tagged, {"model": "RN50"}),
        (tagged, {"pretrained": "openai"}),
    ]
    for folder, changes in own:
        with pytest.raises(Opened):
            remeasure(folder, changes, Watch())
    assert opened == 2 * [("shapes-tiny", "")] + 3 * [("RN50", "openai")]


def test_a_soft_prompt_is_scored_behind_no_other(
    tmp_path: Path, opened: list[tuple[str, str]]
) -> None:
    tagged = soft_run(tmp_path, "RN50")
    for changes in ({"model": "shapes-tiny"}, {"model": "RN50", "pretrained": "yfcc15m"},
                    {"pretrained": "yfcc15m"}):  # fmt: skip
        with pytest.raises(ConfigError, match="belongs to its model"):
            remeasure(tagged, changes, Watch())
    assert opened == []


def test_a_text_prompt_goes_anywhere(tmp_path: Path, opened: list[tuple[str, str]]) -> None:
    run = paper_run(tmp_path, classnames=SHAPES)
    with pytest.raises(Opened):
        remeasure(run, {"model": "RN50", "pretrained": "openai"}, Watch())
    assert opened == [("RN50", "openai")]
