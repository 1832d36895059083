"""How an exported classifier is computed, told so that another program can do it.

A recipe is numpy code for one image whose comments are the words. Arrays have their names in the
file; ``predictor`` is that of the file's metadata. Each head's lines are what its ``correct`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llmopt.heads import HEADS

_BEGIN: Final = (
    "# Lines are numpy, 'exp', 'maximum' and 'norm' (of a vector) from there. text_matrix and",
    "# dotted names are arrays of this file; logit_scale, logit_bias and predictor... are in this",
    "# metadata.",
    "# x: an L2-normalised image feature of this model, (d,).",
    "# s: the scores of the classes, (K,), in the order of 'classnames', before any head's work.",
    "s = logit_scale * text_matrix @ x + logit_bias",
)

_BANK: Final = (
    "# The head looks at scores of a bank of prompts in place of the image feature. r, (M,), joins",
    "# s, the scores (as above) of predictor.bank.classnames in each of predictor.bank.templates,",
    "# template by template, and those of predictor.bank.phrases; s, each template and the phrases",
    "# first have their own mean subtracted. bank.text is not needed.",
    "x = (r - bank.mean) @ bank.whiten",
    "x = x / norm(x)",
)

_END: Final = (
    "# The scores with the head: its strength, then the temperature.",
    "s = (s + predictor.head.alpha * h) / predictor.head.temperature",
)

_MADE: Final = {
    "text": ("# weights, of the templates, are in text_matrix already.",),
    "soft": ("# context, the soft prompt, is in text_matrix already.",),
}


def recipe(predictor: Mapping[str, Any]) -> str:
    """The recipe for a predictor, given the JSON part of its state."""
    return "\n".join(_lines(predictor))


def _lines(predictor: Mapping[str, Any]) -> list[str]:
    if predictor["kind"] != "headed":
        return [*_MADE.get(predictor["kind"], ()), *_BEGIN]
    below = _lines(predictor["base"])
    for name in ("head.", "bank.", "weights,", "context,"):
        below = [line.replace(name, f"base.{name}") for line in below]
    bank = _BANK if predictor["bank"] else ()
    return [*below, *bank, *HEADS.get(predictor["head"]["name"]).recipe, *_END]
