"""ZIP (Park et al., "ZIP: An Efficient Zeroth-order Prompt Tuning for Black-box Vision-Language
Models", ICLR 2025), from the user's template and with rates in units of the token embeddings.

Access: ``soft``. The m context tokens are moved by a low-rank matrix with a shared row, each row of
it mapped into the embedding space by a fixed Fastfood transform,

    ``M = U diag(s) V^T + 1 v^T``   U (m, r) = 0, s (r) = 1, V (q, r) ~ N(0, 1), v (q) = 0   (1)
    ``p_i = p0_i + Phi_i(M_i)``     q = floor(500 / m)                                       (2)

That is delta = m r + r + q r + q numbers, 417 at m = 8 and r = 5; at the start M = 0. They are
trained by two-sided SPSA at rates ``a_k = a / (k + o)^alpha`` and widths ``c_k = c / k^gamma``,

    ``g = mean_j (L(w + c_k D_j) - L(w - c_k D_j)) / (2 c_k) * 1 / D_j``                     (3)

the entries of D_j of random sign and size uniform in [0.5, 1]. The norm of g is clipped at
``sqrt(delta)``, the scale of the estimate's standard deviation: a threshold without tuning. (4)

The default differs from the published algorithm (:mod:`llmopt.search.soft.zip_published`) in:

================ ========================================= ========================================
setting          ``released``                              ``llmopt`` (default)
================ ========================================= ========================================
p0               8 random vectors, N(0, 0.02^2)            the words of the start template
a, c             0.01, 0.01                                0.5, 0.5 spreads of the token embeddings
images           batches of 128, augmented and encoded     all at once, encoded once
                 anew in every step
length           500 steps of 5 directions (5,000 calls)   CraFT's budget of contexts
result           the last step                             chosen on validation images
================ ========================================= ========================================

Queries: 2 contexts a direction and step, K soft-prompt encodings each; one context more a step, for
the choice in the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt

from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.machinery.fastfood import Fastfood
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.schedules import check_budget, steps_allowed
from llmopt.search.soft.machinery.scoring import cross_entropy, score
from llmopt.search.soft.machinery.start import SoftStart, soft_start
from llmopt.search.soft.machinery.trail import trail_bounds
from llmopt.search.soft.machinery.walk import Walk, follow
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access

Array = npt.NDArray[np.float64]

BUDGET: Final = 500
"""Numbers that the rows of V and v share among the tokens: m q <= 500."""


@dataclass(frozen=True)
class SpsaSettings(Settings):
    """Settings of equations (1) to (3), in either form.

    Attributes:
        rank: r, of what is added to the context.
        directions: of a step.
        rate: a, of the first steps.
        width: c, of the first moves.
        offset: o, steps that count as done before rates fall.
        alpha, gamma: how fast rates and widths fall.
    """

    rank: Annotated[int, Ge(1)] = 5
    directions: Annotated[int, Ge(1)] = 5
    rate: Annotated[float, Gt(0)] = 0.5
    width: Annotated[float, Gt(0)] = 0.5
    offset: Annotated[float, Ge(0)] = 1.0
    alpha: Annotated[float, Ge(0)] = 0.4
    gamma: Annotated[float, Ge(0)] = 0.1


@dataclass(frozen=True)
class ZipSettings(SpsaSettings):
    """Settings of ``zip``; rate and width are in standard deviations of the token embeddings.

    Attributes:
        budget: contexts scored; None is 2,000 at 1 shot, 4,000 at 2 to 4, 8,000 above.
        views: augmented views of each training image.
        standard_errors: how many a gain over the start must exceed to be kept.
    """

    budget: int | None = None
    views: Annotated[int, Ge(0)] = 0
    standard_errors: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.budget, 2 * self.directions + 2)


class Reparameterisation:
    """Equations (1) and (2).

    Args:
        rng: draws V and the Fastfood transforms.
        origin: (m, e) ``p0``.
        rank: r.
    """

    def __init__(self, rng: np.random.Generator, origin: torch.Tensor, rank: int) -> None:
        self.origin, (tokens, width) = origin, origin.shape
        q = BUDGET // tokens
        self.shapes = {"U": (tokens, rank), "s": (rank,), "V": (q, rank), "v": (q,)}
        self.start = np.concatenate(
            [np.zeros(tokens * rank), np.ones(rank), rng.normal(size=q * rank), np.zeros(q)]
        )
        self.fastfood = Fastfood(rng, tokens, q, width)

    def contexts(self, w: Array) -> torch.Tensor:
        """(B, m, e) contexts of (B, delta) numbers, or (m, e) of (delta,)."""
        parts = np.split(w, np.cumsum([math.prod(s) for s in self.shapes.values()])[:-1], axis=-1)
        u, s, v, shared = (
            part.reshape(*w.shape[:-1], *shape)
            for part, shape in zip(parts, self.shapes.values(), strict=True)
        )
        matrix = u * s[..., None, :] @ v.swapaxes(-1, -2) + shared[..., None, :]
        return self.origin + self.fastfood(torch.from_numpy(matrix.astype(np.float32)))


def segmented_uniform(rng: np.random.Generator, count: int, dim: int) -> Array:
    """(count, dim) directions: entries of random sign and size uniform in [0.5, 1]."""
    return rng.choice([-1.0, 1.0], (count, dim)) * rng.uniform(0.5, 1.0, (count, dim))


def spsa(plus: Array, minus: Array, directions: Array, width: float) -> Array:
    """Gradient estimate (3) from (j,) losses on either side."""
    slopes = (plus - minus) / (2 * width)
    return np.asarray((slopes[:, None] / directions).mean(axis=0))


def clip(gradient: Array) -> Array:
    """Clipping (4) at the square root of the dimension."""
    norm, limit = float(np.linalg.norm(gradient)), math.sqrt(len(gradient))
    return gradient * (limit / norm) if norm >= limit else gradient


class Spsa(Walk):
    """Steps of SPSA in the space of (1) and (2).

    Args:
        settings: of the algorithm.
        search: task and black box.
        start: where the context stands at first.
        images: those of a step, by its number.
        unit: of the rates and widths.
    """

    def __init__(
        self,
        settings: SpsaSettings,
        search: Search,
        start: SoftStart,
        images: Callable[[int], Encoded],
        unit: float = 1.0,
    ) -> None:
        self.settings, self.search, self.names = settings, search, start.names
        self.images, self.unit = images, unit
        self.space = Reparameterisation(search.rng("zip", "space"), start.context, settings.rank)
        self.w = self.space.start.copy()
        self.cost = 2 * settings.directions

    @property
    def context(self) -> torch.Tensor:
        """(m, e) context of the current numbers w."""
        return self.space.contexts(self.w)

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One step of SPSA."""
        s, k = self.settings, step + 1
        rate, width = (
            s.rate * self.unit / (k + s.offset) ** s.alpha,
            s.width * self.unit / k**s.gamma,
        )
        images = self.images(step)
        directions = segmented_uniform(
            self.search.rng("zip", "directions", step), s.directions, len(self.w)
        )
        both = np.concatenate([self.w + width * directions, self.w - width * directions])
        losses = score(
            self.search.box,
            images,
            self.space.contexts(both),
            self.names,
            lambda logits: cross_entropy(logits, images.labels),
        ).numpy()
        plus, minus = np.split(losses, 2)
        self.w = self.w - rate * clip(spsa(plus, minus, directions, width))  # (3), (4)
        return float(losses.mean())

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Only w changes."""
        return {"w": self.w}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        self.w = state["w"]


class Zip(Optimizer[ZipSettings]):
    """Zeroth-order intrinsic-dimensional prompt tuning."""

    name = "zip"
    form = "llmopt"
    FORMS: ClassVar = {
        "llmopt": "llmopt.search.soft.zip:Zip",
        "released": "llmopt.search.soft.zip_published:ZipReleased",
    }
    access = Access.SOFT
    Settings = ZipSettings
    starts_at_template = True

    def bounds(self, task: Task) -> Spend:
        """Upper bounds of the spend; exact."""
        s, steps = self.settings, self._steps(task)
        return trail_bounds(task, s.views, steps + 1, 2 * s.directions * steps)

    def run(self, search: Search) -> Outcome:
        """Walk from the template; end with the likeliest waypoint or the template itself."""
        s, task, box = self.settings, search.task, search.box
        start = soft_start(box, task.start, task.classnames)
        return follow(
            search,
            start.names,
            lambda fit: Spsa(s, search, start, lambda step: fit, box.embedding_std),
            self._steps(task),
            views=s.views,
            standard_errors=s.standard_errors,
        )

    def _steps(self, task: Task) -> int:
        return steps_allowed(self.settings.budget, task.shots, 2 * self.settings.directions)
