"""How much descriptions of classes count beside a template, decided on the few shots.

Five ways are compared by the likelihood of the shots: the template alone; the descriptions with
half of the weight or all of it, all alike or by how well each ranks the shots of its class above
the others. The last is fitted to the images it is judged on, so that each image's own class is
weighted without it. A way replaces the template where its gain convinces; after that, classes for
which the template is better go back to it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from llmopt.search.base import Search, TemplateResult
from llmopt.search.text.archive import Scored
from llmopt.search.text.described import Bank, DescribedPredictor, Weights
from llmopt.stats import log_likelihoods, settled
from llmopt.task import FloatArray, IntArray, Labelled, Task

Array = npt.NDArray[np.float64]
Logits = npt.NDArray[np.floating[Any]]

SHARES = (0.5, 1.0)
"""Of the descriptions in an embedding, tried beside none."""

DOUBT = 4.0
"""Shots a class at which what its images say of a description counts half."""

LEAST = 0.05
"""Of the template's loss that descriptions must take away."""


@dataclass(frozen=True)
class Chosen:
    """Prompts, what they were scored with, and how they count.

    Attributes:
        prompts: K lists.
        bank: of them.
        weights: (M, K).
        logits: (N, K) that come of it.
    """

    prompts: list[list[str]]
    bank: Bank
    weights: Weights
    logits: FloatArray

    @property
    def described(self) -> int:
        """Classes for which descriptions count."""
        return int((self.weights[1:].sum(axis=0) > 0).sum())

    def predictor(self, task: Task) -> DescribedPredictor:
        """Prompts that count, and their weights."""
        used = [
            {
                text: float(self.weights[m, k])
                for m, text in enumerate(own)
                if self.weights[m, k] > 0
            }
            for k, own in enumerate(self.prompts)
        ]
        return DescribedPredictor(
            task.start,
            task.classnames,
            tuple(tuple(own) for own in used),
            tuple(tuple(own.values()) for own in used),
        )


@dataclass(frozen=True)
class Shots:
    """Training images, and validation images after them.

    Attributes:
        images: N of both.
        trained: the first ones, of training.
        of_class: (K,) how many each class has.
    """

    images: Labelled
    trained: int
    of_class: npt.NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, search: Search) -> Shots:
        """Those of a task."""
        train, val = search.task.train, search.task.val
        labels = np.concatenate([train.labels, val.labels])
        images = Labelled(train.images + val.images, labels)
        return cls(images, len(train), np.bincount(labels, minlength=len(search.task.classnames)))

    def result(self, task: Task, logits: FloatArray) -> TemplateResult:
        """The template, as it stands in results."""
        scored = Scored.of(task.start, logits[: self.trained], task.train)
        _, val = self.accuracies(logits)
        return TemplateResult(task.start.text, 1.0, scored.accuracy, round(scored.logprob, 6), val)

    def accuracies(self, logits: FloatArray) -> tuple[float, float | None]:
        """On training images, and on validation images if there are any."""
        right = logits.argmax(axis=1) == self.images.labels
        train, val = right[: self.trained], right[self.trained :]
        return float(train.mean()), float(val.mean()) if len(val) else None

    def plain(self, search: Search) -> Chosen:
        """The start template and nothing else."""
        prompts = [[prompt] for prompt in search.task.start.fill_all(search.task.classnames)]
        bank, weights = Bank(search.box, prompts, self.images), np.ones((1, len(prompts)))
        return Chosen(prompts, bank, weights, bank.logits(weights))

    def confused(self, logits: FloatArray, most: int) -> list[tuple[int, int]]:
        """Pairs of a class and what it is taken for, most often first."""
        taken = zip(self.images.labels.tolist(), logits.argmax(axis=1).tolist(), strict=True)
        wrong = Counter(pair for pair in taken if pair[0] != pair[1])
        return sorted(wrong, key=lambda pair: (-wrong[pair], pair))[:most]

    def weigh(self, search: Search, descriptions: list[list[str]], before: Chosen) -> Chosen:
        """The most likely way to count descriptions, if it convinces; else ``before``.

        Args:
            search: its black box encodes them.
            descriptions: K lists of whole prompts.
            before: the template alone.
        """
        prompts = [
            list(dict.fromkeys([*plain, *own]))
            for plain, own in zip(before.prompts, descriptions, strict=True)
        ]
        bank = Bank(search.box, prompts, self.images)
        described = np.asarray(bank.there[1:].any(axis=0))
        uniform = _shares(bank.there[1:].astype(float))
        ranked, without = self._ranked(bank)
        best, best_left = before, _likelihoods(before.logits, self.images)
        start = best_left
        for of_descriptions, each in ((uniform, None), (ranked, without)):
            for share in SHARES:
                weights = _mixed(of_descriptions, described, share)
                logits = bank.logits(weights)
                left = self._left_out(bank, logits, each, described, share)
                likelihoods = _likelihoods(left, self.images)
                if settled(likelihoods.mean()) > settled(best_left.mean()):
                    best, best_left = Chosen(prompts, bank, weights, logits), likelihoods
        labels = self.images.labels
        if best is before or not convinces(best_left, start, best.logits, before.logits, labels):
            return before
        return self._back(best, before)

    def _ranked(self, bank: Bank) -> tuple[Weights, Array]:
        """(M - 1, K) weights by how well descriptions rank their class's images, and (N, M - 1) of
        each image for its own class without itself."""
        own, every, each = bank.singly(self.images.labels)
        n = self.of_class.astype(float)
        others = (every - own) / np.maximum(1, n.sum() - n)
        labels = self.images.labels
        margin = own / np.maximum(1, n) - others
        alone = (own[:, labels].T - each) / np.maximum(1, n[labels] - 1)[:, None]
        left = alone - others[:, labels].T
        weights = _softmax(margin[1:], n / (n + DOUBT), bank.there[1:])
        n_left = n[labels] - 1
        without = _softmax(left.T[1:], n_left / (n_left + DOUBT), bank.there[1:][:, labels])
        return weights, without.T

    def _left_out(
        self,
        bank: Bank,
        logits: FloatArray,
        each: Array | None,
        described: npt.NDArray[np.bool_],
        share: float,
    ) -> FloatArray:
        """The logits, each image's own class weighted without that image."""
        if each is None:
            return logits
        left = logits.copy()
        for place, label in enumerate(self.images.labels.tolist()):
            if described[label]:
                weights = np.concatenate([[1 - share], share * each[place]])
                left[place, label] = bank.column(place, label, weights)
        return left

    def _back(self, chosen: Chosen, before: Chosen) -> Chosen:
        """Classes for which the template is better go back to it."""
        weights = chosen.weights.copy()
        described = weights[1:].sum(axis=0) > 0
        back = described & better_apart(chosen.logits, before.logits, self.images.labels)
        weights[:, back] = 0.0
        weights[0, back] = 1.0
        return Chosen(chosen.prompts, chosen.bank, weights, chosen.bank.logits(weights))


def convinces(after: Array, before: Array, logits: Logits, plain: Logits, labels: IntArray) -> bool:
    """Whether new prompts may replace the template.

    Their mean gain must exceed its standard error and :data:`LEAST` of the template's loss, and no
    fewer images may be right.

    Args:
        after, before: (N,) log-likelihoods of the true class.
        logits, plain: (N, K) likewise of the new prompts and of the template.
        labels: (N,).
    """
    gain = after - before
    error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
    least = max(float(error), LEAST * -float(before.mean()))
    right, was = (np.mean(one.argmax(axis=1) == labels) for one in (logits, plain))
    return bool(settled(gain.mean()) > settled(least) and right >= was)


def better_apart(logits: Logits, plain: Logits, labels: IntArray) -> npt.NDArray[np.bool_]:
    """(K,) classes that had better keep the template's score, tried one after the other.

    Judged on the images a class can touch: its own, and those that are taken for it either way. The
    gain must exceed its standard error.
    """
    now = logits.astype(np.float64)
    kept = np.zeros(logits.shape[1], dtype=bool)
    for k in range(logits.shape[1]):
        changed = now.copy()
        changed[:, k] = plain[:, k]
        touched = (labels == k) | (now.argmax(axis=1) == k) | (changed.argmax(axis=1) == k)
        gain = log_likelihoods(changed[touched], labels[touched])
        gain = gain - log_likelihoods(now[touched], labels[touched])
        if len(gain) > 1 and settled(gain.mean()) > settled(gain.std(ddof=1) / np.sqrt(len(gain))):
            now, kept[k] = changed, True
    return kept


def _shares(there: Array) -> Weights:
    """Columns that sum to 1, or to 0 where there is nothing."""
    return np.asarray(there / np.maximum(1.0, there.sum(axis=0)))


def _softmax(scores: Array, trust: Array, there: npt.NDArray[np.bool_]) -> Weights:
    """Columns of shares that grow with ``trust`` times ``scores``."""
    scores = np.where(there, trust * scores, -np.inf)
    top = np.max(scores, axis=0, initial=-np.inf, keepdims=True)
    raised = np.exp(scores - np.where(np.isfinite(top), top, 0.0))
    return np.asarray(raised / np.maximum(raised.sum(axis=0), 1e-300))


def _mixed(weights: Weights, described: npt.NDArray[np.bool_], share: float) -> Weights:
    """Of descriptions a share, of the template the rest; (M, K)."""
    of_template = np.where(described, 1 - share, 1.0)
    return np.vstack([of_template, share * weights])


def _likelihoods(logits: FloatArray, images: Labelled) -> Array:
    return log_likelihoods(logits, images.labels)
