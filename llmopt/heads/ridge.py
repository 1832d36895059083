"""Ridge regression on what the scores leave unsaid: logistic regression's first step from the text.

Where a logistic classifier with weights at the text embeddings stands, its loss falls fastest along
the residuals ``r = y - softmax(s / T)`` of each image. The head is the ridge regression of those
residuals on the features::

    h(x) = [x, 1] B,   B = argmin sum_i (1/V) sum_v |r_iv - [x_iv, 1] B|^2 + lambda |B|^2    (1)

so it is penalised towards the text weights (``B = 0`` is zero-shot), and a class without an image
stays about where the text puts it, at 1 shot too. ``T`` is the likeliest temperature of the base
scores.

Leaving image i out, all its views together, is exact and needs no refit. With ``H`` the hat matrix
and ``e = r - H r``, the residual of its views under the fit without them is

    e_without = (I - H_ii)^-1 e_i                                                           (2)

the block form of ``(e_i / (1 - h_ii))``.

Queries: none beyond the features of the views.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmopt.heads.base import Choices, Config, Head, Prior, Shots, Tensors, one_hot, temperature
from llmopt.settings import Settings
from llmopt.task import FloatArray

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RidgeSettings(Settings):
    """Settings of the ridge.

    Attributes:
        penalties: lambda of equation (1) to choose from, a training image each.
    """

    penalties: Choices = (0.003, 0.001, 0.01, 0.03, 0.1, 0.3, 1.0)


class Ridge(Head[RidgeSettings]):
    """Ridge regression of the base scores' residuals on image features."""

    name = "ridge"
    prior = Prior(octaves=0.2, growth=0.7, odds=-1.0, fading=1.5)
    Settings = RidgeSettings
    recipe = (
        "# The head is linear in the image feature: a ridge regression of what s leaves unsaid.",
        "h = head.weights @ x + head.bias",
    )

    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """Equation (1) for each image under the fit without it, for each penalty."""
        fitted = temperature(shots.plain, shots.labels)
        design, residuals = _problem(shots, fitted)
        n, views, width = design.shape
        rows, targets = design.reshape(-1, width), residuals.reshape(n * views, -1)
        eigenvalues, basis = np.linalg.eigh(rows.T @ rows)
        turned = rows @ basis
        moments = turned.T @ targets
        blocks = turned.reshape(n, views, width)
        for penalty in self.settings.penalties:
            absolute = penalty * n
            shrunk = blocks / (np.maximum(eigenvalues, 0.0) + absolute)
            errors = residuals - shrunk @ moments
            hat = shrunk @ blocks.swapaxes(1, 2)
            left_out = np.linalg.solve(np.eye(views) - hat, errors)  # (2)
            # Rows carry 1/sqrt(V) each; the plain view's prediction must not.
            correction = (residuals - left_out)[:, 0] * np.sqrt(views)
            yield (
                {"penalty": absolute, "temperature": fitted},
                correction.astype(np.float32),
            )

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """``B`` of equation (1)."""
        design, residuals = _problem(shots, config["temperature"])
        rows = design.reshape(-1, design.shape[-1])
        targets = residuals.reshape(len(rows), -1)
        gram = rows.T @ rows + config["penalty"] * np.eye(rows.shape[1])
        solution = np.linalg.solve(gram, rows.T @ targets).astype(np.float32)
        return {"weights": solution[:-1].T.copy(), "bias": solution[-1].copy()}

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """``h`` of equation (1), (N, K)."""
        assert features is not None
        return np.asarray(features @ tensors["weights"].T + tensors["bias"], dtype=np.float32)


def _problem(shots: Shots, temperature: float) -> tuple[Float64Array, Float64Array]:
    """Design (N, V, d + 1) and residuals (N, V, K), a row a view with weight 1/V."""
    features, _ = shots.embedded()
    n, views, _ = features.shape
    design = np.concatenate([features, np.ones((n, views, 1))], axis=2, dtype=np.float64)
    odds = np.exp((shots.base - shots.base.max(axis=-1, keepdims=True)) / np.float64(temperature))
    probabilities = odds / odds.sum(axis=-1, keepdims=True)
    residuals = one_hot(shots.labels, shots.classes)[:, None] - probabilities
    weight = 1 / np.sqrt(views)
    return design * weight, residuals * weight
