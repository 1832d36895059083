"""Which configs ask for the same run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Final

from llmopt.runs.config import RunConfig, optimizer_of
from llmopt.runs.whole import without_defaults

# Where a run was made does not make it another run.
_ELSEWHERE: Final = ("runs", "data_root", "device", "batch_size", "init_from", "baselines")


def key(config: RunConfig) -> str:
    """Equal for configs that ask for the same run; can name a file.

    Raises:
        LlmoptError: the optimizer or its settings are not known to this version.
    """
    values = dataclasses.asdict(without_defaults(config))
    for name in _ELSEWHERE:
        del values[name]
    values["settings"] = optimizer_of(config).as_given()
    for name in ("llm_settings", "blackbox_settings"):
        values[name] = {k: str(v) for k, v in values[name].items()}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
