"""Random templates: the control at equal evaluations that every search must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge

from llmopt.errors import BudgetExhausted
from llmopt.resources import read_lines
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.text.archive import Archive, Fitness
from llmopt.search.text.selection import FINALISTS, choose, second_look
from llmopt.sentences import Sentence, vocabulary
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.spend.events import Progress
from llmopt.task import Task
from llmopt.template import Template

BATCH = 32


@dataclass(frozen=True)
class RandomSettings(Settings):
    """Settings of ``random``.

    Attributes:
        evaluations: templates scored; the default is what ``chat`` may score by default.
        fitness: ``likelihood`` or ``accuracy``.
        finalists: candidates of the final choice.
    """

    evaluations: Annotated[int, Ge(1)] = 744
    fitness: Fitness = "likelihood"
    finalists: Annotated[int, Ge(1)] = FINALISTS


class Random(Optimizer[RandomSettings]):
    """Draws from the caption pool and the built-in vocabulary. Counts K encodings per template."""

    name = "random"
    Settings = RandomSettings

    def bounds(self, task: Task) -> Spend:
        """Every template on all few shots."""
        templates = self.settings.evaluations
        images, classes = len(task.train) + len(task.val), len(task.classnames)
        return Spend(
            image_encodings=images,
            text_encodings=templates * classes
            + second_look(task, min(self.settings.finalists + 1, templates)),
            pairs_scored=templates * images * classes,
        )

    def run(self, search: Search) -> Outcome:
        """Draw, score, choose."""
        archive = Archive(search, fitness=self.settings.fitness, best=self.settings.finalists)
        rng = search.rng("random")
        reason = "evaluations"
        try:
            archive.score([search.task.start])
            while (left := self.settings.evaluations - len(archive)) > 0:
                drawn = [draw_template(rng) for _ in range(min(BATCH, left))]
                archive.score(archive.fresh(drawn))
                best = archive.best()
                search.on_progress(
                    Progress(
                        len(archive),
                        self.settings.evaluations,
                        best.template.text,
                        train_accuracy=best.accuracy,
                        score=best.fitness,
                    )
                )
        except BudgetExhausted as spent:
            reason = spent.stop_reason
        choice = choose(search, archive.ranked(), finalists=self.settings.finalists)
        return Outcome(
            choice.predictor,
            reason,
            choice.fallback,
            choice.templates,
            summary={"dropped_early": len(archive.dropped)} if archive.dropped else {},
        )


def draw_template(rng: np.random.Generator) -> Template:
    """A caption of the pool, or a sentence of random phrases, with equal chances."""
    if rng.random() < 0.5:
        captions = read_lines("templates/captions.txt")
        return Template(captions[int(rng.integers(len(captions)))])

    def some(section: str, chance: float) -> str:
        phrases = vocabulary()[section]
        return phrases[int(rng.integers(len(phrases)))] if rng.random() < chance else ""

    before = tuple(filter(None, (some("before", 0.7), some("before", 0.3))))
    return Template(
        str(Sentence(some("frame", 0.8), "a", before, some("after", 0.4), some("tail", 0.2)))
    )
