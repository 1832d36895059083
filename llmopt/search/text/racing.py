"""Few images first, where every image is sent to the black box anew with each template.

A new template meets a quarter of the training images first. It meets the others unless it can be
told by then that it is not among the best few, of which a search shows, climbs from and chooses: on
the same images it falls behind the last of those by more than twice the standard error of that
difference. Whoever stays is scored on all images; of who drops out nothing is said but that.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from llmopt.stats import settled
from llmopt.task import IntArray

if TYPE_CHECKING:
    from llmopt.search.base import Search
    from llmopt.template import Template
    from llmopt.vision.scoring import Reduction

SHARE: Final = 4
"""One of so many images comes first, …"""

LEAST: Final = 8
"""… and so many at least; where that is more than half of them, all come at once."""

BEHIND: Final = 2.0
"""Standard errors by which a template that drops out falls behind."""


def few(images: int) -> int:
    """How many of so many images come first; 0 where all come at once."""
    first = max(LEAST, ceil(images / SHARE))
    return first if 2 * first <= images else 0


def race(
    search: Search,
    templates: Sequence[Template],
    known: npt.NDArray[np.float64],
    worth: Reduction,
    best: int,
) -> list[Template]:
    """Those that may be among the best; all, where images need not be sent anew or are few.

    The start, which all others have to beat, does not take part.

    Args:
        search: task and black box.
        templates: new ones.
        known: (A, N) what those are worth that were scored on all training images.
        worth: (T, n, K) logits to what templates are worth on each image, larger is better.
        best: how many are wanted.

    Raises:
        BudgetExhausted: a cap does not pay for the few images.
    """
    task = search.task
    racing = [one for one in templates if one != task.start]
    if not (search.box.sends_again and few(len(task.train)) and racing):
        return list(templates)
    first = first_images(task.train.labels, search.rng("racing"))
    new = search.box.score_templates(task.train.subset(first), racing, task.classnames, worth)
    staying = stays(new.astype(np.float64), known[:, first], best, len(task.train))
    out = {one for one, stay in zip(racing, staying, strict=True) if not stay}
    return [one for one in templates if one not in out]


def first_images(labels: IntArray, rng: np.random.Generator) -> IntArray:
    """(n,) ascending places of those that come first, as many of each class as of any other.

    Args:
        labels: (N,) classes of all images.
        rng: draws them, and the classes that have one more.
    """
    drawn = rng.permutation(len(labels))
    turns = np.empty(len(labels), dtype=np.int64)  # how many of its class were drawn before it
    for label in np.unique(labels):
        own = drawn[labels[drawn] == label]
        turns[own] = np.arange(len(own))
    return np.sort(drawn[np.argsort(turns[drawn], kind="stable")][: few(len(labels))])


def stays(
    new: npt.NDArray[np.float64], known: npt.NDArray[np.float64], best: int, images: int
) -> npt.NDArray[np.bool_]:
    """(T,) whether each new template may be among the best.

    Args:
        new: (T, n) what they are worth on the images that come first.
        known: (A, n) the same of those that were scored on all images.
        best: how many are wanted.
        images: N, how many there are.
    """
    everyone = np.concatenate([known, new])
    if len(everyone) <= best:
        return np.ones(len(new), dtype=np.bool_)
    order = np.argsort(-settled(everyone.mean(axis=1)), kind="stable")
    behind, seen = everyone[order[best - 1]] - new, new.shape[1]
    # Only the mean over these N images is asked for, and n of them are known.
    errors = behind.std(axis=1, ddof=1) * np.sqrt((1 - seen / images) / seen)
    return np.asarray(settled(behind.mean(axis=1)) <= settled(BEHIND * errors))
