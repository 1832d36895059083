"""Templates that people wrote by hand, for the data set or for any."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from llmopt.errors import BudgetExhausted
from llmopt.predictor import TextPredictor
from llmopt.resources import read_lines, read_prompt
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.text.archive import Archive
from llmopt.search.text.selection import FINALISTS, choose, second_look
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.template import Template


@dataclass(frozen=True)
class HandcraftedSettings(Settings):
    """Settings of ``handcrafted``.

    Attributes:
        templates: ``dataset`` (what CoOp uses for it), ``subset`` (the seven of CLIP's ImageNet
            templates that are usually averaged, and the data set's own), ``openai`` (the eighty
            that CLIP's authors average for ImageNet) or ``generic`` (thirty sentences); all but the
            first are for any data.
        mode: ``ensemble`` averages all of them, ``best`` chooses one on the few shots.
    """

    templates: Literal["dataset", "subset", "openai", "generic"] = "dataset"
    mode: Literal["ensemble", "best"] = "ensemble"


class Handcrafted(Optimizer[HandcraftedSettings]):
    """A fixed list of templates, averaged or raced. Counts K text encodings per template."""

    name = "handcrafted"
    Settings = HandcraftedSettings

    def bounds(self, task: Task) -> Spend:
        """Every template of the list, and the start."""
        templates = len(self._templates(task)) + 1
        images, classes = len(task.train) + len(task.val), len(task.classnames)
        return Spend(
            image_encodings=images,
            text_encodings=templates * classes + second_look(task, templates),
            pairs_scored=templates * images * classes,
        )

    def ensemble(self, task: Task) -> int:
        """All, where they are averaged."""
        return len(self._templates(task)) if self.settings.mode == "ensemble" else 1

    def remarks(self, task: Task) -> tuple[str, ...]:
        """That there is no list for the data, where there is none."""
        if self.settings.templates != "dataset" or set(self._templates(task)) != {task.start}:
            return ()
        return (
            f"nobody wrote templates for {task.dataset}, so there is only the start; --set "
            "templates=openai averages the eighty of CLIP's authors, which are for any data",
        )

    def run(self, search: Search) -> Outcome:
        """Score them all; average them, or choose the best."""
        templates = self._templates(search.task)
        choosing = self.settings.mode == "best"
        archive = Archive(search, best=FINALISTS if choosing else None)
        reason = "complete"
        try:
            archive.score(archive.fresh([search.task.start, *templates]))
        except BudgetExhausted as spent:
            reason = spent.stop_reason
        if choosing or reason != "complete":
            choice = choose(search, archive.ranked(), finalists=FINALISTS)
            return Outcome(choice.predictor, reason, choice.fallback, choice.templates)
        share = 1 / len(templates)
        predictor = TextPredictor(
            templates, search.task.classnames, tuple(share for _ in templates)
        )
        members = {template.text for template in templates}
        looked_at = choose(search, archive.ranked(), finalists=len(templates)).templates
        results = [replace(one, weight=share * (one.text in members)) for one in looked_at]
        results.sort(key=lambda one: one.weight, reverse=True)
        return Outcome(predictor, reason, templates=tuple(results))

    def _templates(self, task: Task) -> tuple[Template, ...]:
        own = task.handcrafted or (task.start,)
        if self.settings.templates == "dataset":
            return own
        if self.settings.templates == "generic":
            return tuple(Template(text) for text in read_lines("templates/generic.txt"))
        if self.settings.templates == "openai":
            return published("openai")
        return tuple(dict.fromkeys([*own, *published("subset")]))


@cache
def published(name: str) -> tuple[Template, ...]:
    """The eighty templates that CLIP's authors average for ImageNet, or the usual seven of them."""
    if name == "openai":
        texts = json.loads(read_prompt("templates/handcrafted.json"))["imagenet"]["openai"]
    else:
        texts = read_lines("templates/clip_subset.txt")
    return tuple(map(Template, texts))
