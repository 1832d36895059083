"""The classifier itself: text matrix, soft prompt and head as safetensors.

``text_matrix`` holds one L2-normalised embedding a class, in label order. With an L2-normalised
image feature ``x`` of the same model, the class scores are ``logit_scale * text_matrix @ x +
logit_bias``; a head, where there is one, takes it from there. The ``recipe`` in each file's
metadata says how (:mod:`llmopt.export.recipe`).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from llmopt.errors import AccessError
from llmopt.export.recipe import recipe
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import choose_model
from llmopt.runs.load import load_predictor, read_found
from llmopt.runs.trust import refuse_untrusted
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger
from llmopt.vision.base import Access
from llmopt.vision.metered import MeteredBox

NAME = "classifier.safetensors"


def write(folder: Path, watch: Watch, trust_config: bool = False) -> dict[str, bytes]:
    """The classifier of a finished run. Opens the run's model to encode its prompts.

    Raises:
        AccessError: the run's black box gives no embeddings.
    """
    result = run_folder.read_result(folder)
    predictor = load_predictor(folder, watch.warn)
    config = run_folder.read_run_config(folder)
    if not trust_config:
        refuse_untrusted(config, folder / run_folder.CONFIG, chat=False)
    box = choose_model(config).open(watch)
    if box.info.access < Access.FEATURES:
        raise AccessError(
            f"{box.info.name} gives no embeddings (it offers '{box.info.access}'), so there is no "
            "text matrix; export the prompts instead"
        )
    arrays, rest = predictor.state()
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = predictor.text_matrix(MeteredBox(box, Ledger()))
    tensors["text_matrix"] = np.ascontiguousarray(text)
    metadata = {
        "schema": 1,
        "dataset": result["task"]["dataset"],
        "classnames": read_found(folder)["classnames"],
        "model": result["model"],
        "logit_scale": box.info.logit_scale,
        "logit_bias": box.info.logit_bias,
        "recipe": recipe(rest),
        "predictor": rest,
    }
    return {NAME: save(tensors, {"llmopt": json.dumps(metadata)})}
