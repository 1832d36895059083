"""Which head, how strong, or none: decided on images left out of the fits.

For each candidate of each head, every training image is scored by a fit that never saw it
(:meth:`~llmopt.heads.base.Head.held_out`); validation images, where there are some, by the fit on
all training images. Strength and temperature are then two numbers on a grid, chosen by the
likelihood of those held-out scores. So is whether augmented views help at all: where a crop changes
what an image shows, they do not.

Few images and a grid make for great confidence, and one confident mistake would outweigh all else.
So likelihoods allow for labels that follow no rule, one in twenty::

    log (0.95 p(y | x) + 0.05 / K)

An image that is alone in its class is not judged. Without it the class is its text and nothing
else: what would be measured there is how well the text does, of which the class mean that is used
later, one image's, knows nothing. At 1 shot only validation images can speak for a head.

What is chosen on a sample looks better there than it is, so a head is judged by *cross-fitted*
likelihoods: the likelihood of image i counts at the grid point that is best for all other images.
Its paired gain over no head, at the temperature that suits no head best, must exceed one standard
error and must not cost accuracy; otherwise there is no head. So the classifier does not get worse
in expectation, nor on the sample; no rule can promise it for one test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmopt.heads import HEADS
from llmopt.heads.base import TEMPERATURES, Config, Head, Shots, Tensors
from llmopt.heads.fitted import FittedHead
from llmopt.heads.none import NONE, NoHead
from llmopt.stats import correct, paired_t, settled
from llmopt.task import FloatArray, IntArray

Float64Array = npt.NDArray[np.float64]

_UNRULY = 0.05

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
        gain, se: mean paired gain in likelihood over no head, and its standard error.
        accuracy_gain: paired gain in accuracy, a fraction.
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
    accuracy_gain: float = 0.0


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen, and why.

    Attributes:
        head: ready for use; :data:`~llmopt.heads.none.NONE` if nothing was convincing.
        evidence: of each head looked at, by name.
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
                "accuracy_gain": e.accuracy_gain,
                "images": len(e.hits),
                "left_out": e.left_out,
                "config": e.config,
                "alpha": e.alpha,
                "temperature": e.temperature,
            }
            for name, e in self.evidence.items()
            if name != "none"
        }
        return {"chosen": self.head.name, "reason": self.reason, "heads": looked_at}


def best(
    head: Head[Any],
    shots: Shots,
    seed: int,
    val: Shots | None = None,
    views: Sequence[int] | None = None,
) -> Evidence:
    """The likeliest candidate, strength and temperature of one head, with its evidence.

    Args:
        head: looked at.
        shots: the training images.
        seed: of folds and training.
        val: validation images; the head is not fitted on them.
        views: how many views of an image to fit on, each tried; the image alone and all by default.
    """
    labels = shots.labels if val is None else np.concatenate([shots.labels, val.labels])
    base = shots.plain if val is None else np.concatenate([shots.plain, val.plain])
    rows = judged(shots, val)
    points: list[tuple[Config, float, float]] = []
    likelihoods: list[Float64Array] = []
    hits: list[npt.NDArray[np.bool_]] = []
    for config, left_out in _candidates(head, shots, seed, views or sorted({1, shots.views})):
        correction = left_out
        if val is not None:
            fitted = _fit(head, shots, config, seed)
            unseen = head.correct(fitted, val.plain, val.plain_features)
            correction = np.concatenate([left_out, unseen])
        for alpha in head.strengths(base, correction):
            scores = (base + np.float32(alpha) * correction)[rows]
            right = correct(scores, labels[rows])
            likelihoods.append(_tolerant(scores, labels[rows]))
            for temperature in _TEMPERATURES:
                points.append((config, float(alpha), float(temperature)))
                hits.append(right)
    table = np.concatenate(likelihoods)
    # Image i is judged at the point that the others choose.
    others = settled(table.sum(axis=1, keepdims=True) - table).argmax(axis=0)
    columns = np.arange(table.shape[1])
    config, alpha, temperature = points[int(settled(table.sum(axis=1)).argmax())]
    return Evidence(
        head.name,
        head.left_out,
        config,
        alpha,
        temperature,
        table[others, columns],
        np.stack(hits)[others, columns],
    )


def judged(shots: Shots, val: Shots | None = None) -> npt.NDArray[np.int64]:
    """Indices of the images that can judge a head, training images before validation images."""
    company = np.bincount(shots.labels)[shots.labels] > 1
    held = np.ones(0 if val is None else len(val), dtype=bool)
    return np.flatnonzero(np.concatenate([company, held]))


def _tolerant(scores: FloatArray, labels: IntArray) -> Float64Array:
    """(T, N) log-likelihoods that no single image can dominate, at each temperature."""
    below = scores - scores.max(axis=1, keepdims=True)
    true = below[np.arange(len(labels)), labels]
    unruly = _UNRULY / scores.shape[1]
    found = np.empty((len(_TEMPERATURES), len(labels)))
    for row, temperature in zip(found, _TEMPERATURES, strict=True):
        p = np.exp(true / temperature) / np.exp(below / temperature).sum(axis=1)
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
    if len(judged(shots, val)) < 2:
        return Selection(
            NONE, {}, "no head: one image a class and no validation images cannot judge any"
        )
    nothing = best(NoHead(), shots, seed, val)
    evidence = {"none": nothing}
    for head in heads:
        if head.name != "none":
            found = best(head, shots, seed, val)
            estimate = paired_t(found.likelihoods - nothing.likelihoods)
            change = float(found.hits.mean() - nothing.hits.mean())
            evidence[head.name] = replace(
                found, gain=estimate.mean, se=estimate.se, accuracy_gain=change
            )
    convincing = {
        head.name: head
        for head in heads
        if (e := evidence[head.name]).gain > standard_errors * e.se and e.accuracy_gain > 0
    }
    if not convincing:
        return Selection(NONE, evidence, _hesitation(evidence, standard_errors))
    name = max(convincing, key=lambda n: evidence[n].gain - standard_errors * evidence[n].se)
    e = evidence[name]
    fitted = FittedHead(
        name, _fit(convincing[name], shots, e.config, seed), e.config, e.alpha, e.temperature
    )
    reason = (
        f"{name}: {e.gain:+.3f} ± {e.se:.3f} nats an image over no head, "
        f"accuracy {100 * e.accuracy_gain:+.1f} points, on {len(e.hits)} images left out"
    )
    return Selection(fitted, evidence, reason)


def _hesitation(evidence: Mapping[str, Evidence], standard_errors: float) -> str:
    tried = [e for name, e in evidence.items() if name != "none"]
    if not tried:
        return "no head was asked for"
    e = max(tried, key=lambda e: e.gain)
    return (
        f"no head: the best of {len(tried)}, {e.name}, gains {e.gain:+.3f} ± {e.se:.3f} nats an "
        f"image and {100 * e.accuracy_gain:+.1f} points; more than {standard_errors:g} standard "
        "errors and no lost accuracy are asked for"
    )


def make(names: Sequence[str]) -> list[Head[Any]]:
    """Heads of these names, with their default settings."""
    return [HEADS.get(name)() for name in names]
