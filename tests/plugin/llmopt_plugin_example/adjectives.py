"""``--optimizer adjectives``: the start with one of a few words before the class name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from llmopt.errors import BudgetExhausted
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.text.archive import Archive
from llmopt.search.text.selection import FINALISTS, choose, second_look
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.template import Template

WORDS = ("pale", "small", "vivid", "blurry", "dark")


@dataclass(frozen=True)
class AdjectiveSettings(Settings):
    """Settings of ``adjectives``.

    Attributes:
        words: how many words are tried.
    """

    words: Annotated[int, Interval(ge=1, le=len(WORDS))] = len(WORDS)


class Adjectives(Optimizer[AdjectiveSettings]):
    """Tries every word. Counts K text encodings for each."""

    name = "adjectives"
    Settings = AdjectiveSettings

    def bounds(self, task: Task) -> Spend:
        """The start and every word."""
        count = 1 + self.settings.words
        images, classes = len(task.train) + len(task.val), len(task.classnames)
        texts = count * classes + second_look(task, count)
        return Spend(
            image_encodings=images, text_encodings=texts, pairs_scored=count * classes * images
        )

    def run(self, search: Search) -> Outcome:
        """Score them all and choose."""
        archive = Archive(search)
        start = search.task.start.text
        words = WORDS[: self.settings.words]
        reason = "iterations"
        try:
            tried = [Template(start.replace("{}", f"{word} {{}}")) for word in words]
            archive.score(archive.fresh([search.task.start, *tried]))
        except BudgetExhausted as spent:
            reason = spent.stop_reason
        choice = choose(search, archive.ranked(), finalists=FINALISTS)
        return Outcome(choice.predictor, reason, choice.fallback, choice.templates)
