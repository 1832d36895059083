"""BPT-VLM as released (Yu et al., IJCAI 2023), the part that prompts the text tower.

Access: ``soft``. Equation (1) is that of :mod:`llmopt.search.soft.bptvlm`, p0 being zero vectors.
The result is the candidate of the lowest training loss ever seen.

Queries: K soft-prompt encodings a candidate, which the paper counts as one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import torch
from annotated_types import Interval

from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.bptvlm import BptVlm, CmaSettings
from llmopt.search.soft.machinery.evolution import Evolution
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.schedules import check_budget
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import SoftStart, check_room, plain_names
from llmopt.search.soft.machinery.walk import march
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access, BlackBox

_BUDGETS: Final = {
    "dtd": 36_000,
    "ucf101": 25_200,
    "eurosat": 25_200,
    "stanford_cars": 25_200,
    "sun397": 18_000,
    "imagenet": 14_400,
}


@dataclass(frozen=True)
class BptVlmReleasedSettings(CmaSettings):
    """Settings of ``bptvlm`` with ``profile=released``; its defaults are the released code's.

    Attributes:
        budget: contexts scored; None is 36,000 (DTD), 25,200 (UCF101, EuroSAT, Cars), 18,000
            (SUN397), 14,400 (ImageNet) or 3,600.
        tokens: m, of the context.
    """

    tokens: Annotated[int, Interval(ge=1, le=64)] = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.budget, self.population)


class BptVlmReleased(Optimizer[BptVlmReleasedSettings]):
    """Black-box tuning of text prompts for vision-language models, as released."""

    name = BptVlm.name
    form = "released"
    FORMS = BptVlm.FORMS
    access = Access.SOFT
    Settings = BptVlmReleasedSettings

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and room for the zero vectors."""
        super().check(box, task)
        check_room(box, self.settings.tokens, task.classnames)

    def bounds(self, task: Task) -> Spend:
        """Exact, unless a rule of CMA-ES ends the search early."""
        classes, images = len(task.classnames), len(task.train)
        candidates = self._steps(task) * self.settings.population
        return Spend(
            image_encodings=images,
            soft_prompt_encodings=candidates * classes,
            pairs_scored=candidates * classes * images,
        )

    def run(self, search: Search) -> Outcome:
        """Evolve from zero vectors; end with the lowest training loss."""
        s, task, box = self.settings, search.task, search.box
        zeros = torch.zeros(s.tokens, box.embed_text("a").shape[1])
        start = SoftStart(zeros, plain_names(task.classnames))
        subspace, cma = s.evolution(search, start)
        walk = Evolution(search, start.names, subspace, cma, Encoded.of(box, task.train))
        reason = march(search, walk, self._steps(task))
        calls = {"calls_as_published": cma.generation * s.population}
        predictor = SoftPredictor(walk.best_context.numpy(), start.names)
        return Outcome(predictor, reason, summary=calls)

    def _steps(self, task: Task) -> int:
        budget = self.settings.budget or _BUDGETS.get(task.dataset, 3_600)
        return budget // self.settings.population
