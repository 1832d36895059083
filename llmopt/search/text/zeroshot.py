"""The start template as it is: what every search is measured against."""

from __future__ import annotations

from dataclasses import dataclass

from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.text.selection import choose, second_look
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task


@dataclass(frozen=True)
class ZeroShotSettings(Settings):
    """``zeroshot`` has no settings."""


class ZeroShot(Optimizer[ZeroShotSettings]):
    """One template, no search. Counts K text encodings."""

    name = "zeroshot"
    Settings = ZeroShotSettings

    def bounds(self, task: Task) -> Spend:
        """One template on all few shots."""
        images, classes = len(task.train) + len(task.val), len(task.classnames)
        return Spend(
            image_encodings=images,
            text_encodings=classes + second_look(task, 1),
            pairs_scored=images * classes,
        )

    def run(self, search: Search) -> Outcome:
        """Score the start, so that its figures stand in the result."""
        choice = choose(search, [])
        return Outcome(choice.predictor, templates=choice.templates)
