"""BBT as released (Sun et al., ICML 2022), on CLIP: the best candidate on the validation images.

Access: ``soft``. Equations (1) and (2) are those of :mod:`llmopt.search.soft.bbt`. The context
starts at "a photo of a", A is Gaussian with D = 500, a generation has 20 candidates. Every 100
evaluations the candidate of the lowest training loss so far is tried on the validation images; the
result is the one that was best there, the earlier of two that tie, or the last one where there are
no such images.

The paper's validation set is as large as its training set; here it is the task's.

Queries: K soft-prompt encodings a candidate; those for the validation images are not counted by the
paper, which counts a candidate on all images as one call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt

from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.bbt import LOSSES, Bbt
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.evolution import Evolution, cma_seed
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.schedules import check_budget
from llmopt.search.soft.machinery.scoring import score
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import words_start
from llmopt.search.soft.machinery.subspace import Subspace, bbt_std, gaussian
from llmopt.search.soft.machinery.walk import march
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access

LOOK_EVERY: Final = 100
"""Evaluations between looks at the validation images."""


@dataclass(frozen=True)
class BbtReleasedSettings(Settings):
    """Settings of ``bbt`` with ``profile=released``; the defaults are those of the released code.

    Attributes:
        budget: contexts scored; None is 8,000.
        dim: D.
        population: candidates a generation.
        sigma: step size at the start.
        alpha: size of A z at the start, in standard deviations of the token embeddings.
        loss: ``ce`` (cross-entropy) or ``hinge``.
    """

    budget: int | None = None
    dim: Annotated[int, Ge(2)] = 500
    population: Annotated[int, Ge(4)] = 20
    sigma: Annotated[float, Gt(0)] = 1.0
    alpha: Annotated[float, Gt(0)] = 1.0
    loss: Literal["ce", "hinge"] = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.budget, self.population)


class Looking(Evolution):
    """An evolution whose best candidate is tried on the validation images from time to time."""

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
            found = float((scores.argmax(-1) == self.val.labels).float().mean())
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


class BbtReleased(Optimizer[BbtReleasedSettings]):
    """Black-box tuning of the prompt alone, as released."""

    name = Bbt.name
    form = "released"
    FORMS = Bbt.FORMS
    access = Access.SOFT
    Settings = BbtReleasedSettings

    def bounds(self, task: Task) -> Spend:
        """Exact, unless a rule of CMA-ES ends the search early."""
        s, steps = self.settings, self._steps()
        classes, images, val = len(task.classnames), len(task.train), len(task.val)
        candidates = steps * s.population
        looks = steps // (LOOK_EVERY // s.population or 1) if val else 0
        return Spend(
            image_encodings=images + val,
            soft_prompt_encodings=(candidates + looks) * classes,
            pairs_scored=(candidates * images + looks * val) * classes,
        )

    def run(self, search: Search) -> Outcome:
        """Evolve from "a photo of a"; end with the best candidate on the validation images."""
        s, task, box = self.settings, search.task, search.box
        start = words_start(box, "a photo of a", task.classnames)
        std = bbt_std(box.embedding_std, s.dim, s.sigma, s.alpha)
        rng = search.rng("bbt", "projection")
        subspace = Subspace(start.context, gaussian(rng, start.context.numel(), s.dim, std))
        cma = CmaSearch(s.dim, s.sigma, s.population, cma_seed(search, "bbt"))
        fit = Encoded.of(box, task.train)
        walk = Looking(search, start.names, subspace, cma, fit, LOSSES[s.loss])
        reason = march(search, walk, self._steps())
        if walk.kept_accuracy < 0:  # it ended before the first look
            walk.kept = walk.best_z
        calls = {"calls_as_published": walk.cma.generation * s.population}
        context = subspace.contexts(walk.kept).numpy()
        return Outcome(SoftPredictor(context, start.names), reason, summary=calls)

    def _steps(self) -> int:
        return (self.settings.budget or 8000) // self.settings.population
