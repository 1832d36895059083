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
map      what each answer in words says of the classes         answers  exact
======== ===================================================== ======== ==================

Heads that look at features work on a box that gives scores only through
:mod:`llmopt.heads.bank`; ``map`` is for boxes that only answer (:mod:`llmopt.heads.words`). Modules
are imported when a head is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llmopt.registry import Registry

if TYPE_CHECKING:
    from llmopt.heads.base import Head

HEADS: Final[Registry[type[Head[Any]]]] = Registry(
    "head",
    "heads",
    {
        "none": "llmopt.heads.none:NoHead",
        "bias": "llmopt.heads.bias:Bias",
        "residual": "llmopt.heads.residual:Residual",
        "adapter": "llmopt.heads.adapter:Adapter",
        "tip": "llmopt.heads.tip:Tip",
        "tip-f": "llmopt.heads.tip_f:TipF",
        "gda": "llmopt.heads.gda:GDA",
        "ridge": "llmopt.heads.ridge:Ridge",
        "map": "llmopt.heads.answer_map:AnswerMap",
    },
    base="llmopt.heads.base:Head",
    reserved=("auto",),
)
"""What ``--head`` takes, beside ``auto``."""
