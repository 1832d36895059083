"""CMA-ES by ask and tell, with a state of plain arrays.

The arithmetic is pycma's (``cma``): the implementation by the method's author and the one the
published prompt searches ran. It decomposes the covariance only when enough of it has changed and
draws a population in one product, so that at dimension 512 a generation of 40 takes tens of
milliseconds; ``cmaes``, smaller and otherwise as good, takes seconds there. It also names its mean,
step size and stop rules in public.

pycma keeps no state but a pickle. What it did is decided by its seed and by the fitness it was
told, so those are kept instead, and a restored search repeats the arithmetic (not the evaluations).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class CmaSearch:
    """Minimise a function of D numbers.

    Args:
        dim: D.
        sigma: initial step size; the initial mean is 0.
        population: candidates a generation (lambda).
        seed: of all draws.
        bound: keep every coordinate within ``[-bound, bound]``; 0 is no bound.
    """

    def __init__(
        self, dim: int, sigma: float, population: int, seed: int, *, bound: float = 0.0
    ) -> None:
        # pycma would otherwise seed and use NumPy's global generator.
        self._random = np.random.RandomState(seed)
        options: dict[str, Any] = {
            "randn": self._random.randn,
            "seed": np.nan,
            "verbose": -9,
            "popsize": population,
            # Where pycma defaults to two-point adaptation it does not allow a second ask().
            "AdaptSigma": _pycma().sigma_adaptation.CMAAdaptSigmaCSA,
            "CMA_eigenmethod": _eigh,
        }
        if bound:
            options["bounds"] = [-bound, bound]
        self._cma = _pycma().CMAEvolutionStrategy(np.zeros(dim), sigma, options)
        self._asked: list[Array] = []
        self._told: list[Array] = []
        self._drawn: list[int] = []

    @property
    def population(self) -> int:
        """Candidates a generation."""
        return int(self._cma.popsize)

    @property
    def generation(self) -> int:
        """Generations told."""
        return len(self._told)

    @property
    def sigma(self) -> float:
        """Step size."""
        return float(self._cma.sigma)

    @property
    def mean(self) -> Array:
        """(D,) mean of the distribution, within the bound."""
        return np.asarray(self._cma.result.xfavorite, dtype=np.float64)

    @property
    def stopped(self) -> str:
        """Which of pycma's tolerance rules ended the search; empty while it may go on."""
        return ", ".join(self._cma.stop())

    def ask(self) -> Array:
        """(population, D) candidates, to be told about next."""
        self._asked = self._cma.ask()
        return np.stack(self._asked)

    def tell(self, fitness: npt.ArrayLike) -> None:
        """Learn from the (population,) values of the candidates asked last; lower is better."""
        values = np.asarray(fitness, dtype=np.float64)
        self._cma.tell(self._asked, values.tolist())
        self._told.append(values)
        self._drawn.append(0)

    def draw(self) -> Array:
        """(population, D) more draws from the distribution as it is, not to be told about."""
        self._drawn[-1] += 1
        return np.stack(self._cma.ask())

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """What :meth:`replay` needs."""
        return {
            "cma.told": np.asarray(self._told, dtype=np.float64).reshape(-1, self.population),
            "cma.drawn": np.asarray(self._drawn, dtype=np.int64),
        }

    def replay(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Take a fresh search, made with the same arguments, to where ``state`` was kept."""
        for fitness, draws in zip(state["cma.told"], state["cma.drawn"], strict=True):
            self.ask()
            self.tell(fitness)
            for _ in range(draws):
                self.draw()


def _eigh(matrix: Array) -> tuple[Array, Array]:
    """Eigenvalues and eigenvectors, (D,) and (D, D), each vector with a positive sum.

    pycma draws along the eigenvectors, and which of its two signs each comes with is a matter of
    the processor: the same seed would draw other candidates elsewhere.
    """
    values, vectors = np.linalg.eigh(matrix)
    return values, vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)


def _pycma() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it could plot, had it matplotlib
        import cma
    return cma
