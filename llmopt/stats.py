"""Statistics of small samples: intervals, paired tests, shrinkage.

Everything is a function of arrays. Random methods take a generator. Accuracies are fractions,
intervals hold 95 % unless told otherwise, and every function accepts the samples that few shots
give: all ties, no errors at all, a single value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

DECIMALS = 5
"""Of a mean log-likelihood in nats that hold whatever the processor."""


class PairedGain(NamedTuple):
    """How much better one classifier is than another on the same images.

    Attributes:
        difference: accuracy of the first minus accuracy of the second.
        ci95: Bonett and Price's interval of that difference.
        p_value: exact two-sided McNemar test.
        n_better: images that only the first gets right.
        n_worse: images that only the second gets right.
    """

    difference: float
    ci95: tuple[float, float]
    p_value: float
    n_better: int
    n_worse: int


class Estimate(NamedTuple):
    """A mean, its standard error and a one-sided lower confidence bound."""

    mean: float
    se: float
    lower: float


class Interval(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float


# --- scores against labels ---------------------------------------------------------------------


def log_likelihoods(logits: npt.ArrayLike, labels: npt.ArrayLike) -> Float64Array:
    """Log-probability of the true class: (..., N, K) logits and (N,) labels give (..., N)."""
    scores = np.asarray(logits, dtype=np.float64)
    scores = scores - scores.max(axis=-1, keepdims=True)
    index = np.asarray(labels, dtype=np.int64)
    true = scores[..., np.arange(len(index)), index]
    return np.asarray(true - np.log(np.exp(scores).sum(axis=-1)))


def correct(logits: npt.ArrayLike, labels: npt.ArrayLike) -> BoolArray:
    """Which images are classified right: (..., N, K) logits and (N,) labels give (..., N)."""
    return np.asarray(np.asarray(logits).argmax(axis=-1) == np.asarray(labels))


def accuracy(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Fraction classified right, of (N, K) logits and (N,) labels; nan without images."""
    hits = correct(logits, labels)
    return float(hits.mean()) if hits.size else float("nan")


def accuracy_interval(correct: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of the accuracy whose (N,) hits and misses are given."""
    hits = np.asarray(correct, dtype=bool)
    n = hits.size
    if n == 0:
        return 0.0, 1.0
    z = _normal_quantile(confidence)
    p = hits.mean()
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def settled(values: npt.ArrayLike) -> Float64Array:
    """Values in nats, rounded to what float32 arithmetic promises on any processor.

    Features of the same model differ in their last bits from one instruction set, or number of
    threads, to another. What is decided on is rounded first, so that equal values tie everywhere
    and a stated rule parts them, not the last bits.
    """
    return np.asarray(np.asarray(values, dtype=np.float64).round(DECIMALS))


# --- two classifiers on the same images --------------------------------------------------------


def paired_gain(
    correct_a: npt.ArrayLike, correct_b: npt.ArrayLike, confidence: float = 0.95
) -> PairedGain:
    """Gain of classifier a over classifier b, from their (N,) hits on the same images.

    The test is McNemar's in its exact form, a sign test on the images the two disagree about. The
    interval is the adjusted Wald interval of Bonett and Price (2012), which adds one image to each
    of the two kinds of disagreement and so keeps its coverage in small samples and with all ties.
    """
    from scipy.special import bdtr

    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"paired samples must be vectors of one length, not {a.shape}, {b.shape}")
    n = a.size
    better, worse = int((a & ~b).sum()), int((b & ~a).sum())
    p_value = min(1.0, 2.0 * float(bdtr(min(better, worse), better + worse, 0.5)))
    share_better, share_worse = (better + 1) / (n + 2), (worse + 1) / (n + 2)
    centre = share_better - share_worse
    half = _normal_quantile(confidence) * np.sqrt(
        (share_better + share_worse - centre**2) / (n + 2)
    )
    interval = max(-1.0, float(centre - half)), min(1.0, float(centre + half))
    return PairedGain((better - worse) / max(n, 1), interval, p_value, better, worse)


def paired_t(differences: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean of (N,) paired differences, its standard error and one-sided lower t bound.

    A single difference says nothing of its spread: its error is infinite.
    """
    from scipy.special import stdtrit

    values = _vector(differences)
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(mean, float("inf"), float("-inf"))
    se = float(values.std(ddof=1) / np.sqrt(values.size))
    return Estimate(mean, se, mean - float(stdtrit(values.size - 1, confidence)) * se)


def pooled(estimates: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Independent (mean, standard error) of one quantity as one: weighted by their precision.

    Errors of 0, and below a billionth, count as a billionth; infinite ones say nothing.
    """
    precisions = [max(se, 1e-9) ** -2 for _, se in estimates]
    total = sum(precisions)
    if total == 0:
        return 0.0, float("inf")
    mean = sum(p * m for p, (m, _) in zip(precisions, estimates, strict=True)) / total
    return mean, float(total**-0.5)


def permutation_test(
    differences: npt.ArrayLike, rng: np.random.Generator, resamples: int = 10_000
) -> float:
    """Two-sided p-value of "the (N,) paired differences are symmetric about 0", by sign flips.

    Exact (all ``2**N`` sign patterns) where that takes no more than ``resamples``; otherwise
    random patterns, the observed one counted among them so that the test keeps its level.
    """
    values = _vector(differences)
    n = values.size
    exact = n < 63 and 2**n <= resamples
    if exact:
        patterns = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    else:
        patterns = rng.integers(0, 2, size=(resamples, n))
    sums = np.abs((2 * patterns - 1) @ values)
    # The same sum in another order differs in its last bits; it must still count as equal.
    as_extreme = int((sums >= abs(values.sum()) - 1e-12 * np.abs(values).sum()).sum())
    return as_extreme / 2**n if exact else (as_extreme + 1) / (resamples + 1)


# --- many comparisons --------------------------------------------------------------------------


def holm(p_values: npt.ArrayLike) -> Float64Array:
    """Holm's step-down adjusted p-values, (J,): the family-wise error stays below the level."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def shrink(means: npt.ArrayLike, ses: npt.ArrayLike) -> Float64Array:
    """Empirical-Bayes means of J candidates, (J,): see :func:`posterior`."""
    return posterior(means, ses)[0]


def posterior(means: npt.ArrayLike, ses: npt.ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Means and standard deviations of J candidates' true values, given noisy means.

    The candidates' true values are taken as normal about their common mean with variance ``v``,
    estimated as the observed variance less the mean squared error (never below 0); each mean moves
    towards the common one by the weight ``v / (v + se**2)``. The best of many candidates is then
    no longer optimistic, because the luck it was chosen for is discounted.

    Args:
        means: (J,) observed means.
        ses: (J,) their standard errors; infinite where nothing is known, 0 where all is.
    """
    m, se = np.asarray(means, dtype=np.float64), np.asarray(ses, dtype=np.float64)
    if m.size <= 1:
        return m.copy(), se.copy()
    known = np.isfinite(se)
    noise = float((se[known] ** 2).mean()) if known.any() else float("inf")
    between = max(0.0, float(m.var(ddof=1)) - noise)
    spread = between + se**2
    weight = np.divide(between, spread, out=np.ones_like(m), where=spread > 0)
    centre = m.mean()
    error = np.sqrt(weight) * np.where(known, se, 0.0)
    return centre + weight * (m - centre), np.where(known, error, np.sqrt(between))


# --- means -------------------------------------------------------------------------------------


def mean_interval(values: npt.ArrayLike, confidence: float = 0.95) -> Interval:
    """Mean of (S,) values, one a seed, with its t interval; (nan, nan) for a single value."""
    from scipy.special import stdtrit

    sample = _vector(values)
    mean = float(sample.mean())
    if sample.size == 1:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stdtrit(sample.size - 1, (1 + confidence) / 2)) * float(
        sample.std(ddof=1) / np.sqrt(sample.size)
    )
    return Interval(mean, mean - half, mean + half)


def _vector(values: npt.ArrayLike) -> Float64Array:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"expected a vector of at least one value, not shape {sample.shape}")
    return sample


def _normal_quantile(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1 + confidence) / 2))
