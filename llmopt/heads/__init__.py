"""Small functions of scores or features, fitted on the few shots; this page is their list.

A head corrects the class scores of a predictor. It is fitted after the search (or beside it), on
images already paid for, and is kept only if images left out of its fit say that it helps.

======== ===================================================== ======== ==================
name     what it adds to the scores                            looks at left out by
======== ===================================================== ======== ==================
none     nothing                                               scores   -
bias     one number a class, and a temperature                 scores   exact
residual CraFT's two-layer perceptron of the scores            scores   folds
adapter  CLIP-Adapter's bottleneck on the image features       features folds
tip      Tip-Adapter's cache of the training images            features exact
tip-f    the same cache, its keys trained                      features folds
gda      Gaussian discriminant analysis                        features exact
ridge    a ridge regression on what the scores leave unsaid    features exact
======== ===================================================== ======== ==================

Heads that look at features work on a box that gives scores only through
:mod:`llmopt.heads.bank`. Modules are imported when a head is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmopt.errors import ConfigError, nearest

if TYPE_CHECKING:
    from llmopt.heads.base import Head

HEADS = {
    "none": ("none", "NoHead"),
    "bias": ("bias", "Bias"),
    "residual": ("residual", "Residual"),
    "adapter": ("adapter", "Adapter"),
    "tip": ("tip", "Tip"),
    "tip-f": ("tip_f", "TipF"),
    "gda": ("gda", "GDA"),
    "ridge": ("ridge", "Ridge"),
}


def head_class(name: str) -> type[Head[Any]]:
    """The head of that name.

    Raises:
        ConfigError: there is none; the nearest name is suggested.
    """
    if name not in HEADS:
        raise ConfigError(
            f"unknown head '{name}'{nearest(name, HEADS)} (there are: {', '.join(HEADS)})"
        )
    module, attribute = HEADS[name]
    found: type[Head[Any]] = getattr(importlib.import_module(f"llmopt.heads.{module}"), attribute)
    return found
