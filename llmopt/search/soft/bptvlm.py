"""BPT-VLM (Yu et al., "Black-box Prompt Tuning for Vision-Language Model as a Service", IJCAI
2023), the part that prompts the text tower.

Access: ``soft``. (Its visual prompts need soft vectors in the image tower, which no black box here
takes, and every image encoded again for each candidate.) The context has no words of its own,

    ``P = reshape(A z, (m, e))``,   A_ij ~ N(0, (std_emb / (sqrt(D) sigma))^2),              (1)

and z minimises the cross-entropy of all training images by CMA-ES.

=============== ========================================== =====================================
setting         ``released``                               ``llmopt`` (default)
=============== ========================================== =====================================
start           8 zero vectors                             the words of the start template
dim D           500                                        the same
population      30                                         the same
sigma           1                                          the same
budget          36,000 (DTD), 25,200 (UCF101, EuroSAT,     CraFT's, by shots
                Cars), 18,000 (SUN397), 14,400 (ImageNet),
                3,600 elsewhere
result          the lowest training loss ever seen         the mean of the distribution, chosen
                                                           on the validation images, or the
                                                           start template
=============== ========================================== =====================================

Queries: K soft-prompt encodings a candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import torch

from llmopt.search.base import Bounds, Optimizer, Outcome, Search
from llmopt.search.soft.machinery.checks import check_range
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.evolution import Evolution, cma_seed
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.schedules import steps_allowed
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import SoftStart, plain_names, soft_start
from llmopt.search.soft.machinery.subspace import Subspace, bbt_std, gaussian
from llmopt.search.soft.machinery.trail import bounds as trail_bounds
from llmopt.search.soft.machinery.walk import follow, march
from llmopt.task import Task
from llmopt.vision.base import Access

_BUDGETS: Final = {
    "dtd": 36_000,
    "ucf101": 25_200,
    "eurosat": 25_200,
    "stanford_cars": 25_200,
    "sun397": 18_000,
    "imagenet": 14_400,
}


@dataclass(frozen=True)
class BptVlmSettings:
    """Settings of ``bptvlm``; the table above has their values in the profile ``released``.

    Attributes:
        profile: ``llmopt`` or ``released``.
        budget: contexts scored; None is by shots (``llmopt``) or by data set (``released``).
        tokens: m (``released``).
        dim: D.
        population: candidates a generation.
        sigma: step size at the start.
        views: augmented views of each training image (``llmopt``).
        standard_errors: how many a gain over the start must exceed to be kept (``llmopt``).
    """

    profile: str = "llmopt"
    budget: int | None = None
    tokens: int = 8
    dim: int = 500
    population: int = 30
    sigma: float = 1.0
    views: int = 0
    standard_errors: float = 1.0

    def __post_init__(self) -> None:
        check_range("tokens", self.tokens, 1, 64)
        check_range("dim", self.dim, 2)
        check_range("population", self.population, 4)
        check_range("sigma", self.sigma, 1e-9)
        check_range("views", self.views, 0)
        check_range("standard_errors", self.standard_errors, 0)
        if self.budget is not None:
            own = self.profile == "llmopt"
            check_range("budget", self.budget, self.population + 2 * own)


class BptVlm(Optimizer[BptVlmSettings]):
    """Black-box tuning of text prompts for vision-language models."""

    name = "bptvlm"
    access = Access.SOFT
    Settings = BptVlmSettings
    PROFILES: ClassVar[Any] = {"llmopt": {}, "released": {}}
    ONLY: ClassVar = {
        "tokens": frozenset({"released"}),
        **dict.fromkeys(("views", "standard_errors"), frozenset({"llmopt"})),
    }

    def bounds(self, task: Task) -> Bounds:
        """Exact, unless a rule of CMA-ES ends the search early."""
        s, steps = self.settings, self._steps(task)
        candidates = steps * s.population
        if s.profile == "llmopt":
            return trail_bounds(task, s.views, steps + 1, candidates)
        classes, images = len(task.classnames), len(task.train)
        return Bounds(images, 0, candidates * classes, candidates * classes * images)

    def run(self, search: Search) -> Outcome:
        """Run the profile's algorithm."""
        s, task, box = self.settings, search.task, search.box
        cma = CmaSearch(s.dim, s.sigma, s.population, cma_seed(search, "bptvlm"))
        if s.profile == "llmopt":
            start = soft_start(box, task.start, task.classnames)
            subspace = self._subspace(search, start)
            return follow(
                search,
                start.names,
                lambda fit: Evolution(search, start.names, subspace, cma, fit),
                self._steps(task),
                views=s.views,
                standard_errors=s.standard_errors,
            )
        width = box.embed_text("a").shape[1]
        start = SoftStart(torch.zeros(s.tokens, width), plain_names(task.classnames))
        subspace = self._subspace(search, start)
        walk = Evolution(search, start.names, subspace, cma, Encoded.of(box, task.train))
        reason = march(search, walk, self._steps(task))
        calls = {"calls_as_published": cma.generation * s.population}
        predictor = SoftPredictor(walk.best_context.numpy(), start.names)
        return Outcome(predictor, reason, summary=calls)

    def _subspace(self, search: Search, start: SoftStart) -> Subspace:
        s = self.settings
        std = bbt_std(search.box.embedding_std, s.dim, s.sigma)
        rng = search.rng("bptvlm", "projection")
        return Subspace(start.context, gaussian(rng, start.context.numel(), s.dim, std))

    def _steps(self, task: Task) -> int:
        s = self.settings
        if s.profile == "released":
            return (s.budget or _BUDGETS.get(task.dataset, 3_600)) // s.population
        return steps_allowed(s.budget, task.shots, s.population)
