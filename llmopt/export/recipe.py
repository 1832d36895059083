"""How an exported classifier is computed, told so that another program can do it.

A recipe is numpy code for one image whose comments are the words. Arrays have their names in the
file; ``predictor`` is that of the file's metadata. Each head's lines are what its ``correct`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

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

HEADS: Final[Mapping[str, tuple[str, ...]]] = {
    "none": ("# No head: nothing is added.", "h = 0"),
    "bias": ("# The head adds one number a class.", "h = head.bias"),
    "residual": (
        "# The head is a perceptron with one hidden layer of the scores, standardised.",
        "hidden = maximum(head.w1 @ ((s - head.mean) / head.deviation) + head.b1, 0)",
        "h = head.temperature * (head.w2 @ hidden + head.b2)",
    ),
    "adapter": (
        "# The head moves the image feature by a bottleneck, whose last relu is there if",
        "# head.outer is 1, and compares the move with the class embeddings, scaled, in head.text.",
        "a = head.w2 @ maximum(head.w1 @ x, 0)",
        "a = maximum(a, 0) if head.outer[0] else a",
        "moved = head.ratio * a + (1 - head.ratio) * x",
        "moved = moved / norm(moved)",
        "h = head.text @ (moved - x)",
    ),
    "tip": (
        "# The head compares the image with training images and class embeddings, which vote.",
        "h = exp(-head.beta * (1 - head.keys @ x)) @ head.values",
    ),
    "tip-f": (
        "# The head compares the image with keys that began as training images, and which vote.",
        "h = exp(-head.beta * (1 - head.keys @ x)) @ head.values",
    ),
    "gda": (
        "# The head is linear in the image feature: the classes as Gaussians of one covariance.",
        "h = head.weights @ x + head.bias",
    ),
    "ridge": (
        "# The head is linear in the image feature: a ridge regression of what s leaves unsaid.",
        "h = head.weights @ x + head.bias",
    ),
}
"""What each head adds to the scores ``s`` before strength and temperature, as ``h``."""

_END: Final = (
    "# The scores with the head: its strength, then the temperature.",
    "s = (s + predictor.head.alpha * h) / predictor.head.temperature",
)

_MADE: Final = {
    "text": "# weights, of the templates, are in text_matrix already.",
    "soft": "# context, the soft prompt, is in text_matrix already.",
}


def recipe(predictor: Mapping[str, Any]) -> str:
    """The recipe for a predictor, given the JSON part of its state."""
    return "\n".join(_lines(predictor))


def _lines(predictor: Mapping[str, Any]) -> list[str]:
    if predictor["kind"] != "headed":
        return [_MADE[predictor["kind"]], *_BEGIN]
    below = _lines(predictor["base"])
    for name in ("head.", "bank.", "weights,", "context,"):
        below = [line.replace(name, f"base.{name}") for line in below]
    bank = _BANK if predictor["bank"] else ()
    return [*below, *bank, *HEADS[predictor["head"]["name"]], *_END]
