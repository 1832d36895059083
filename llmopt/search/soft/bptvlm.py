"""BPT-VLM (Yu et al., "Black-box Prompt Tuning for Vision-Language Model as a Service", IJCAI
2023), the part that prompts the text tower, from the user's template.

Access: ``soft``. (Its visual prompts need soft vectors in the image tower, which no black box here
takes, and every image encoded again for each candidate.) As published the context has no words of
its own; here it begins at p0, the words of the start template,

    ``P = p0 + reshape(A z, (m, e))``,   A_ij ~ N(0, (std_emb / (sqrt(D) sigma))^2),         (1)

and z minimises the cross-entropy of all training images by CMA-ES.

The default differs from the published algorithm (:mod:`llmopt.search.soft.bptvlm_published`) in:

=============== ========================================== =====================================
setting         ``released``                               ``llmopt`` (default)
=============== ========================================== =====================================
start p0        8 zero vectors                             the words of the start template
budget          36,000 (DTD), 25,200 (UCF101, EuroSAT,     CraFT's, by shots
                Cars), 18,000 (SUN397), 14,400 (ImageNet),
                3,600 elsewhere
result          the lowest training loss ever seen         the mean of the distribution, chosen
                                                           on the validation images, or the
                                                           start template
=============== ========================================== =====================================

Queries: K soft-prompt encodings a candidate, and one context more a generation, for its mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.evolution import Evolution, cma_seed
from llmopt.search.soft.machinery.schedules import check_budget, steps_allowed
from llmopt.search.soft.machinery.start import SoftStart, soft_start
from llmopt.search.soft.machinery.subspace import Subspace, bbt_std, gaussian
from llmopt.search.soft.machinery.trail import trail_bounds
from llmopt.search.soft.machinery.walk import follow
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access


@dataclass(frozen=True)
class CmaSettings(Settings):
    """Settings of the search, in either form.

    Attributes:
        budget: contexts scored.
        dim: D, dimensions that are searched.
        population: candidates a generation.
        sigma: step size at the start.
    """

    budget: int | None = None
    dim: Annotated[int, Ge(2)] = 500
    population: Annotated[int, Ge(4)] = 30
    sigma: Annotated[float, Gt(0)] = 1.0

    def evolution(self, search: Search, start: SoftStart) -> tuple[Subspace, CmaSearch]:
        """The subspace (1) around a start, and the search in it."""
        std = bbt_std(search.box.embedding_std, self.dim, self.sigma)
        projection = gaussian(
            search.rng("bptvlm", "projection"), start.context.numel(), self.dim, std
        )
        cma = CmaSearch(self.dim, self.sigma, self.population, cma_seed(search, "bptvlm"))
        return Subspace(start.context, projection), cma


@dataclass(frozen=True)
class BptVlmSettings(CmaSettings):
    """Settings of ``bptvlm``.

    Attributes:
        budget: contexts scored; None is 2,000 at 1 shot, 4,000 at 2 to 4, 8,000 above.
        views: augmented views of each training image.
        standard_errors: how many a gain over the start must exceed to be kept.
    """

    views: Annotated[int, Ge(0)] = 0
    standard_errors: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.budget, self.population + 2)


class BptVlm(Optimizer[BptVlmSettings]):
    """Black-box tuning of text prompts for vision-language models."""

    name = "bptvlm"
    form = "llmopt"
    FORMS: ClassVar = {
        "llmopt": "llmopt.search.soft.bptvlm:BptVlm",
        "released": "llmopt.search.soft.bptvlm_published:BptVlmReleased",
    }
    access = Access.SOFT
    Settings = BptVlmSettings
    starts_at_template = True

    def bounds(self, task: Task) -> Spend:
        """Exact, unless a rule of CMA-ES ends the search early."""
        s, steps = self.settings, self._steps(task)
        return trail_bounds(task, s.views, steps + 1, steps * s.population)

    def run(self, search: Search) -> Outcome:
        """Evolve from the template; end with the likeliest waypoint or the template itself."""
        s, task = self.settings, search.task
        start = soft_start(search.box, task.start, task.classnames)
        subspace, cma = s.evolution(search, start)
        return follow(
            search,
            start.names,
            lambda fit: Evolution(search, start.names, subspace, cma, fit),
            self._steps(task),
            views=s.views,
            standard_errors=s.standard_errors,
        )

    def _steps(self, task: Task) -> int:
        return steps_allowed(self.settings.budget, task.shots, self.settings.population)
