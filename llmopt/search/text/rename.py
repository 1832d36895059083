"""Words for classes whose names say nothing: ``class_07``, ``n01440764``, a code.

A bank of words for things that pictures show (``prompts/classnames/words.txt``) is compared with
the shots, once, whatever the number of classes. What a class answers to is the word that ranks its
images highest above the others; each class gets another word, all together the best (the
assignment problem). It costs one text encoding a word and needs no language model.

The words replace the names only where that convinces: their likelihood is judged with each image's
own class named without that image, and must be higher than with labels dealt at random. Then
classes for which their own name is better get it back.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from llmopt.errors import BudgetExhausted
from llmopt.predictor import TextPredictor, single
from llmopt.resources import read_prompt
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.text.described import Bank
from llmopt.search.text.weighing import Shots, better_apart, convinces
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.stats import log_likelihoods, settled
from llmopt.task import Labelled, Task
from llmopt.template import display_name
from llmopt.vision.base import Access

Array = npt.NDArray[np.float64]

_DEALT = 19
"""Times that labels are dealt anew: one in twenty searches finds words in nothing."""


@dataclass(frozen=True)
class RenameSettings(Settings):
    """``rename`` has no settings."""


class Rename(Optimizer[RenameSettings]):
    """Other names for classes, out of a bank of words. Counts a text encoding a word."""

    name = "rename"
    access = Access.SCORES
    Settings = RenameSettings

    def bounds(self, task: Task) -> Spend:
        """The start with the names as they are and with every word, on all few shots."""
        images, prompts = len(task.train) + len(task.val), len(task.classnames) + len(bank())
        return Spend(
            image_encodings=images,
            # A box that takes images and prompts together gets them for both kinds of images.
            text_encodings=prompts * (2 if len(task.val) else 1) + len(task.classnames),
            pairs_scored=prompts * images,
        )

    def run(self, search: Search) -> Outcome:
        """Compare all words with all images, then choose."""
        task, shots = search.task, Shots.of(search)
        start = single(task.start, task.classnames)
        try:
            before = shots.plain(search).logits
        except BudgetExhausted as spent:
            return Outcome(start, spent.stop_reason, True)
        result = (shots.result(task, before),)
        try:
            names = rename(search, shots)
        except BudgetExhausted as spent:
            return Outcome(start, spent.stop_reason, True, result)
        changed = [name for name, old in zip(names, task.classnames, strict=True) if name != old]
        counts = Counter(words=len(bank()), renamed=len(changed))
        predictor = TextPredictor((task.start,), names)
        return Outcome(predictor, "iterations", not changed, result, dict(counts))


@cache
def bank() -> tuple[str, ...]:
    """All words, those of the first families first."""
    lines = [
        line
        for line in read_prompt("classnames/words.txt").splitlines()
        if line.strip() and not line.startswith(("#", "["))
    ]
    words = (word.strip() for line in lines for word in line.split(","))
    return tuple(dict.fromkeys(word for word in words if word))


def rename(search: Search, shots: Shots) -> tuple[str, ...]:
    """K names in label order: words of the bank where that convinces, else those of the task.

    Args:
        search: its start template holds the words; its black box scores them.
        shots: the images.

    Raises:
        BudgetExhausted: a cap does not allow to encode the bank.
    """
    task, labels, words = search.task, shots.images.labels, bank()
    prompts = task.start.fill_all(words)
    one = Bank(search.box, [[prompt] for prompt in prompts], shots.images)
    scores = one.logits(np.ones((1, len(prompts)))).astype(np.float64)
    before = shots.plain(search).logits.astype(np.float64)
    chosen, after = named(scores, before, shots)
    likelihoods = log_likelihoods(before, labels)
    gained = log_likelihoods(after, labels)
    if not convinces(gained, likelihoods, after, before, labels):
        return task.classnames
    rng = search.rng("rename")
    if not beats_chance(gained, scores, before, shots, rng):
        return task.classnames
    kept = better_apart(after, before, labels)
    return tuple(
        name if back or word >= len(words) or display_name(name) == words[word] else words[word]
        for name, word, back in zip(task.classnames, chosen, kept, strict=True)
    )


def named(scores: Array, before: Array, shots: Shots) -> tuple[npt.NDArray[np.int64], Array]:
    """(K,) the word of each class, and (N, K) scores of each image, its own class named without it.

    W + k stands for the name that class k has: of more classes than words some keep theirs.

    Args:
        scores: (N, W) for the words.
        before: (N, K) for the names.
        shots: the N images.
    """
    chosen: npt.NDArray[np.int64] = scores.shape[1] + np.arange(before.shape[1])
    rows, given = linear_sum_assignment(-settled(margins(scores, shots)))
    chosen[rows] = given
    either, places = np.concatenate([scores, before], axis=1), np.arange(len(scores))
    after = either[:, chosen]
    after[places, shots.images.labels] = either[places, _without_itself(scores, shots, chosen)]
    return chosen, after


def beats_chance(
    gained: Array, scores: Array, before: Array, shots: Shots, rng: np.random.Generator
) -> bool:
    """Whether images are likelier than they are with any of :data:`_DEALT` labels dealt anew.

    The words of the other classes are chosen against an image, so that some of what it seems to say
    for its own would be there if it said nothing.

    Args:
        gained: (N,) log-likelihoods of the true class with words.
        scores, before, shots: as for :func:`named`.
        rng: deals the labels.
    """
    for _ in range(_DEALT):
        labels = rng.permutation(shots.images.labels)
        dealt = replace(shots, images=Labelled(shots.images.images, labels))
        _, after = named(scores, before, dealt)
        if settled(log_likelihoods(after, labels).mean()) >= settled(gained.mean()):
            return False
    return True


def margins(scores: Array, shots: Shots) -> Array:
    """(K, W): how far the images of a class stand above the others for each word.

    In standard deviations of the word's scores, so that a word to which all images answer alike
    says little.

    Args:
        scores: (N, W).
        shots: the N images.
    """
    member = np.eye(len(shots.of_class))[shots.images.labels]  # (N, K)
    n = member.sum(axis=0)[:, None]
    own = member.T @ scores
    others = (scores.sum(axis=0) - own) / np.maximum(1, len(scores) - n)
    return np.asarray((own / np.maximum(1, n) - others) / _spread(scores) * (n > 0))


def _without_itself(
    scores: Array, shots: Shots, chosen: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(N,) the word that each image's class would get without that image.

    It may take any word that no other class has. A class of which nothing is left gets the word
    that its images answer to least: no evidence is no argument for a new name. One that got none,
    as there are too few, has its name all along.
    """
    labels, spread = shots.images.labels, _spread(scores)
    given = chosen[chosen < scores.shape[1]]
    member = np.eye(len(shots.of_class))[labels]
    total, own = scores.sum(axis=0), member.T @ scores
    found = np.empty(len(labels), dtype=np.int64)
    for place, label in enumerate(labels.tolist()):
        if chosen[label] not in given:
            found[place] = chosen[label]
            continue
        left = shots.of_class[label] - 1
        rest = own[label] - scores[place]
        others = (total - own[label]) / max(1, len(scores) - left - 1)
        margin = settled((rest / left - others) / spread) if left else -scores[place]
        margin[np.setdiff1d(given, chosen[label])] = -np.inf
        found[place] = margin.argmax()
    return found


def _spread(scores: Array) -> Array:
    """(W,) standard deviations, with a little of their mean so that none is 0."""
    spread = scores.std(axis=0)
    return np.asarray(spread + 0.1 * spread.mean() + 1e-9)
