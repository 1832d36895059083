"""Two classifiers over several seeds, on the same test images.

Two questions are kept apart. Whether *these runs* differ is asked of the test images, by a
sign-flip permutation test of each image's difference, summed over the seeds; it is exact, and with
one seed it is McNemar's test. Whether the *methods* differ is asked of the seeds: a t interval of
the paired differences, wide where the seeds are few (and never narrower than the test images allow,
however well the seeds happen to agree). A difference is only called one if both say so, or, with a
single seed, if the images do and nothing can be said of the seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmopt.metrics import IntArray, Metric, Predicted
from llmopt.stats import Interval, accuracy_interval, mean_interval, paired_gain

ALPHA = 0.05
RESAMPLES = 1_000
"""Of the test images, where a metric is no share of hits; its p-values are not below 1/1,001."""
_FINEST = 1e-12  # what a convolution of probabilities can tell from 0


@dataclass(frozen=True)
class Difference:
    """A metric of one side, such as accuracy, less that of the other.

    Attributes:
        mean: over seeds and images.
        interval: 95 %; the wider of over seeds, where there are several, and over images.
        p_value: of the paired test on the images, not adjusted.
        seeds: how many.
        images: how many.
        sign: 1 where more of the metric is better, -1 where less is.
    """

    mean: float
    interval: tuple[float, float]
    p_value: float
    seeds: int
    images: int
    sign: int = 1

    @property
    def points(self) -> float:
        """Percentage points by which the first side is better."""
        return 100 * self.sign * self.mean

    def verdict(self, adjusted: float) -> str:
        """``better``, ``worse``, ``these runs only`` or ``no significant difference``."""
        if adjusted >= ALPHA or self.mean == 0:
            return "no significant difference"
        low, high = self.interval
        if low <= 0 <= high:
            return "these runs only"
        return "better" if self.points > 0 else "worse"


def difference(a: npt.ArrayLike, b: npt.ArrayLike) -> Difference:
    """Side a against side b: (S, N) hits of S seeds on N images, or fewer seeds than images.

    Raises:
        ValueError: they are not of one shape.
    """
    first, second = (np.atleast_2d(np.asarray(x, dtype=bool)) for x in (a, b))
    if first.shape != second.shape:
        raise ValueError(f"paired hits must be of one shape, not {first.shape}, {second.shape}")
    seeds, images = first.shape
    each = first.mean(axis=1) - second.mean(axis=1)
    summed = first.sum(axis=0, dtype=np.int64) - second.sum(axis=0, dtype=np.int64)
    if seeds == 1:
        interval = paired_gain(first[0], second[0]).ci95
    else:
        # One image more on either side, as in the interval of a single seed: it keeps its width
        # where the two never differ.
        _, *over_images = mean_interval(np.append(summed / seeds, (1.0, -1.0)))
        interval = wider(mean_interval(each)[1:], over_images)
    within = max(-1.0, interval[0]), min(1.0, interval[1])
    return Difference(float(each.mean()), within, sign_flip(summed), seeds, images)


def accuracy(hits: npt.ArrayLike) -> Interval:
    """Mean of (S, N) hits; the wider of the t interval over seeds and Wilson's over images."""
    found = np.atleast_2d(np.asarray(hits, dtype=bool))
    each = found.mean(axis=1)
    # Hits averaged over seeds vary less than hits: their share over N images is a safe stand-in.
    typical = np.arange(found.shape[1]) < round(float(each.mean()) * found.shape[1])
    interval = accuracy_interval(typical)
    if len(each) > 1:
        interval = wider(mean_interval(each)[1:], interval)
    return Interval(float(each.mean()), max(0.0, interval[0]), min(1.0, interval[1]))


def compared(
    metric: Metric, labels: IntArray, first: Sequence[Predicted], second: Sequence[Predicted]
) -> Difference:
    """Two sides in any metric, each a prediction of all N images for each seed.

    Where the metric is no share of hits, the images are resampled for the interval; for the test,
    the sides change places on images drawn by lot.
    """
    if metric.hits is not None:
        a, b = (_hits(metric, labels, side) for side in (first, second))
        return dataclasses.replace(difference(a, b), sign=metric.sign)

    def gaps(one: Sequence[Predicted], other: Sequence[Predicted], true: IntArray) -> list[float]:
        pairs = zip(one, other, strict=True)
        return [_value(metric, true, a) - _value(metric, true, b) for a, b in pairs]

    def at(rows: IntArray) -> float:
        one, other = ([run.take(rows) for run in side] for side in (first, second))
        return float(np.mean(gaps(one, other, labels[rows])))

    each = gaps(first, second, labels)
    mean, rng, extreme = abs(float(np.mean(each))) - _FINEST, np.random.default_rng(0), 1
    for _ in range(RESAMPLES):
        which = rng.random(len(labels)) < 0.5
        pairs = list(zip(first, second, strict=True))
        one, other = ([a.mixed(b, mask) for a, b in pairs] for mask in (which, ~which))
        extreme += abs(float(np.mean(gaps(one, other, labels)))) >= mean
    low, high = _over_both(each, at, len(labels))
    return Difference(
        float(np.mean(each)),
        (max(-1.0, low), min(1.0, high)),
        extreme / (RESAMPLES + 1),
        len(each),
        len(labels),
        metric.sign,
    )


def measured(metric: Metric, labels: IntArray, runs: Sequence[Predicted]) -> Interval:
    """Mean of a metric over seeds; the wider of the intervals over seeds and over images."""
    if metric.hits is not None:
        return accuracy(_hits(metric, labels, runs))

    def at(rows: IntArray) -> float:
        return float(np.mean([_value(metric, labels[rows], one.take(rows)) for one in runs]))

    each = [_value(metric, labels, one) for one in runs]
    low, high = _over_both(each, at, len(labels))
    return Interval(float(np.mean(each)), max(0.0, low), min(1.0, high))


def _over_both(
    each: Sequence[float], at: Callable[[IntArray], float], images: int
) -> tuple[float, float]:
    """The wider of the t interval over seeds and the bootstrap's over images."""
    rng = np.random.default_rng(0)
    drawn = [at(rng.integers(0, images, images)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    # The bootstrap of a figure that is no mean can miss the figure itself.
    interval = min(low, float(np.mean(each))), max(high, float(np.mean(each)))
    return wider(mean_interval(each)[1:], interval) if len(each) > 1 else interval


def _hits(metric: Metric, labels: IntArray, runs: Sequence[Predicted]) -> npt.NDArray[np.bool_]:
    assert metric.hits is not None
    return np.stack([np.asarray(metric.hits(labels, one), dtype=bool) for one in runs])


def _value(metric: Metric, labels: IntArray, one: Predicted) -> float:
    value = metric.of(labels, one)
    if value is None:
        raise ValueError(f"{metric.label} is not known of these predictions")
    return value


def wider(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """The interval that covers both."""
    return float(min(one[0], other[0])), float(max(one[1], other[1]))


def sign_flip(differences: npt.NDArray[np.int64]) -> float:
    """Exact two-sided p-value of "these (N,) whole numbers are symmetric about 0".

    Of the 2^N ways to flip signs, the share whose sum is at least as far from 0. Images with equal
    magnitude are interchangeable, so the distribution of the sum is a convolution of binomials, one
    a magnitude.
    """
    from scipy.signal import fftconvolve
    from scipy.stats import binom

    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    distribution = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        part = np.zeros(size * count + 1)
        part[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        exact = len(part) * len(distribution) < 10**7
        distribution = (np.convolve if exact else fftconvolve)(distribution, part)
    total = int((sizes * counts).sum())
    sums = 2 * np.arange(len(distribution)) - total
    p_value = float(distribution[np.abs(sums) >= abs(int(differences.sum()))].sum())
    return min(1.0, p_value if len(sizes) < 2 else max(p_value, _FINEST))
