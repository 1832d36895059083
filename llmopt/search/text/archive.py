"""Templates tried so far, with what the few shots say of each."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from llmopt.errors import BudgetExhausted, TemplateError
from llmopt.search.base import Search
from llmopt.search.text.racing import race
from llmopt.stats import log_likelihoods, settled
from llmopt.task import FloatArray, IntArray, Labelled
from llmopt.template import Template
from llmopt.vision.scoring import accuracy, logprob

Fitness = Literal["likelihood", "accuracy"]
"""What candidates rank by: mean log-likelihood of the true class, or accuracy."""

FRONT = 24
"""Templates of a front, at most."""


@dataclass(frozen=True, eq=False)
class Scored:
    """A template and its scores on the training images.

    Attributes:
        template: the text.
        likelihoods: (N,) log-likelihood of the true class of each image, in nats.
        predicted: (N,) int64 class each image is taken for.
        correct: (N,) whether each image is recognised.
        fitness: what candidates rank by, higher is better.
    """

    template: Template
    likelihoods: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    correct: npt.NDArray[np.bool_]
    fitness: float

    @classmethod
    def of(
        cls,
        template: Template,
        logits: FloatArray,
        images: Labelled,
        fitness: Fitness = "likelihood",
    ) -> Scored:
        """What (N, K) logits of the images say of a template."""
        return _scored(template, judge(logits, images.labels), images, fitness)

    @property
    def accuracy(self) -> float:
        """Share of the training images recognised."""
        return float(self.correct.mean())

    @property
    def logprob(self) -> float:
        """Mean log-likelihood of the true class."""
        return float(self.likelihoods.mean())

    @property
    def score(self) -> float:
        """It as templates rank by it and as it is shown (see :func:`coarse`)."""
        return coarse(self.logprob)

    @property
    def rank(self) -> tuple[float, float, int, int]:
        """Larger is better: fitness, then likelihood, then fewer words, then fewer letters."""
        words, letters = self.template.length
        return self.fitness, self.score, -words, -letters


class Archive:
    """All templates scored in one stream of a search, without duplicates.

    Two templates are duplicates when the black box cannot tell them apart (same tokens). Ranking is
    by fitness; ties go to the better likelihood, then to the shorter template, then to the earlier.

    Args:
        search: where scores come from.
        stream: the journal stream scores are noted in.
        fitness: ``likelihood`` (mean log-likelihood of the true class) or ``accuracy``.
        best: how many of the best are wanted: new templates race for it
            (:mod:`llmopt.search.text.racing`). None scores all of them on all images.

    Attributes:
        dropped: those that dropped out of the race, by their normal form.
    """

    def __init__(
        self,
        search: Search,
        stream: str = "main",
        fitness: Fitness = "likelihood",
        *,
        best: int | None = None,
    ) -> None:
        self._search = search
        self._stream = stream
        self._fitness = fitness
        self._best = best
        self._scored: dict[Hashable, Scored] = {}
        self.dropped: dict[Hashable, Template] = {}

    def __len__(self) -> int:
        """Templates tried."""
        return len(self._scored) + len(self.dropped)

    def fresh(self, templates: Iterable[Template]) -> list[Template]:
        """Those not tried yet and short enough for the model, each once, in order."""
        new: dict[Hashable, Template] = {}
        for template in templates:
            form = self._form(template)
            tried = form in self._scored or form in self.dropped or form in new
            if not tried and self._fits(template):
                new[form] = template
        return list(new.values())

    def score(self, templates: Sequence[Template], stream: str = "") -> list[Scored]:
        """Score templates on the training images and keep them; without those that dropped out.

        Args:
            templates: not scored before.
            stream: of the journal, if not the archive's own.

        Raises:
            BudgetExhausted: a cap does not pay for all of them; those it paid for are kept.
        """
        task = self._search.task
        try:
            templates = self._race(templates, stream)
            if not templates:
                return []
            judged = self._search.box.score_templates(task.train, templates, task.classnames, judge)
        except BudgetExhausted as spent:
            # An interrupted run will be resumed and must then meet its own steps again, whole.
            if len(templates) > 1 and spent.currency != "interrupted":
                for template in templates:  # what is left may pay for some
                    self.score([template], stream)
            raise
        scored = [
            _scored(t, one, task.train, self._fitness)
            for t, one in zip(templates, judged, strict=True)
        ]
        for one in scored:
            self._scored[self._form(one.template)] = one
        self._search.event(
            "scored",
            stream or self._stream,
            templates=[
                {
                    "text": one.template.text,
                    "train_accuracy": round(one.accuracy, 4),
                    "train_logprob": round(one.logprob, 4),
                }
                for one in scored
            ],
        )
        return scored

    def find(self, template: Template) -> Scored | None:
        """What is known of a template, or None."""
        return self._scored.get(self._form(template))

    def ranked(self) -> list[Scored]:
        """All, best first."""
        return ranked(self._scored.values())

    def best(self) -> Scored:
        """The best so far."""
        return self.ranked()[0]

    def _race(self, templates: Sequence[Template], stream: str) -> Sequence[Template]:
        if self._best is None or not templates:
            return templates
        by_accuracy = self._fitness == "accuracy"
        known = [one.correct if by_accuracy else one.likelihoods for one in self._scored.values()]
        staying = race(
            self._search,
            templates,
            np.array(known, dtype=np.float64).reshape(len(known), len(self._search.task.train)),
            accuracy if by_accuracy else logprob,
            self._best,
        )
        if out := [one for one in templates if one not in staying]:
            self.dropped |= {self._form(one): one for one in out}
            texts = [one.text for one in out]
            self._search.event("dropped", stream or self._stream, templates=texts)
        return staying

    def _form(self, template: Template) -> Hashable:
        return self._search.box.normal_form(template, self._search.task.classnames)

    def _fits(self, template: Template) -> bool:
        try:
            self._search.box.check(template, self._search.task.classnames)
        except TemplateError:
            return False
        return True


def coarse(logprob: float) -> float:
    """A mean log-likelihood to two decimals; to three or four where it is close to 0.

    Finer than few images can tell, and coarse enough to be the same on every processor: the last
    bits of the features differ from one to another, and a conversation that shows them goes
    elsewhere.
    """
    decimals = 2 if logprob <= -0.1 else 3 if logprob <= -0.01 else 4
    return round(float(logprob), decimals) + 0.0  # no "-0.0"


def ranked(scored: Iterable[Scored]) -> list[Scored]:
    """Best first; the earlier of equals first."""
    return sorted(scored, key=lambda one: one.rank, reverse=True)


def front(scored: Sequence[Scored], most: int = FRONT) -> tuple[Template, ...]:
    """Templates that together do best if each image may choose its own, one after the other."""
    found: list[Template] = []
    if scored:
        table = settled(np.stack([one.likelihoods for one in scored]))
        reached = np.full(table.shape[1], -np.inf)
        for _ in range(min(most, len(scored))):
            place = int(np.maximum(table, reached).mean(axis=1).argmax())
            if found and np.array_equal(np.maximum(table[place], reached), reached):
                break
            found.append(scored[place].template)
            reached = np.maximum(table[place], reached)
    return tuple(found)


def judge(logits: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """(..., N, 2) log-likelihood of the true class, and the class taken for it."""
    return np.stack([log_likelihoods(logits, labels), logits.argmax(axis=-1)], axis=-1)


def _scored(
    template: Template, judged: npt.NDArray[np.float64], images: Labelled, fitness: Fitness
) -> Scored:
    likelihoods, predicted = judged[:, 0], judged[:, 1].astype(np.int64)
    correct = predicted == images.labels
    value = coarse(likelihoods.mean()) if fitness == "likelihood" else correct.mean()
    return Scored(template, likelihoods, predicted, correct, float(value))
