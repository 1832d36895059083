"""BBT (Sun et al., "Black-Box Tuning for Language-Model-as-a-Service", ICML 2022), on CLIP, from
the user's template and in a small subspace.

Access: ``soft``. The context is a point of a random subspace,

    ``p = p0 + reshape(A z, (m, e))``,   z in R^D,                                           (1)

that minimises the loss of the few shots by CMA-ES. The entries of A are N(0, std^2) with

    ``std = alpha * std_emb / (sqrt(D) * sigma)``,                                           (2)

so that ``A z`` starts at the scale of word embeddings.

The default differs from the published algorithm (:mod:`llmopt.search.soft.bbt_published`) in:

================== ================================= ===========================================
setting            ``released``                      ``llmopt`` (default)
================== ================================= ===========================================
p0                 "a photo of a"                    the words of the start template
A                  Gaussian                          orthogonal columns, same scale
dim D              500                               32
population         20                                16
budget             8,000                             CraFT's, by shots
images             as they are                       the same, and views of them if asked for
result             best on the validation images,    the mean of the distribution, chosen on the
                   looked at every 100 evaluations,  validation images, or the start template
                   of the best training losses
================== ================================= ===========================================

What CraFT's tables call BBT is another search: CraFT's released one without its head
(``--optimizer craft --set profile=released --set head=none``).

Queries: K soft-prompt encodings a candidate, and one context more a generation, for its mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from annotated_types import Ge, Gt

from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.evolution import Evolution, Loss, cma_seed, hinge
from llmopt.search.soft.machinery.schedules import check_budget, steps_allowed
from llmopt.search.soft.machinery.scoring import cross_entropy
from llmopt.search.soft.machinery.start import soft_start
from llmopt.search.soft.machinery.subspace import Subspace, orthonormal
from llmopt.search.soft.machinery.trail import trail_bounds
from llmopt.search.soft.machinery.walk import follow
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access

LOSSES: Final[dict[str, Loss]] = {"ce": cross_entropy, "hinge": hinge}


@dataclass(frozen=True)
class BbtSettings(Settings):
    """Settings of ``bbt``.

    Attributes:
        budget: contexts scored; None is 2,000 at 1 shot, 4,000 at 2 to 4, 8,000 above.
        dim: D, dimensions that are searched.
        population: candidates a generation.
        sigma: step size at the start.
        alpha: size of A z at the start, in standard deviations of the token embeddings.
        loss: ``ce`` (cross-entropy) or ``hinge``.
        views: augmented views of each training image.
        standard_errors: how many a gain over the start must exceed to be kept.
    """

    budget: int | None = None
    dim: Annotated[int, Ge(2)] = 32
    population: Annotated[int, Ge(4)] = 16
    sigma: Annotated[float, Gt(0)] = 1.0
    alpha: Annotated[float, Gt(0)] = 1.0
    loss: Literal["ce", "hinge"] = "ce"
    views: Annotated[int, Ge(0)] = 0
    standard_errors: Annotated[float, Ge(0)] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.budget, self.population + 2)


class Bbt(Optimizer[BbtSettings]):
    """Black-box tuning of the prompt alone."""

    name = "bbt"
    form = "llmopt"
    FORMS: ClassVar = {
        "llmopt": "llmopt.search.soft.bbt:Bbt",
        "released": "llmopt.search.soft.bbt_published:BbtReleased",
    }
    access = Access.SOFT
    Settings = BbtSettings
    starts_at_template = True

    def bounds(self, task: Task) -> Spend:
        """Exact, unless a rule of CMA-ES ends the search early."""
        s, steps = self.settings, self._steps(task)
        return trail_bounds(task, s.views, steps + 1, steps * s.population)

    def run(self, search: Search) -> Outcome:
        """Evolve from the template; end with the likeliest waypoint or the template itself."""
        s, task, box = self.settings, search.task, search.box
        start = soft_start(box, task.start, task.classnames)
        size = start.context.numel()
        dim = min(s.dim, size)
        rng = search.rng("bbt", "projection")
        subspace = Subspace(
            start.context, orthonormal(rng, size, dim, box.embedding_std, s.sigma, s.alpha)
        )
        cma = CmaSearch(dim, s.sigma, s.population, cma_seed(search, "bbt"))
        return follow(
            search,
            start.names,
            lambda fit: Evolution(search, start.names, subspace, cma, fit, LOSSES[s.loss]),
            self._steps(task),
            views=s.views,
            standard_errors=s.standard_errors,
        )

    def _steps(self, task: Task) -> int:
        return steps_allowed(self.settings.budget, task.shots, self.settings.population)
