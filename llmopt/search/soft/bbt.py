"""BBT (Sun et al., "Black-Box Tuning for Language-Model-as-a-Service", ICML 2022), on CLIP.

Access: ``soft``. The context is a point of a random subspace,

    ``p = p0 + reshape(A z, (m, e))``,   z in R^D,                                           (1)

that minimises the loss of the few shots by CMA-ES. The entries of A are N(0, std^2) with

    ``std = alpha * std_emb / (sqrt(D) * sigma)``,                                           (2)

so that ``A z`` starts at the scale of word embeddings.

================== ================================= ===========================================
setting            ``released``                      ``llmopt`` (default)
================== ================================= ===========================================
p0                 "a photo of a"                    the words of the start template
A                  Gaussian                          orthogonal columns, same scale
dim D              500                               32
population         20                                16
sigma, alpha       1, 1                              1, 1
budget             8,000                             CraFT's, by shots
images             as they are                       the same, and views of them if asked for
result             best on the validation images,    the mean of the distribution, chosen on the
                   looked at every 100 evaluations,  validation images, or the start template
                   of the best training losses
================== ================================= ===========================================

The paper's validation set is as large as its training set; here it is the task's. What CraFT's
tables call BBT is CraFT's released prompt search without its head, which is not to be had here:
that head always trains beside the prompt.

Queries: K soft-prompt encodings a candidate; those for the validation images are not counted by the
paper, which counts a candidate on all images as one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch

from llmopt.search.base import Bounds, Optimizer, Outcome, Search
from llmopt.search.soft.machinery.checks import check_choice, check_range
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.evolution import Evolution, Loss, cma_seed, hinge
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.schedules import steps_allowed
from llmopt.search.soft.machinery.scoring import accuracy, cross_entropy, score
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import soft_start, words_start
from llmopt.search.soft.machinery.subspace import Subspace, bbt_std, gaussian, orthonormal
from llmopt.search.soft.machinery.trail import bounds as trail_bounds
from llmopt.search.soft.machinery.walk import follow, march
from llmopt.task import Task
from llmopt.vision.base import Access

LOOK_EVERY: Final = 100
"""Evaluations between looks at the validation images."""

LOSSES: Final[dict[str, Loss]] = {"ce": cross_entropy, "hinge": hinge}


@dataclass(frozen=True)
class BbtSettings:
    """Settings of ``bbt``; the table above has their values in the profile ``released``.

    Attributes:
        profile: ``llmopt`` or ``released``.
        budget: contexts scored; None is 2,000 at 1 shot, 4,000 at 2 to 4, 8,000 above (``llmopt``)
            or 8,000 (``released``).
        dim: D.
        population: candidates a generation.
        sigma: step size at the start.
        alpha: size of A z at the start, in standard deviations of the token embeddings.
        loss: ``ce`` or ``hinge``.
        views: augmented views of each training image (``llmopt``).
        standard_errors: how many a gain over the start must exceed to be kept (``llmopt``).
    """

    profile: str = "llmopt"
    budget: int | None = None
    dim: int = 32
    population: int = 16
    sigma: float = 1.0
    alpha: float = 1.0
    loss: str = "ce"
    views: int = 0
    standard_errors: float = 1.0

    def __post_init__(self) -> None:
        check_range("dim", self.dim, 2)
        check_range("population", self.population, 4)
        check_range("sigma", self.sigma, 1e-9)
        check_range("alpha", self.alpha, 1e-9)
        check_choice("loss", self.loss, tuple(LOSSES))
        check_range("views", self.views, 0)
        check_range("standard_errors", self.standard_errors, 0)
        if self.budget is not None:
            own = self.profile == "llmopt"
            check_range("budget", self.budget, self.population + 2 * own)


class Looking(Evolution):
    """As published: from time to time the best candidate is tried on the validation images."""

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        val = self.search.task.val
        self.val = Encoded.of(self.search.box, val) if len(val) else None
        self.kept, self.kept_accuracy = self.best_z, -1.0

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """A generation, and a look when one is due."""
        loss = super().advance(step)
        if (step + 1) % (LOOK_EVERY // self.cost or 1) == 0:
            self._look()
        return loss

    def _look(self) -> None:
        found = 0.0
        if self.val:
            context = self.best_context[None]
            scores = score(self.search.box, self.val, context, self.names)[0]
            found = accuracy(scores, self.val.labels)
        # Without validation images, the later best is the better one.
        if found > self.kept_accuracy or not self.val:
            self.kept, self.kept_accuracy = self.best_z, found

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """With what was kept."""
        kept = {"kept": self.kept, "kept_accuracy": np.array([self.kept_accuracy])}
        return {**super().state(), **kept}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        super().restore(state)
        self.kept, self.kept_accuracy = state["kept"], float(state["kept_accuracy"][0])


class Bbt(Optimizer[BbtSettings]):
    """Black-box tuning of the prompt alone."""

    name = "bbt"
    access = Access.SOFT
    Settings = BbtSettings
    PROFILES: ClassVar = {"llmopt": {}, "released": {"dim": 500, "population": 20}}
    ONLY: ClassVar = dict.fromkeys(("views", "standard_errors"), frozenset({"llmopt"}))

    def bounds(self, task: Task) -> Bounds:
        """Exact, unless a rule of CMA-ES ends the search early."""
        s, steps = self.settings, self._steps(task)
        if s.profile == "llmopt":
            return trail_bounds(task, s.views, steps + 1, steps * s.population)
        classes, images, val = len(task.classnames), len(task.train), len(task.val)
        candidates = steps * s.population
        looks = steps // (LOOK_EVERY // s.population or 1) if val else 0
        return Bounds(
            image_encodings=images + val,
            soft_prompt_encodings=(candidates + looks) * classes,
            pairs_scored=(candidates * images + looks * val) * classes,
        )

    def run(self, search: Search) -> Outcome:
        """Run the profile's algorithm."""
        s, task, box = self.settings, search.task, search.box
        rng = search.rng("bbt", "projection")
        if s.profile == "llmopt":
            start = soft_start(box, task.start, task.classnames)
            dim = min(s.dim, start.context.numel())
            shape = start.context.numel(), dim
            projection = orthonormal(rng, *shape, box.embedding_std, s.sigma, s.alpha)
            subspace = Subspace(start.context, projection)
            cma = CmaSearch(dim, s.sigma, s.population, cma_seed(search, "bbt"))
            return follow(
                search,
                start.names,
                lambda fit: Evolution(search, start.names, subspace, cma, fit, LOSSES[s.loss]),
                self._steps(task),
                views=s.views,
                standard_errors=s.standard_errors,
            )
        start = words_start(box, "a photo of a", task.classnames)
        std = bbt_std(box.embedding_std, s.dim, s.sigma, s.alpha)
        subspace = Subspace(start.context, gaussian(rng, start.context.numel(), s.dim, std))
        cma = CmaSearch(s.dim, s.sigma, s.population, cma_seed(search, "bbt"))
        fit = Encoded.of(box, task.train)
        walk = Looking(search, start.names, subspace, cma, fit, LOSSES[s.loss])
        reason = march(search, walk, self._steps(task))
        if walk.kept_accuracy < 0:  # it ended before the first look
            walk.kept = walk.best_z
        calls = {"calls_as_published": walk.cma.generation * s.population}
        context = subspace.contexts(walk.kept).numpy()
        return Outcome(SoftPredictor(context, start.names), reason, summary=calls)

    def _steps(self, task: Task) -> int:
        s = self.settings
        if s.profile == "released":
            return (s.budget or 8000) // s.population
        return steps_allowed(s.budget, task.shots, s.population)
