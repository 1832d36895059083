"""CMA-ES over soft prompts: what BBT, BPT-VLM and CraFT's prompt phase have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from llmopt.search.base import Search
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.scoring import cross_entropy, double, score
from llmopt.search.soft.machinery.subspace import Subspace
from llmopt.search.soft.machinery.walk import Walk
from llmopt.stats import settled

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Of (B, N, K) scores and (N,) labels: (B,)."""


class Evolution(Walk):
    """A generation a step; it stands at the mean of the distribution.

    Args:
        search: task and black box.
        names: what follows the context.
        subspace: where the candidates lie.
        cma: the search in it.
        fit: the images.
        loss: of a candidate's scores of them.

    Attributes:
        best: lowest loss of a candidate so far.
        best_z: its coordinates.
        z: (population, D) coordinates of the last generation.
    """

    def __init__(
        self,
        search: Search,
        names: tuple[str, ...],
        subspace: Subspace,
        cma: CmaSearch,
        fit: Encoded,
        loss: Loss = cross_entropy,
    ) -> None:
        self.search, self.names, self.subspace = search, names, subspace
        self.cma, self.fit, self.loss = cma, fit, loss
        self.cost = cma.population
        self.best, self.best_z = math.inf, np.zeros(subspace.dim)
        self.z = np.zeros((0, subspace.dim))

    @property
    def context(self) -> torch.Tensor:
        """At the distribution's mean, which averages out the luck of single candidates."""
        return self.subspace.contexts(self.cma.mean)

    @property
    def best_context(self) -> torch.Tensor:
        """At the best candidate ever."""
        return self.subspace.contexts(self.best_z)

    @property
    def stopped(self) -> str:
        """A tolerance rule of CMA-ES, when it fires."""
        return f"CMA-ES: {self.cma.stopped}" if self.cma.stopped else ""

    @property
    def figures(self) -> Mapping[str, float]:
        """Step size and lowest loss."""
        return {"sigma": self.cma.sigma, "lowest_loss": self.best}

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One generation."""
        self.z = z = self.cma.ask()
        losses = score(
            self.search.box,
            self.fit,
            self.subspace.contexts(z),
            self.names,
            lambda candidates: self.loss(candidates, self.fit.labels),
        )
        fitness = settled(losses.numpy())
        self.cma.tell(fitness)
        if fitness.min() < self.best:
            self.best, self.best_z = float(fitness.min()), z[fitness.argmin()]
        return float(losses.mean())

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The distribution and the best candidate."""
        return {**self.cma.state(), "best": np.array([self.best]), "best_z": self.best_z}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        self.cma.replay(state)
        self.best, self.best_z = float(state["best"][0]), state["best_z"]


class Restarts(Walk):
    """Several evolutions one after the other.

    With few images most contexts that fit them are wrong elsewhere, and where an evolution ends is
    a matter of the subspace it was given. Several short ones, each in another, leave more to choose
    from than a long one.

    Args:
        make: the evolution of that number.
        count: how many.
        generations: of each, unless CMA-ES ends one early; the last may have what is left.
    """

    def __init__(self, make: Callable[[int], Evolution], count: int, generations: int) -> None:
        self.make, self.count, self.generations = make, count, generations
        self.number, self.now = 0, make(0)
        self.cost = self.now.cost

    @property
    def context(self) -> torch.Tensor:
        """(m, e) context of the evolution in progress."""
        return self.now.context

    @property
    def figures(self) -> Mapping[str, float]:
        """Those of the evolution in progress."""
        return {"restart": self.number + 1, **self.now.figures}

    @property
    def stopped(self) -> str:
        """Why the last evolution ended early, if it did."""
        return self.now.stopped if self.number + 1 == self.count else ""

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One generation, the first of the next evolution when it is its turn."""
        done = self.now.cma.generation >= self.generations or self.now.stopped
        if done and self.number + 1 < self.count:
            self.number += 1
            self.now = self.make(self.number)
        return self.now.advance(step)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """That of the evolution in progress; those before it are done."""
        return {"restart": np.array([self.number]), **self.now.state()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        self.number = int(state["restart"][0])
        self.now = self.make(self.number)
        self.now.restore(state)


def hinge(scores: torch.Tensor, labels: torch.Tensor, margin: float = 2.0) -> torch.Tensor:
    """Mean shortfall of the true class behind the best other one plus a margin: (B,)."""
    index = labels.to(scores.device).expand(scores.shape[:-1])[..., None]
    scores = double(scores)
    true = scores.gather(-1, index)
    others = scores.scatter(-1, index, -math.inf).amax(dim=-1, keepdim=True)
    return (margin + others - true).clamp(min=0).mean(dim=(-1, -2))


def cma_seed(search: Search, name: str, number: int = 0) -> int:
    """The seed of an optimizer's CMA-ES, of a number where it has several."""
    return int(search.rng(name, "cma", number).integers(2**31))
