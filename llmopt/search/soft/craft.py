"""CraFT (Wang et al., "Connecting the Dots: Collaborative Fine-tuning for Black-Box Vision-Language
Models", ICML 2024; named CARROT before).

Access: ``soft``. Two modules learn from the few shots. The *prompt* is a point z of a
low-dimensional space,

    ``p = p0 + reshape(A z, (m, e))``,                                                       (1)

found by CMA-ES; the *head* refines the class scores s by a perceptron trained with gradients of
its own,

    ``s' = s + W2 relu(W1 s + b1) + b2``.                                                    (2)

With ``q = softmax(s)`` and ``q' = softmax(s')``, the prompt minimises

    ``CE(s, y) + w KL(q' || q)``                                                             (3)

and the head

    ``CE(s', y) + w_t KL(q || q')``,                                                         (4)

so that each is pulled towards what the other predicts.

``profile=released`` and ``profile=paper`` alternate the two as published
(:mod:`llmopt.search.soft.craft_published`). The default keeps the parts and mends what made them
unsafe with few images:

* A has orthogonal columns after BBT's scale rule, so that ``A z`` starts at the size of a word's
  embedding (published: up to 200 times that), and few enough of them for CMA-ES to learn their
  covariance (512 published: 1.6 % of it is learned in 8,000 evaluations). Fewer than 32 find less,
  more do not differ significantly (``benchmarks/results/continuous_ablations.md``).
* z = 0 is the user's template. It is scored first, and kept unless a waypoint is convincingly
  likelier on the validation images.
* The fitness does not change under the search: the head waits until the prompt is found, and the
  pull is towards the start's predictions, ``CE(s, y) + w KL(q_start || q)``.                 (5)
* Images are encoded once, as they are (and in a few augmented views, where that is asked for).
* The context is the mean of the distribution, not a draw from it, and the best of four searches
  in four subspaces that share the budget.
* The head starts at zero, its inputs scaled and at a fitted temperature, and is kept only if images
  left out of its fit are convincingly likelier under it (:mod:`llmopt.heads.select`).

================ ======================= ==========================
setting          published               ``llmopt`` (default)
================ ======================= ==========================
dim D            512                     32
population       40                      16
restarts         1                       4
budget           2,000 contexts at 1 shot, 4,000 at 2 to 4, 8,000 above
w                0 to 1 by data set      0.1
================ ======================= ==========================

Queries: K soft-prompt encodings a candidate; the default spends one context more a generation, for
its mean, and one for the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Gt

from llmopt.heads import HEADS
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.evolution import Evolution, Restarts, cma_seed
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.schedules import check_budget, check_choice, steps_allowed
from llmopt.search.soft.machinery.scoring import cross_entropy, kl
from llmopt.search.soft.machinery.start import soft_start
from llmopt.search.soft.machinery.subspace import Subspace, orthonormal
from llmopt.search.soft.machinery.trail import trail_bounds
from llmopt.search.soft.machinery.walk import Walk, follow
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access


@dataclass(frozen=True)
class CraftSettings(Settings):
    """Settings of ``craft``.

    Attributes:
        budget: contexts scored to find the prompt; None is 2,000, 4,000 or 8,000 by shots.
        dim: D, dimensions that are searched.
        population: contexts a generation.
        restarts: searches from the start, each in a subspace of its own, that share the budget;
            fewer where it is too small for a generation of each.
        alpha: size of A z at the start, in standard deviations of the token embeddings.
        weight: w, of the pull towards the start's predictions.
        head: a head of :mod:`llmopt.heads` to try in the end.
        views: augmented views of each training image.
        standard_errors: how many a gain must exceed to be kept.
    """

    budget: int | None = None
    dim: Annotated[int, Ge(2)] = 32
    population: Annotated[int, Ge(4)] = 16
    restarts: Annotated[int, Ge(1)] = 4
    alpha: Annotated[float, Gt(0)] = 1.0
    weight: Annotated[float, Ge(0)] = 0.1
    head: str = "residual"
    views: Annotated[int, Ge(0)] = 0
    standard_errors: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("head", self.head, [n for n in HEADS.names() if n != "map"])
        check_budget(self.budget, self.population + 2)


class Craft(Optimizer[CraftSettings]):
    """Collaborative fine-tuning of a soft prompt and a head."""

    name = "craft"
    form = "llmopt"
    FORMS: ClassVar = {
        "llmopt": "llmopt.search.soft.craft:Craft",
        "released": "llmopt.search.soft.craft_published:CraftReleased",
        "paper": "llmopt.search.soft.craft_published:CraftPaper",
    }
    access = Access.SOFT
    Settings = CraftSettings
    HEADLESS: ClassVar = {"head": "none"}
    starts_at_template = True

    def bounds(self, task: Task) -> Spend:
        """Exact, unless a rule of CMA-ES ends the search early."""
        s = self.settings
        searches, generations = self._searches(task)
        steps = searches * generations
        return trail_bounds(task, s.views, steps + 1, steps * s.population, s.head)

    def run(self, search: Search) -> Outcome:
        """Evolve from the template, then fit the head; end with what is convincingly better."""
        s, task, box = self.settings, search.task, search.box
        start = soft_start(box, task.start, task.classnames)
        size = start.context.numel()
        dim = min(s.dim, size)
        searches, generations = self._searches(task)

        def make(fit: Encoded) -> Walk:
            text = box.text_features([task.start], task.classnames)[0]
            at_start = torch.from_numpy(box.logits(fit.features, text))

            def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                pull = s.weight * kl(at_start.to(scores.device), scores) if s.weight else 0.0
                return cross_entropy(scores, labels) + pull  # (5)

            def evolution(number: int) -> Evolution:
                rng = search.rng("craft", "projection", number)
                projection = orthonormal(rng, size, dim, box.embedding_std, 1.0, s.alpha)
                cma = CmaSearch(dim, 1.0, s.population, cma_seed(search, "craft", number))
                subspace = Subspace(start.context, projection)
                return Evolution(search, start.names, subspace, cma, fit, loss)

            return Restarts(evolution, searches, generations)

        return follow(
            search,
            start.names,
            make,
            searches * generations,
            views=s.views,
            standard_errors=s.standard_errors,
            head=s.head,
        )

    def _searches(self, task: Task) -> tuple[int, int]:
        """How many, and the generations of each."""
        s = self.settings
        generations = steps_allowed(s.budget, task.shots, s.population)
        searches = min(s.restarts, generations)
        return searches, generations // searches
