"""The final choice: few finalists and what was known, on train and validation images together.

The search picked its finalists on the training images, so their scores there are optimistic. Means
are shrunk towards each other by their standard errors (:func:`llmopt.stats.shrink`), and a finalist
replaces what was known, the start if nothing else was, only if its paired gain is convincing: it
exceeds its standard error and takes away a twentieth of the loss, as less is a change of confidence
only. Among finalists that the images cannot tell apart, the one with the fewest and plainest words
is taken, the nearest to the start among those.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from llmopt.errors import BudgetExhausted
from llmopt.predictor import TextPredictor
from llmopt.resources import read_lines
from llmopt.search.base import Search, TemplateResult
from llmopt.search.text.archive import Scored, judge
from llmopt.sentences import probe_bank
from llmopt.stats import log_likelihoods, settled, shrink
from llmopt.task import FloatArray, Task
from llmopt.template import Template

FINALISTS = 8
_LEAST = 0.05  # of the start's loss that a gain must take away
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_SHARE = 0.2  # of the gain over the start that a simpler template may give up


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        predictor: the chosen template, or templates.
        fallback: what was known was kept because nothing was convincingly better.
        templates: the finalists and what was known, best first.
        why: it was chosen, as a sentence.
    """

    predictor: TextPredictor
    fallback: bool
    templates: tuple[TemplateResult, ...]
    why: str = ""

    def beside(self, other: Choice) -> Choice:
        """This one, with the finalists of another listed after its own."""
        own = {one.text for one in self.templates}
        rest = (replace(one, weight=0.0) for one in other.templates if one.text not in own)
        return replace(self, templates=(*self.templates, *rest))


def choose(
    search: Search,
    candidates: Sequence[Scored],
    *,
    known: Template | None = None,
    finalists: int = FINALISTS,
    ensemble: int = 1,
) -> Choice:
    """Choose among the best candidates and what was known before them.

    Args:
        search: task and black box.
        candidates: scored templates, best first; what was known need not be among them.
        known: what they are to replace; None is the start.
        finalists: how many of them are looked at again.
        ensemble: greedily combine up to this many finalists (with replacement); 1 is a single one.
    """
    task = search.task
    known = known or task.start
    templates = [known, *(c.template for c in candidates if c.template != known)][: finalists + 1]
    seen = [task.train]
    judged = [search.box.score_templates(task.train, templates, task.classnames, judge)]
    with contextlib.suppress(BudgetExhausted):  # nothing is left to pay for them
        if len(task.val):
            judged.append(search.box.score_templates(task.val, templates, task.classnames, judge))
            seen.append(task.val)
    labels = np.concatenate([images.labels for images in seen])

    likelihoods, predicted = np.moveaxis(np.concatenate(judged, axis=1), -1, 0)
    gains = likelihoods - likelihoods[0]
    means = gains.mean(axis=1)
    errors = gains.std(axis=1, ddof=1) / np.sqrt(len(labels)) if len(labels) > 1 else means * 0
    shrunk = np.concatenate([[0.0], shrink(means[1:], errors[1:])]) if len(means) > 1 else means
    means, errors, shrunk = settled(means), settled(errors), settled(shrunk)
    correct = predicted == labels
    convincing = (
        (shrunk > errors)
        & (correct.mean(axis=1) >= correct[0].mean())
        & (means > _LEAST * -likelihoods[0].mean())
    )
    order = sorted(
        range(len(templates)), key=lambda j: (bool(convincing[j]), shrunk[j]), reverse=True
    )
    fallback = not convincing.any()
    what = "the start" if known == task.start else "what was known"
    winner, why = 0, f"nothing was convincingly better than {what} on the few shots"
    if not fallback:
        winner, why = _plainest(order, templates, likelihoods, convincing, task.start)
    order.remove(winner)
    order.insert(0, winner)

    weights = {winner: 1.0}
    if ensemble > 1 and not fallback:
        logits = [search.box.score_templates(one, templates, task.classnames) for one in seen]
        weights = greedy_ensemble(np.concatenate(logits, axis=1), labels, winner, ensemble)
    predictor = TextPredictor(
        tuple(templates[j] for j in weights), task.classnames, tuple(weights.values())
    )
    results = tuple(
        TemplateResult(
            text=templates[j].text,
            weight=weights.get(j, 0.0),
            train_accuracy=float(correct[j, : len(task.train)].mean()),
            # The last bits of a matrix product may differ from process to process.
            train_logprob=round(float(likelihoods[j, : len(task.train)].mean()), 6),
            val_accuracy=float(correct[j, len(task.train) :].mean()) if len(seen) > 1 else None,
        )
        for j in order
    )
    return Choice(predictor, fallback, results, why)


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


def _plainest(
    order: Sequence[int],
    templates: Sequence[Template],
    likelihoods: npt.NDArray[np.float64],
    convincing: npt.NDArray[np.bool_],
    start: Template,
) -> tuple[int, str]:
    """The plainest finalist among those as good as the best on the same images, and why it is."""
    best = order[0]
    equal = [j for j in order if convincing[j] and as_good(*likelihoods[[j, best, 0]])]
    if len(equal) < 2:
        return best, "no other finalist is as good on the few shots"
    winner = min(equal, key=lambda j: plainness(templates[j], start))
    few = f"the few shots cannot tell {len(equal)} finalists apart"
    return winner, f"{few}; this one has the fewest and plainest words, and is nearest to the start"


def plainness(template: Template, start: Template) -> tuple[int, int, int]:
    """Smaller is plainer: words, those of them that no usual template has, steps from the start."""
    words = _words(template)
    odd = len([word for word in words if word not in plain_words()])
    gone, come = Counter(_words(start)), Counter(words)
    steps = ((gone - come) + (come - gone)).total()
    return template.length[0], odd, steps


@cache
def plain_words() -> frozenset[str]:
    """The words of usual templates and of the bank of probes."""
    bank = [phrase for family in probe_bank().values() for phrase in family]
    usual = [*bank, *read_lines("templates/generic.txt"), *read_lines("templates/clip_subset.txt")]
    return frozenset(word for text in usual for word in _WORD.findall(text.lower()))


def _words(template: Template) -> list[str]:
    return _WORD.findall(template.text.lower())


def is_better(after: npt.NDArray[np.float64], before: npt.NDArray[np.float64]) -> bool:
    """Whether the likelihoods of the same (N,) images rose by more than noise, and worth telling.

    Less than a twentieth of what was to be gained is a change of confidence only.
    """
    gains = after - before
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    least = max(float(error), _LEAST * -float(before.mean()))
    return bool(settled(gains.mean()) > settled(least))


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
