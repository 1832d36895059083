"""ZIP (Park et al., "ZIP: An Efficient Zeroth-order Prompt Tuning for Black-box Vision-Language
Models", ICLR 2025).

Access: ``soft``. The m context tokens are moved by a low-rank matrix with a shared row, each row of
it mapped into the embedding space by a fixed Fastfood transform,

    ``M = U diag(s) V^T + 1 v^T``   U (m, r) = 0, s (r) = 1, V (q, r) ~ N(0, 1), v (q) = 0   (1)
    ``p_i = p0_i + Phi_i(M_i)``     q = floor(500 / m)                                       (2)

That is delta = m r + r + q r + q numbers, 417 at m = 8 and r = 5; at the start M = 0. They are
trained by two-sided SPSA at rates ``a_k = a / (k + o)^alpha`` and widths ``c_k = c / k^gamma``,

    ``g = mean_j (L(w + c_k D_j) - L(w - c_k D_j)) / (2 c_k) * 1 / D_j``                     (3)

the entries of D_j of random sign and size uniform in [0.5, 1]. The norm of g is clipped at
``sqrt(delta)``, the scale of the estimate's standard deviation: a threshold without tuning. (4)

================ ========================================= ========================================
setting          ``released``                              ``llmopt`` (default)
================ ========================================= ========================================
p0               8 random vectors, N(0, 0.02^2)            the words of the start template
o, alpha, gamma  1, 0.4, 0.1                               the same
a, c             0.01, 0.01                                0.5, 0.5 spreads of the token embeddings
images           batches of 128, augmented and encoded     all at once, encoded once
                 anew in every step
length           500 steps of 5 directions (5,000 calls)   CraFT's budget of contexts
result           the last step                             chosen on validation images
================ ========================================= ========================================

Queries: 2 contexts a direction and step, K soft-prompt encodings each. The paper counts a context
on a batch of images as one call and does not count the images it encodes for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch

from llmopt.data.augment import Augmentation
from llmopt.search.base import Bounds, Optimizer, Outcome, Search
from llmopt.search.soft.machinery.checks import check_range
from llmopt.search.soft.machinery.fastfood import Fastfood
from llmopt.search.soft.machinery.images import Encoded, fresh_batch
from llmopt.search.soft.machinery.schedules import steps_allowed
from llmopt.search.soft.machinery.scoring import cross_entropy, score
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import SoftStart, check_room, plain_names, soft_start
from llmopt.search.soft.machinery.trail import bounds as trail_bounds
from llmopt.search.soft.machinery.walk import Walk, follow, march
from llmopt.task import Task
from llmopt.vision.base import Access, BlackBox

Array = npt.NDArray[np.float64]

BUDGET: Final = 500
"""Numbers that the rows of V and v share among the tokens: m q <= 500."""


@dataclass(frozen=True)
class ZipSettings:
    """Settings of ``zip``; the table above has their values in the profile ``released``.

    Attributes:
        profile: ``llmopt`` or ``released``.
        budget: contexts scored; None is 2,000 at 1 shot, 4,000 at 2 to 4, 8,000 above (``llmopt``)
            or 5,000 (``released``).
        tokens: m (``released``).
        rank: r.
        directions: of a step.
        rate: a.
        width: c.
        offset: o.
        alpha, gamma: how fast rates and widths fall.
        batch: images a step (``released``).
        views: augmented views of each training image (``llmopt``).
        flip: mirror half of the augmented images (``released``).
        standard_errors: how many a gain over the start must exceed to be kept (``llmopt``).
    """

    profile: str = "llmopt"
    budget: int | None = None
    tokens: int = 8
    rank: int = 5
    directions: int = 5
    rate: float = 0.5
    width: float = 0.5
    offset: float = 1.0
    alpha: float = 0.4
    gamma: float = 0.1
    batch: int = 128
    views: int = 0
    flip: bool = True
    standard_errors: float = 1.0

    def __post_init__(self) -> None:
        check_range("tokens", self.tokens, 1, 64)
        for name in ("rank", "directions", "batch"):
            check_range(name, getattr(self, name), 1)
        for name in ("offset", "alpha", "gamma", "views", "standard_errors"):
            check_range(name, getattr(self, name), 0)
        for name in ("rate", "width"):
            check_range(name, getattr(self, name), 1e-9)
        if self.budget is not None:
            own = self.profile == "llmopt"
            check_range("budget", self.budget, 2 * self.directions + 2 * own)


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
    """The algorithm, on images fitted all at once or drawn in batches.

    Args:
        settings: of ``zip``.
        search: task and black box.
        start: where the context stands at first.
        unit: of the rates and widths.
        fit: the images; None draws augmented batches.
    """

    def __init__(
        self,
        settings: ZipSettings,
        search: Search,
        start: SoftStart,
        unit: float = 1.0,
        fit: Encoded | None = None,
    ) -> None:
        self.settings, self.search, self.names = settings, search, start.names
        self.unit, self.fit = unit, fit
        self.space = Reparameterisation(search.rng("zip", "space"), start.context, settings.rank)
        self.w = self.space.start.copy()
        self.cost = 2 * settings.directions

    @property
    def context(self) -> torch.Tensor:
        """At w."""
        return self.space.contexts(self.w)

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One step of SPSA."""
        s, k = self.settings, step + 1
        rate, width = (
            s.rate * self.unit / (k + s.offset) ** s.alpha,
            s.width * self.unit / k**s.gamma,
        )
        how = Augmentation(scale=(0.08, 1.0), flip=s.flip)
        images = self.fit or fresh_batch(self.search, step, s.batch, how)
        directions = segmented_uniform(
            self.search.rng("zip", "directions", step), s.directions, len(self.w)
        )
        both = np.concatenate([self.w + width * directions, self.w - width * directions])
        losses = score(
            self.search.box,
            images,
            self.space.contexts(both),
            self.names,
            lambda logits: cross_entropy(logits.double(), images.labels),
        ).numpy()
        plus, minus = np.split(losses, 2)
        self.w = self.w - rate * clip(spsa(plus, minus, directions, width))
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
    access = Access.SOFT
    Settings = ZipSettings
    PROFILES: ClassVar = {"llmopt": {}, "released": {"rate": 0.01, "width": 0.01}}
    ONLY: ClassVar = {
        **dict.fromkeys(("tokens", "batch", "flip"), frozenset({"released"})),
        **dict.fromkeys(("views", "standard_errors"), frozenset({"llmopt"})),
    }

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and room for the vectors of the published start."""
        super().check(box, task)
        if self.settings.profile == "released":
            check_room(box, self.settings.tokens, task.classnames)

    def bounds(self, task: Task) -> Bounds:
        """Exact."""
        s, steps = self.settings, self._steps(task)
        contexts = 2 * s.directions * steps
        if s.profile == "llmopt":
            return trail_bounds(task, s.views, steps + 1, contexts)
        size, classes = min(s.batch, len(task.train)), len(task.classnames)
        return Bounds(
            image_encodings=steps * size,
            soft_prompt_encodings=contexts * classes,
            pairs_scored=contexts * classes * size,
        )

    def run(self, search: Search) -> Outcome:
        """Run the profile's algorithm."""
        s, task, box = self.settings, search.task, search.box
        steps = self._steps(task)
        if s.profile == "llmopt":
            start = soft_start(box, task.start, task.classnames)
            return follow(
                search,
                start.names,
                lambda fit: Spsa(s, search, start, box.embedding_std, fit),
                steps,
                views=s.views,
                standard_errors=s.standard_errors,
            )
        width = box.embed_text("a").shape[1]
        p0 = search.rng("zip", "start").normal(0.0, 0.02, (s.tokens, width))
        start = SoftStart(torch.from_numpy(p0.astype(np.float32)), plain_names(task.classnames))
        walk = Spsa(s, search, start)
        reason = march(search, walk, steps)
        scored = int(search.ledger["soft_prompt_encodings"]) // len(task.classnames)
        calls = {"calls_as_published": scored}
        return Outcome(SoftPredictor(walk.context.numpy(), start.names), reason, summary=calls)

    def _steps(self, task: Task) -> int:
        s = self.settings
        if s.profile == "released":
            return (s.budget or 5000) // (2 * s.directions)
        return steps_allowed(s.budget, task.shots, 2 * s.directions)
