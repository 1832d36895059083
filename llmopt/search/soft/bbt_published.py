"""BBT as released (Sun et al., ICML 2022), on CLIP: the best candidate on the validation images.

Access: ``soft``. Equations (1) and (2) are those of :mod:`llmopt.search.soft.bbt`. The context
starts at "a photo of a", A is Gaussian with D = 500, a generation has 20 candidates. Every 100
evaluations the candidate just scored is tried on the validation images; the result is the one that
was best there, the earlier of two that tie. Before the first look, and without such images, it is
the candidate of the lowest training loss.

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
from llmopt.search.soft.bbt import Bbt
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.evolution import Evolution, Loss, cma_seed
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.schedules import check_budget
from llmopt.search.soft.machinery.scoring import cross_entropy, double, score
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
        dim: D, dimensions that are searched.
        population: candidates a generation.
        sigma: step size at the start.
        alpha: size of A z at the start, in standard deviations of the token embeddings.
        loss: ``ce`` (cross-entropy) or ``hinge`` (over all other classes, not the best of them).
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


def hinge_over_all(scores: torch.Tensor, labels: torch.Tensor, margin: float = 2.0) -> torch.Tensor:
    """Mean over images of the true class's shortfalls behind each other one and a margin: (B,)."""
    index = labels.to(scores.device).expand(scores.shape[:-1])[..., None]
    scores = double(scores)
    short = (margin + scores - scores.gather(-1, index)).clamp(min=0).scatter(-1, index, 0.0)
    return short.sum(dim=-1).mean(dim=-1)


_LOSSES: Final[dict[str, Loss]] = {"ce": cross_entropy, "hinge": hinge_over_all}


class Looking(Evolution):
    """An evolution that tries the candidate just scored on the validation images now and then."""

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        val = self.search.task.val
        self.val = Encoded.of(self.search.box, val) if len(val) else None
        self.looked, self.accuracy = self.best_z, -1.0

    @property
    def result(self) -> npt.NDArray[np.float64]:
        """Coordinates of the best on the validation images, or else of the lowest loss."""
        return self.looked if self.accuracy >= 0 else self.best_z

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """A generation, and the looks that fall into it."""
        loss = super().advance(step)
        scored = step * self.cost
        for place in range(self.cost):
            if self.val and (scored + place + 1) % LOOK_EVERY == 0:
                self._look(self.val, self.z[place])
        return loss

    def _look(self, val: Encoded, z: npt.NDArray[np.float64]) -> None:
        context = self.subspace.contexts(z)[None]
        scores = score(self.search.box, val, context, self.names)[0]
        found = float((scores.argmax(-1) == val.labels).float().mean())
        if found > self.accuracy:
            self.looked, self.accuracy = z, found

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """With the best that was looked at."""
        looked = {"looked": self.looked, "accuracy": np.array([self.accuracy])}
        return {**super().state(), **looked}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        super().restore(state)
        self.looked, self.accuracy = state["looked"], float(state["accuracy"][0])


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
        looks = candidates // LOOK_EVERY if val else 0
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
        walk = Looking(search, start.names, subspace, cma, fit, _LOSSES[s.loss])
        reason = march(search, walk, self._steps())
        calls = {"calls_as_published": walk.cma.generation * s.population}
        context = subspace.contexts(walk.result).numpy()
        return Outcome(SoftPredictor(context, start.names), reason, summary=calls)

    def _steps(self) -> int:
        return (self.settings.budget or 8000) // self.settings.population
