"""The final choice: few finalists and the start, on train and validation images together.

The search picked its finalists on the training images, so their scores there are optimistic. Means
are shrunk towards each other by their standard errors (:func:`llmopt.stats.shrink`), and a finalist
replaces the start only if its paired gain is convincing: it exceeds its standard error and takes
away a twentieth of the start's loss, as less is a change of confidence only. Otherwise the start is
kept. Among finalists that the images cannot tell apart, the one with the fewest words is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmopt.errors import BudgetExhausted
from llmopt.predictor import TextPredictor
from llmopt.search.base import Search, TemplateResult
from llmopt.search.text.archive import Scored
from llmopt.stats import log_likelihoods, settled, shrink
from llmopt.task import FloatArray, Task
from llmopt.template import Template

FINALISTS = 8
_LEAST = 0.05  # of the start's loss that a gain must take away
_SHARE = 0.2  # of the gain over the start that a simpler template may give up


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        predictor: the chosen template, or templates.
        fallback: the start was kept because nothing was convincingly better.
        templates: the finalists and the start, best first.
    """

    predictor: TextPredictor
    fallback: bool
    templates: tuple[TemplateResult, ...]


def choose(
    search: Search,
    candidates: Sequence[Scored],
    *,
    finalists: int = FINALISTS,
    ensemble: int = 1,
) -> Choice:
    """Choose among the best candidates and the start.

    Args:
        search: task and black box.
        candidates: scored templates, best first; the start need not be among them.
        finalists: how many of them are looked at again.
        ensemble: greedily combine up to this many finalists (with replacement); 1 is a single one.
    """
    task = search.task
    start = task.start
    templates = [start, *(c.template for c in candidates if c.template != start)][: finalists + 1]
    train = search.box.score_templates(task.train, templates, task.classnames)
    val = _validation_scores(search, templates)
    logits = np.concatenate([train, val], axis=1)
    labels = np.concatenate([task.train.labels, task.val.labels[: val.shape[1]]])

    likelihoods = log_likelihoods(logits, labels)
    gains = likelihoods - likelihoods[0]
    means = gains.mean(axis=1)
    errors = gains.std(axis=1, ddof=1) / np.sqrt(len(labels)) if len(labels) > 1 else means * 0
    shrunk = np.concatenate([[0.0], shrink(means[1:], errors[1:])]) if len(means) > 1 else means
    means, errors, shrunk = settled(means), settled(errors), settled(shrunk)
    correct = logits.argmax(axis=-1) == labels
    convincing = (
        (shrunk > errors)
        & (correct.mean(axis=1) >= correct[0].mean())
        & (means > _LEAST * -likelihoods[0].mean())
    )
    order = sorted(
        range(len(templates)), key=lambda j: (bool(convincing[j]), shrunk[j]), reverse=True
    )
    fallback = not convincing.any()
    winner = 0 if fallback else _simplest(order, templates, likelihoods, convincing)
    order.remove(winner)
    order.insert(0, winner)

    weights = {winner: 1.0}
    if ensemble > 1 and not fallback:
        weights = greedy_ensemble(logits, labels, winner, ensemble)
    predictor = TextPredictor(
        tuple(templates[j] for j in weights), task.classnames, tuple(weights.values())
    )
    results = tuple(
        _result(templates[j], train[j], val[j], search, weights.get(j, 0.0)) for j in order
    )
    return Choice(predictor, fallback, results)


def second_look(task: Task, templates: int) -> int:
    """Text encodings of looking at ``templates`` again on the validation images, at most.

    A box that takes images and prompts together encodes the prompts anew for other images.
    """
    return templates * len(task.classnames) if len(task.val) else 0


def greedy_ensemble(
    logits: FloatArray, labels: np.ndarray[tuple[int], np.dtype[np.int64]], first: int, size: int
) -> dict[int, float]:
    """Forward selection with replacement by mean log-likelihood of the averaged scores.

    (Caruana et al. 2004.) Stops early when no addition helps.

    Args:
        logits: (J, N, K).
        labels: (N,).
        first: the member it starts from.
        size: members at most, repeats counted.

    Returns:
        weight by index, summing to 1.
    """
    members = [first]
    total = logits[first].astype(np.float64)
    current = settled(log_likelihoods(total, labels).mean())
    while len(members) < size:
        trials = (total + logits) / (len(members) + 1)
        values = settled(log_likelihoods(trials, labels).mean(axis=-1))
        best = int(values.argmax())
        if values[best] <= current:
            break
        members.append(best)
        total += logits[best]
        current = values[best]
    return {j: members.count(j) / len(members) for j in dict.fromkeys(members)}


def _simplest(
    order: Sequence[int],
    templates: Sequence[Template],
    likelihoods: npt.NDArray[np.float64],
    convincing: npt.NDArray[np.bool_],
) -> int:
    """The finalist with the fewest words among those as good as the best on the same images."""
    best = order[0]
    equal = [j for j in order if convincing[j] and as_good(*likelihoods[[j, best, 0]])]
    return min([best, *equal], key=lambda j: templates[j].length[0])


def as_good(
    simpler: npt.NDArray[np.float64],
    best: npt.NDArray[np.float64],
    start: npt.NDArray[np.float64],
) -> bool:
    """Whether a simpler template may stand in for the best one.

    It may if on the same images it loses no more than one standard error, or no more than a fifth
    of what the best gains over the start. All three are (N,) log-likelihoods of the true class.
    """
    lost = best - simpler
    tolerance = max(lost.std() / np.sqrt(len(lost)), _SHARE * (best - start).mean())
    return bool(settled(lost.mean()) <= settled(tolerance))


def _validation_scores(search: Search, templates: Sequence[Template]) -> FloatArray:
    """(J, V, K), or (J, 0, K) without validation images or with nothing left to pay for them."""
    task = search.task
    none = np.zeros((len(templates), 0, len(task.classnames)), dtype=np.float32)
    if not len(task.val):
        return none
    try:
        return search.box.score_templates(task.val, templates, task.classnames)
    except BudgetExhausted:
        return none


def _result(
    template: Template, train: FloatArray, val: FloatArray, search: Search, weight: float
) -> TemplateResult:
    scored = Scored.of(template, train, search.task.train)
    val_labels = search.task.val.labels[: len(val)]
    return TemplateResult(
        text=template.text,
        weight=weight,
        train_accuracy=scored.accuracy,
        # The last bits of a matrix product may differ from process to process.
        train_logprob=round(scored.logprob, 6),
        val_accuracy=float((val.argmax(-1) == val_labels).mean()) if len(val) else None,
    )
