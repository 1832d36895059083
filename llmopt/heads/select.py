"""Which head, how strong, or none: decided on images left out of the fits.

For each candidate of each head, every training image is scored by a fit that never saw it
(:meth:`~llmopt.heads.base.Head.held_out`); validation images, where there are some, by the fit on
all training images. Strength and temperature are then two numbers on a grid, chosen by the
likelihood of those held-out scores.

A choice on a sample flatters itself, so a head is judged by *cross-fitted* likelihoods: the
likelihood of image i counts at the grid point that is best for all other images. Its paired gain
over no head, at the temperature that suits no head best, must exceed one standard error and must
not cost accuracy; otherwise there is no head (section 7.6 of the method notes). That keeps the
start in expectation and on the sample; no rule can promise it for one test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmopt.heads import head_class
from llmopt.heads.base import TEMPERATURES, Config, FittedHead, Head, Shots
from llmopt.heads.none import NONE, NoHead
from llmopt.stats import correct, log_likelihoods, paired_t

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """How one head does on images it was not fitted on.

    Attributes:
        name: the head.
        left_out: how the training images were left out: ``exact`` or ``folds``.
        config, alpha, temperature: the best grid point.
        likelihoods: (N,) cross-fitted log-likelihoods, nats; training images, then validation.
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
    """

    head: FittedHead
    evidence: Mapping[str, Evidence]
    reason: str

    @property
    def fallback(self) -> bool:
        """No head was convincingly better than none."""
        return self.head is NONE


def best(head: Head[Any], shots: Shots, seed: int, val: Shots | None = None) -> Evidence:
    """The likeliest candidate, strength and temperature of one head, with its evidence."""
    labels = shots.labels if val is None else np.concatenate([shots.labels, val.labels])
    base = shots.plain if val is None else np.concatenate([shots.plain, val.plain])
    points: list[tuple[Config, float, float]] = []
    likelihoods: list[Float64Array] = []
    hits: list[npt.NDArray[np.bool_]] = []
    for config, left_out in head.held_out(shots, seed):
        correction = left_out
        if val is not None:
            fitted = head.fit(shots, config, seed)
            unseen = head.correct(fitted, val.plain, val.plain_features)
            correction = np.concatenate([left_out, unseen])
        for alpha in head.strengths(base, correction):
            scores = base + np.float32(alpha) * correction
            right = correct(scores, labels)
            for temperature in TEMPERATURES:
                points.append((config, float(alpha), float(temperature)))
                likelihoods.append(log_likelihoods(scores / np.float32(temperature), labels))
                hits.append(right)
    table = np.stack(likelihoods)
    # Image i is judged at the point that the others choose.
    others = (table.sum(axis=1, keepdims=True) - table).argmax(axis=0)
    rows = np.arange(len(labels))
    config, alpha, temperature = points[int(table.sum(axis=1).argmax())]
    return Evidence(
        head.name,
        head.left_out,
        config,
        alpha,
        temperature,
        table[others, rows],
        np.stack(hits)[others, rows],
    )


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
        if (e := evidence[head.name]).gain > standard_errors * e.se and e.accuracy_gain >= 0
    }
    if not convincing:
        return Selection(NONE, evidence, _hesitation(evidence, standard_errors))
    name = max(convincing, key=lambda n: evidence[n].gain - standard_errors * evidence[n].se)
    e = evidence[name]
    fitted = FittedHead(
        name, convincing[name].fit(shots, e.config, seed), e.config, e.alpha, e.temperature
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
    return [head_class(name)() for name in names]
