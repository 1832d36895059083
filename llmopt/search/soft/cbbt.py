"""CBBT (Guo et al., "Black-Box Tuning of Vision-Language Models with Effective Gradient
Approximation", EMNLP Findings 2023), with a better estimate of the gradient.

Access: ``soft``. The m context vectors ``p`` in R^D, D = m e, go down the cross-entropy L of the
few shots along a gradient estimated from differences. As published, these are one-sided: (1) in
:mod:`llmopt.search.soft.cbbt_published`; (2) and (3) are its adapters. Here they are two-sided, on
the same images, in q directions on the unit sphere that are orthogonal to each other:

    ``g = D * mean_i (L(p + eps u_i) - L(p - eps u_i)) / (2 eps) * u_i``.                    (3)

Also, each class moves in a direction of its own. The loss is a known function of the scores
S (N, K), only the text tower is unknown; with ``G = dL/dS`` exact, class k's own slope is

    ``d_ik = sum_n G_nk (S_nk(p + eps u_ik) - S_nk(p - eps u_ik)) / (2 eps)``                (4)

and ``g = D * mean_i sum_k d_ik u_ik``: K directions for the encodings of one. Adam descends, its
rate on a cosine; gradients are clipped at norm 5.

The default differs from the published algorithm in:

======================== ============================================== ==========================
setting                  ``released``                                   ``llmopt`` (default)
======================== ============================================== ==========================
start                    "a" (2 tokens: "a photo", 4: "a photo of a")   the start template's words
estimate                 (1)                                            (4), or (3)
directions q             256                                            8
eps                      max(1/D, 0.001)                                5 % of the context's norm
rate                     2e-3                                           0.1 of a word's spread
L2 penalty               5e-4                                           0
images                   batches of 32, augmented and encoded anew      all at once, encoded once
length                   150 epochs (12 to 80 on large data sets)       CraFT's budget of contexts
adapter                  beside the prompt                              after it, if it helps
result                   the last epoch                                 chosen on validation images
======================== ============================================== ==========================

Queries: a step encodes K soft prompts for each of 2 q + 1 contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Interval
from torch.nn import functional as F

from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.point import Array, Point
from llmopt.search.soft.machinery.schedules import check_budget, cosine_rate, steps_allowed
from llmopt.search.soft.machinery.scoring import cross_entropy, score
from llmopt.search.soft.machinery.start import SoftStart, soft_start
from llmopt.search.soft.machinery.subspace import word_axes
from llmopt.search.soft.machinery.trail import trail_bounds
from llmopt.search.soft.machinery.walk import Walk, follow
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access


@dataclass(frozen=True)
class CbbtSettings(Settings):
    """Settings of ``cbbt``.

    Attributes:
        budget: contexts scored; None is 2,000 at 1 shot, 4,000 at 2 to 4, 8,000 above.
        directions: q, random ones a step.
        own: each class moves along directions of its own, (4).
        eps: length of a move, as a share of the context's norm.
        rate: Adam's; 0 is a tenth of the spread of the token embeddings.
        decay: L2 penalty in Adam's gradient.
        clip: largest norm of a gradient.
        rank: search the span of so many principal axes of word vectors, the same for each token;
            0 is the whole space.
        adapter: train the adapter (2) after the prompt.
        views: augmented views of each training image.
        standard_errors: how many a gain over the start must exceed to be kept.
    """

    budget: int | None = None
    directions: Annotated[int, Ge(1)] = 8
    own: bool = True
    eps: Annotated[float, Interval(ge=1e-6, le=1)] = 0.05
    rate: Annotated[float, Ge(0)] = 0.0
    decay: Annotated[float, Ge(0)] = 0.0
    clip: Annotated[float, Ge(0)] = 5.0
    rank: Annotated[int, Ge(0)] = 0
    adapter: bool = True
    views: Annotated[int, Ge(0)] = 0
    standard_errors: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.budget, 2 * self.directions + 2)

    @property
    def head(self) -> str:
        """The head fitted after the search."""
        return "adapter" if self.adapter else "none"


def orthogonal(rng: np.random.Generator, count: int, dim: int) -> Array:
    """(count, dim) directions, each uniform on the unit sphere, orthogonal in blocks of dim."""
    blocks = [
        np.linalg.qr(rng.normal(size=(dim, min(dim, count - first))))[0].T
        for first in range(0, count, dim)
    ]
    # QR fixes the signs of its diagonal; a random sign makes each direction uniform.
    rows = np.concatenate(blocks)
    return np.asarray(rows * rng.choice([-1.0, 1.0], (count, 1)))


def two_sided(plus: Array, minus: Array, directions: Array, eps: float) -> Array:
    """Gradient estimate (3) from (q,) losses at ``p + eps u_i`` and at ``p - eps u_i``."""
    slopes = (plus - minus) / (2 * eps)
    return np.asarray(slopes @ directions / len(directions) * directions.shape[1])


def class_wise(plus: Array, minus: Array, directions: Array, eps: float) -> Array:
    """Gradient estimate (4), from directions of its own for each class.

    Args:
        plus, minus: (q, K) sums over the images of ``G_nk S_nk``, with each class k moved along
            and against its own direction.
        directions: (q, K, D).
        eps: length of the move.
    """
    slopes = (plus - minus) / (2 * eps)
    count, _, dim = directions.shape
    return np.asarray(np.einsum("qk,qkd->d", slopes, directions) / count * dim)


class Descent(Walk):
    """All images in every step, the same ones on both sides.

    Args:
        settings: of the algorithm.
        search: task and black box.
        start: where the context stands at first.
        steps: length of the cosine.
        fit: the images.
    """

    def __init__(
        self, settings: CbbtSettings, search: Search, start: SoftStart, steps: int, fit: Encoded
    ) -> None:
        self.settings, self.search, self.names, self.fit = settings, search, start.names, fit
        self.steps, self.cost = steps, 2 * settings.directions + 1
        self.rate = settings.rate or 0.1 * search.box.embedding_std
        self.eps = settings.eps * float(start.context.norm())
        axes = word_axes(search.box, settings.rank) if settings.rank else None
        self.point = Point(start.context, axes, self.rate, settings.decay)

    @property
    def context(self) -> torch.Tensor:
        """(m, e) context of the current numbers w."""
        return self.point.contexts()

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One step of Adam along (3) or (4)."""
        if scores is None:
            context = self.context[None]
            scores = score(self.search.box, self.fit, context, self.names)[0]
        rng = self.search.rng("cbbt", "directions", step)
        gradient = self._own(rng, scores) if self.settings.own else self._shared(rng)
        rate = cosine_rate(step, self.steps, self.rate)
        self.point.descend(gradient, rate, self.settings.clip)
        return float(cross_entropy(scores[None], self.fit.labels))

    def _shared(self, rng: np.random.Generator) -> Array:
        u = orthogonal(rng, self.settings.directions, self.point.w.numel())
        losses = self._both_sides(u, lambda s: cross_entropy(s, self.fit.labels))
        plus, minus = np.split(losses, 2)
        return two_sided(plus, minus, u, self.eps)

    def _own(self, rng: np.random.Generator, scores: torch.Tensor) -> Array:
        count, classes, dim = self.settings.directions, len(self.names), self.point.w.numel()
        u = orthogonal(rng, count * classes, dim).reshape(count, classes, dim)
        onehot = F.one_hot(self.fit.labels, classes)
        slope = (scores.double().softmax(dim=-1) - onehot) / len(self.fit)  # G
        sums = self._both_sides(u, lambda s: (s.cpu().double() * slope).sum(dim=-2))
        plus, minus = np.split(sums, 2)
        return class_wise(plus, minus, u, self.eps)

    def _both_sides(self, u: Array, reduce: Callable[[torch.Tensor], torch.Tensor]) -> Array:
        contexts = self.point.contexts(self.eps * np.concatenate([u, -u]))
        return score(self.search.box, self.fit, contexts, self.names, reduce).numpy()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The context and Adam's moments."""
        return self.point.state()

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        self.point.restore(state)


class Cbbt(Optimizer[CbbtSettings]):
    """Black-box tuning by approximate gradients."""

    name = "cbbt"
    form = "llmopt"
    FORMS: ClassVar = {
        "llmopt": "llmopt.search.soft.cbbt:Cbbt",
        "released": "llmopt.search.soft.cbbt_published:CbbtReleased",
    }
    access = Access.SOFT
    Settings = CbbtSettings
    HEADLESS: ClassVar = {"adapter": False}
    starts_at_template = True

    def bounds(self, task: Task) -> Spend:
        """Exact, but for the pairs that reading off text features for the adapter takes."""
        s, steps = self.settings, self._steps(task)
        return trail_bounds(task, s.views, steps + 1, 2 * s.directions * steps, s.head)

    def run(self, search: Search) -> Outcome:
        """Descend from the template; end with the likeliest waypoint or the template itself."""
        s, task, steps = self.settings, search.task, self._steps(search.task)
        start = soft_start(search.box, task.start, task.classnames)
        return follow(
            search,
            start.names,
            lambda fit: Descent(s, search, start, steps, fit),
            steps,
            views=s.views,
            standard_errors=s.standard_errors,
            head=s.head,
        )

    def _steps(self, task: Task) -> int:
        return steps_allowed(self.settings.budget, task.shots, 2 * self.settings.directions)
