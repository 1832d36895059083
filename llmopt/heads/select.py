"""Which head, how strong, or none: decided on images left out of the fits.

For each candidate of each head, every training image is scored by a fit that never saw it
(:meth:`~llmopt.heads.base.Head.held_out`); validation images, where there are some, by the fit on
all training images. Strength and temperature are then two numbers on a grid, chosen by the
likelihood of those held-out scores. So is whether augmented views help at all: where a crop changes
what an image shows, they do not.

Few images and a grid make for great confidence, and one confident mistake would outweigh all else.
So likelihoods allow for labels that follow no rule, one in twenty::

    log (0.95 p(y | x) + 0.05 / K)

and a head begins with what is usual for it (:class:`~llmopt.heads.base.Prior`), which the left-out
images update::

    log p(alpha, T | images) = sum of likelihoods - (octaves from the usual alpha)^2 / 2
                                                  - (octaves from the base scores' T)^2 / 2   (1)

An image that is alone in its class is not judged. Without it the class is its text and nothing
else: what would be measured there is how well the text does, of which the class mean that is used
later, one image's, knows nothing. Nor, for a head with a prior, is one of two: it would be judged
by half of its class against the whole of all others. So at 1 shot only validation images can
speak; without them the head is what is usual, mild enough to lose next to nothing anywhere
(``benchmarks/results/heads.md``).

What is chosen on a sample looks better there than it is, so a head is judged by *cross-fitted*
likelihoods: the likelihood of image i counts at the grid point that is best for all other images.
Their paired gain over no head, at the temperature that suits no head best, has a mean m and a
standard error e; what a head with a prior usually gains is g with the standard deviation d.
Together they say (without a prior there are m and e alone)::

    gain = (m / e^2 + g / d^2) se^2,   1 / se^2 = 1 / e^2 + 1 / d^2                           (2)

It must exceed one standard error and a hundredth of a nat an image, as less is a change of
confidence only, and must not cost accuracy; otherwise there is no head. Among
heads that convince, left-out images and odds decide: N (m - e) + odds. So the classifier does not
get worse in expectation, nor on the sample; no rule can promise it for one test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmopt.heads import HEADS
from llmopt.heads.base import (
    OCTAVES,
    TEMPERATURES,
    Config,
    Head,
    Prior,
    Shots,
    Tensors,
    temperature,
)
from llmopt.heads.fitted import FittedHead
from llmopt.heads.none import NONE, NoHead
from llmopt.stats import correct, paired_t, pooled, settled
from llmopt.task import FloatArray, IntArray

Float64Array = npt.NDArray[np.float64]

_UNRULY = 0.05

# Nats an image that a head with a prior usually gains, and how far that is trusted: the study has
# 0.02 at 1 shot and 0.35 at 16 (benchmarks/results/heads.md).
_USUAL = 0.05, 0.035

# Nats an image; where every image is right and sure, a head may gain less and move anything.
_LEAST = 0.01

# Flat to sharp, so that the flattest of equals is taken.
_TEMPERATURES = TEMPERATURES[::-1].astype(np.float32)


@dataclass(frozen=True, eq=False)
class Evidence:
    """How one head does on images it was not fitted on.

    Attributes:
        name: the head.
        left_out: how the training images were left out: ``exact`` or ``folds``.
        config, alpha, temperature: the best grid point.
        likelihoods: (N,) cross-fitted log-likelihoods of the images judged, nats; training images
            first, then validation.
        hits: (N,) whether they are classified right.
        gain, se: in likelihood over no head, nats an image, and its standard error: equation (2).
        measured: the part of the left-out images in it, their mean and its standard error; None
            where no image can judge.
        accuracy_gain: paired gain in accuracy, a fraction; 0 where no image can judge.
    """

    name: str
    left_out: str
    config: Config
    alpha: float
    temperature: float
    likelihoods: Float64Array = field(repr=False)
    hits: npt.NDArray[np.bool_] = field(repr=False)
    gain: float = 0.0
    se: float = 0.0
    measured: tuple[float, float] | None = None
    accuracy_gain: float = 0.0


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen, and why.

    Attributes:
        head: ready for use; :data:`~llmopt.heads.none.NONE` if nothing was convincing.
        evidence: of each head looked at but ``none``, by name.
        reason: one line for people.
        accuracies: of the predictor with it on the plain training and validation images, if they
            were looked at; the second is None without validation images.
    """

    head: FittedHead
    evidence: Mapping[str, Evidence]
    reason: str
    accuracies: tuple[float, float | None] | None = None

    @property
    def fallback(self) -> bool:
        """No head was convincingly better than none."""
        return self.head is NONE

    def summary(self) -> dict[str, Any]:
        """What a result file says of it; numbers as JSON has them."""
        looked_at = {
            name: {
                "gain_nats": e.gain,
                "se": e.se,
                "measured": None if e.measured is None else list(e.measured),
                "accuracy_gain": e.accuracy_gain,
                "images": len(e.hits),
                "left_out": e.left_out,
                "config": e.config,
                "alpha": e.alpha,
                "temperature": e.temperature,
            }
            for name, e in self.evidence.items()
        }
        return {"chosen": self.head.name, "reason": self.reason, "heads": looked_at}


def best(
    head: Head[Any],
    shots: Shots,
    seed: int,
    val: Shots | None = None,
    views: Sequence[int] | None = None,
    rows: npt.NDArray[np.int64] | None = None,
) -> Evidence:
    """The likeliest candidate, strength and temperature of one head by (1), with its evidence.

    Args:
        head: looked at.
        shots: the training images.
        seed: of folds and training.
        val: validation images; the head is not fitted on them.
        views: how many views of an image to fit on, each tried; the image alone and all by default.
        rows: of the images that judge; those of :func:`judged` by default.
    """
    labels = shots.labels if val is None else np.concatenate([shots.labels, val.labels])
    base = shots.plain if val is None else np.concatenate([shots.plain, val.plain])
    rows = judged(shots, val, head.prior) if rows is None else rows
    warmth = temperature(base, labels)
    points: list[tuple[Config, float, float]] = []
    beliefs: list[Float64Array] = []
    likelihoods: list[Float64Array] = []
    hits: list[npt.NDArray[np.bool_]] = []
    for config, left_out in _candidates(head, shots, seed, views or sorted({1, shots.views})):
        correction = left_out
        if val is not None:
            fitted = _fit(head, shots, config, seed)
            unseen = head.correct(fitted, val.plain, val.plain_features)
            correction = np.concatenate([left_out, unseen])
        if head.prior is None:
            strengths = head.strengths(base, correction)
            belief = np.zeros((len(strengths), len(_TEMPERATURES)))
        else:
            usual = head.prior.strengths(shots.average, shots.made)
            strengths = head.unit(correction, warmth) * usual
            belief = -(OCTAVES[:, None] ** 2 + np.log2(_TEMPERATURES / warmth) ** 2) / 2
        beliefs.append(belief.ravel())
        for alpha in strengths:
            scores = (base + np.float32(alpha) * correction)[rows]
            right = correct(scores, labels[rows])
            likelihoods.append(_tolerant(scores, labels[rows]))
            for divisor in _TEMPERATURES:
                points.append((config, float(alpha), float(divisor)))
                hits.append(right)
    table, belief = np.concatenate(likelihoods), np.concatenate(beliefs)
    total = table.sum(axis=1) + belief
    # Image i is judged at the point that the others choose.
    others = settled(total[:, None] - table).argmax(axis=0)
    columns = np.arange(table.shape[1])
    config, alpha, divisor = points[int(settled(total).argmax())]
    return Evidence(
        head.name,
        head.left_out,
        config,
        alpha,
        divisor,
        table[others, columns],
        np.stack(hits)[others, columns],
    )


def judged(
    shots: Shots, val: Shots | None = None, prior: Prior | None = None
) -> npt.NDArray[np.int64]:
    """Indices of the images that can judge a head, training images before validation images."""
    left = np.bincount(shots.labels)[shots.labels] - 1
    held = np.ones(0 if val is None else len(val), dtype=bool)
    return np.flatnonzero(np.concatenate([left >= (1 if prior is None else 2), held]))


def _tolerant(scores: FloatArray, labels: IntArray) -> Float64Array:
    """(T, N) log-likelihoods that no single image can dominate, at each temperature."""
    below = scores - scores.max(axis=1, keepdims=True)
    true = below[np.arange(len(labels)), labels]
    unruly = _UNRULY / scores.shape[1]
    found = np.empty((len(_TEMPERATURES), len(labels)))
    for row, divisor in zip(found, _TEMPERATURES, strict=True):
        p = np.exp(true / divisor) / np.exp(below / divisor).sum(axis=1)
        row[:] = np.log((1 - _UNRULY) * p + unruly)
    return found


def _candidates(
    head: Head[Any], shots: Shots, seed: int, views: Sequence[int]
) -> Iterator[tuple[Config, FloatArray]]:
    for count in views:
        for config, left_out in head.held_out(shots.seen(count), seed):
            yield {**config, "views": count}, left_out


def _fit(head: Head[Any], shots: Shots, config: Config, seed: int) -> Tensors:
    return head.fit(shots.seen(int(config["views"])), config, seed)


def select(
    heads: Sequence[Head[Any]],
    shots: Shots,
    seed: int,
    val: Shots | None = None,
    standard_errors: float = 1.0,
) -> Selection:
    """The head whose gain over no head is surest, fitted on all training images, or none.

    Args:
        heads: those to look at.
        shots: the training images.
        seed: of folds and training.
        val: validation images, which only help to choose; heads are never fitted on them.
        standard_errors: how many standard errors the gain must exceed.
    """
    evidence: dict[str, Evidence] = {}
    convincing: dict[str, float] = {}
    for head in heads:
        rows = judged(shots, val, head.prior)
        if head.name == "none" or (head.prior is None and len(rows) < 2):
            continue
        found, nothing = best(head, shots, seed, val), best(NoHead(), shots, seed, val, rows=rows)
        e = evidence[head.name] = _weighed(found, nothing, head.prior)
        sure = e.gain > max(standard_errors * e.se, _LEAST)
        if sure and (e.accuracy_gain > 0 or (head.prior and e.accuracy_gain == 0)):
            mean, se = e.measured or (0.0, 0.0)
            odds = head.prior.odds_at(shots.average) if head.prior else 0.0
            convincing[head.name] = len(rows) * (mean - standard_errors * se) + odds
    if not convincing:
        return Selection(NONE, evidence, _hesitation(heads, evidence, standard_errors))
    name = max(convincing, key=lambda n: convincing[n])
    e = evidence[name]
    chosen = next(head for head in heads if head.name == name)
    tensors = _fit(chosen, shots, e.config, seed)
    fitted = FittedHead(name, tensors, e.config, e.alpha, e.temperature)
    return Selection(fitted, evidence, f"{name}: {_said(e)}")


def _weighed(found: Evidence, nothing: Evidence, prior: Prior | None) -> Evidence:
    """The evidence with its gain over ``nothing`` on the same images: equation (2)."""
    known, measured, change = [], None, 0.0
    if len(found.hits):
        estimate = paired_t(found.likelihoods - nothing.likelihoods)
        measured = estimate.mean, estimate.se
        change = float(found.hits.mean() - nothing.hits.mean())
        known.append(measured)
    if prior is not None:
        known.append(_USUAL)
    gain, se = pooled(known) if len(known) > 1 else known[0]
    return replace(found, gain=gain, se=se, measured=measured, accuracy_gain=change)


def _said(e: Evidence) -> str:
    """The evidence in words."""
    usual = f"{e.gain:+.3f} ± {e.se:.3f}"
    if e.measured is None:
        return f"{usual} nats an image over no head, as is usual; no image left out can judge it"
    mean, se = e.measured
    told = (
        f"{mean:+.3f} ± {se:.3f} nats an image over no head, "
        f"accuracy {100 * e.accuracy_gain:+.1f} points, on {len(e.hits)} images left out"
    )
    return told if e.measured == (e.gain, e.se) else f"{told}; with what is usual {usual} nats"


def _hesitation(
    heads: Sequence[Head[Any]], evidence: Mapping[str, Evidence], standard_errors: float
) -> str:
    if not any(head.name != "none" for head in heads):
        return "no head was asked for"
    if not evidence:
        return "no head: one image a class and no validation images cannot judge any"
    e = max(evidence.values(), key=lambda e: e.gain - standard_errors * e.se)
    return (
        f"no head: the best of {len(evidence)}, {e.name}, {_said(e)}; more than "
        f"{standard_errors:g} standard error{'s' * (standard_errors != 1)}, {_LEAST:g} nats "
        "and no lost accuracy are asked for"
    )


def make(names: Sequence[str]) -> list[Head[Any]]:
    """Heads of these names, with their default settings."""
    return [HEADS.get(name)() for name in names]
