"""Gaussian discriminant analysis (Wang et al., ICLR 2024, "A hard-to-beat baseline").

Classes are taken as Gaussians with one covariance; Bayes' rule then is linear in the features::

    h_k(x) = w_k . x + b_k,   w_k = P mu_k,   b_k = -mu_k . P mu_k / 2                     (1)
    P = (S + rho tr(S) / (n - 1) I)^-1                                                     (2)

with S the covariance within classes of the n views. With rho = 1, (2) is the ridge estimate of an
inverse covariance of Kubokawa and Srivastava (2008), here without its constant factor d / (n - 1),
which ``alpha`` takes up; smaller rho trusts S more. The means mu_k count the class text as
``kappa`` images (:mod:`llmopt.heads.pseudo`; kappa = 0 in the paper). The scores are blended with
the zero-shot ones, as in the paper, but rho and the strength are chosen on left-out images instead
of a large validation set.

Leaving image i out is exact: its views leave S, the trace, the means and the centre. Keeping S
would let the metric know the very deviation it is asked to judge: where images are few for their
dimensions, such a leave-one-out finds random labels perfectly predictable. The inverse is updated
from one eigendecomposition: with W the scatter, U U' what image i contributes to it, and
D = (Lambda + ridge)^-1 in the eigenbasis of W,

    (W - U U' + ridge I)^-1 = D + D U (I - U' D U)^-1 U' D                                  (3)

Queries: none beyond the features of the views.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Ge

from llmopt.heads.base import Choices, Config, Head, Prior, Shots, Tensors, one_hot, unit_spread
from llmopt.heads.pseudo import ClassMeans, text_share
from llmopt.settings import Settings
from llmopt.task import FloatArray

Float64Array = npt.NDArray[np.float64]

# A trace below this, of unit vectors, is rounding: no two views of a class differ.
_NO_SPREAD = 1e-10


@dataclass(frozen=True)
class GDASettings(Settings):
    """Settings of GDA.

    Attributes:
        kappa: images that a class text counts for (0 in the paper, which has no leave-one-out).
        rhos: shrinkage of the covariance to choose from, as in equation (2) (1 in the paper).
    """

    kappa: Annotated[float, Ge(0)] = 0.3
    rhos: Choices = (1.0, 0.03, 0.1, 0.3, 3.0)


class GDA(Head[GDASettings]):
    """Gaussian discriminant analysis on image features."""

    name = "gda"
    prior = Prior(octaves=-1.5, growth=1.1)
    Settings = GDASettings
    recipe = (
        "# The head is linear in the image feature: the classes as Gaussians of one covariance.",
        "h = head.weights @ x + head.bias",
    )

    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """Equation (1) for each image under the fit without it, for each rho."""
        share = text_share(shots, self.settings.kappa)
        held_out = self._leave_one_out(shots, share)
        for rho, correction in zip(self.settings.rhos, held_out, strict=True):
            yield {"rho": rho, "share": share}, correction

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """The linear classifier of equation (1)."""
        mu = weights = _means(shots, config["share"]).all()
        deviations = _deviations(shots)
        rows = deviations.reshape(-1, deviations.shape[-1])
        ridge = _ridge(float((rows**2).sum()), len(rows))
        if ridge is not None:
            covariance = rows.T @ rows / (len(rows) - 1)
            ridge *= config["rho"]
            inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))  # (2)
            weights = np.asarray(mu @ inverse, dtype=np.float64)
        bias = -(weights * mu).sum(axis=1) / 2
        return {"weights": weights.astype(np.float32), "bias": bias.astype(np.float32)}

    @staticmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """``h`` of equation (1), (N, K)."""
        assert features is not None
        return np.asarray(features @ tensors["weights"].T + tensors["bias"], dtype=np.float32)

    def unit(self, correction: FloatArray, temperature: float) -> float:
        """A spread over the classes of one nat: (2) leaves out the factor that would say it."""
        return temperature * unit_spread(correction)

    def _leave_one_out(self, shots: Shots, share: float) -> FloatArray:
        """(R, N, K), one row a rho."""
        deviations = _deviations(shots)
        n, views, width = deviations.shape
        rows = deviations.reshape(-1, width)
        total = float((rows**2).sum())
        eigenvalues, basis = np.linalg.eigh(rows.T @ rows)
        eigenvalues = np.maximum(eigenvalues, 0.0)

        means = _means(shots, share, basis)
        plain = shots.embedded()[0][:, 0] @ basis
        deviations = deviations @ basis
        left = (n - 1) * views
        rhos = np.asarray(self.settings.rhos)[:, None]
        held_out = np.empty((len(rhos), n, shots.classes), dtype=np.float32)
        for i, label in enumerate(shots.labels):
            mu, x = means.without(i), plain[i]
            # The views leave, and as the mean of their class moves, the others come nearer to it.
            others = means.counts[label] - 1
            pull = np.sqrt(views / others) if others else 0.0
            u = np.vstack([deviations[i], pull * deviations[i].mean(axis=0)])
            ridge = _ridge(total - float((u**2).sum()), left)
            d = np.ones((len(rhos), width))
            if ridge is None:
                u = u[:0]
            else:
                u /= np.sqrt(left - 1)
                d /= eigenvalues / (left - 1) + rhos * ridge
            # (3) between the means, and between the means and x, without the weights themselves.
            du = u * d[:, None]
            inner = np.linalg.inv(np.eye(len(u)) - du @ u.T)
            across = mu @ du.swapaxes(1, 2)
            mixed = across @ inner
            linear = (d * x) @ mu.T + (mixed @ (du @ x)[:, :, None])[:, :, 0]
            squares = d @ (mu**2).T + (mixed * across).sum(axis=2)
            held_out[:, i] = linear - squares / 2  # (1)
        return held_out


def _means(shots: Shots, share: float, basis: Float64Array | None = None) -> ClassMeans:
    features, text = shots.embedded()
    images, texts = features.mean(axis=1, dtype=np.float64), text.astype(np.float64)
    if basis is not None:
        return ClassMeans(images @ basis, shots.labels, texts @ basis, share)
    return ClassMeans(images, shots.labels, texts, share)


def _deviations(shots: Shots) -> Float64Array:
    """(N, V, d) deviations of the views from the mean of their class."""
    features, _ = shots.embedded()
    x = features.astype(np.float64)
    member = one_hot(shots.labels, shots.classes).astype(np.float64)
    own = (member.T @ x.mean(axis=1)) / np.maximum(member.sum(axis=0), 1)[:, None]
    deviations: Float64Array = x - own[shots.labels][:, None]
    return deviations


def _ridge(scatter: float, views: int) -> float | None:
    """``tr(S) / (n - 1)`` of equation (2), or None where nothing varies within classes."""
    if views < 2 or scatter <= _NO_SPREAD * views:
        return None
    return scatter / (views - 1) ** 2
