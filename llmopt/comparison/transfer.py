"""Do prompts found behind one model help behind another? Rows found on, columns scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmopt.comparison.records import arm_name
from llmopt.errors import ConfigError
from llmopt.runs import folder as run_folder
from llmopt.runs.remeasure import remeasure
from llmopt.spend.events import Watch


@dataclass(frozen=True)
class Transfer:
    """Runs behind several models.

    Attributes:
        found_on: what each row is: the run and the model it searched behind.
        scored_on: what each column is.
        cells: evaluations, by row and column.
    """

    found_on: tuple[str, ...]
    scored_on: tuple[str, ...]
    cells: tuple[tuple[dict[str, Any], ...], ...]

    def to_json(self) -> dict[str, Any]:
        """What ``llmopt evaluate --across --json`` prints."""
        return {
            "schema": 1,
            "found_on": list(self.found_on),
            "scored_on": list(self.scored_on),
            "cells": [list(row) for row in self.cells],
        }


def parse_model(text: str) -> dict[str, str]:
    """``NAME`` or ``NAME@TAG`` as options of a run.

    Raises:
        ConfigError: the name is empty.
    """
    name, _, tag = text.partition("@")
    if not name:
        raise ConfigError(f"--across {text!r} must be a model, as NAME or NAME@TAG")
    return {"model": name, "pretrained": tag}


def transfer(
    folders: Sequence[Path],
    models: Sequence[str],
    changes: dict[str, Any],
    watch: Watch,
    *,
    trust_config: bool = False,
) -> Transfer:
    """Score every run behind every model.

    Args:
        folders: of finished runs that found text prompts.
        models: each as for :func:`parse_model`.
        changes: other options that all evaluations share, such as ``dataset``.
        watch: told how far it is.
        trust_config: as for :func:`~llmopt.runs.remeasure.remeasure`.

    Raises:
        ConfigError: a run found a soft prompt, which belongs to its model.
    """
    wanted = [parse_model(model) for model in models]
    rows, found_on = [], []
    for folder in folders:
        result = run_folder.read_result(folder)
        config = run_folder.read_run_config(folder)
        home = f"{result['model']['name']} {result['model']['pretrained'] or ''}".strip()
        found_on.append(f"{arm_name(config)}, seed {config.seed}, behind {home}")
        row = []
        for model in wanted:
            watch.stage(f"{folder} behind {model['model']} {model['pretrained']}".strip())
            same = home.split() == [part for part in model.values() if part]
            asked = changes if same else {**changes, **model}
            row.append(remeasure(folder, asked, watch, trust_config=trust_config))
        rows.append(tuple(row))
    return Transfer(tuple(found_on), tuple(m.replace("@", " ") for m in models), tuple(rows))
