"""ZIP as released (Park et al., ICLR 2025): random vectors, batches, the last step.

Access: ``soft``. Equations (1) to (4) are those of :mod:`llmopt.search.soft.zip`. The context
starts as m random vectors from N(0, 0.02^2); each step draws a batch of training images, augmented
and encoded anew; the result is wherever the last step led.

Queries: 2 contexts a direction and step, K soft-prompt encodings each. The paper counts a context
on a batch of images as one call and does not count the images it encodes for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval

from llmopt.data.augment import Augmentation
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.machinery.images import fresh_batch
from llmopt.search.soft.machinery.schedules import check_budget
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import SoftStart, check_room, plain_names
from llmopt.search.soft.machinery.walk import march
from llmopt.search.soft.zip import Spsa, SpsaSettings, Zip
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access, BlackBox


@dataclass(frozen=True)
class ZipReleasedSettings(SpsaSettings):
    """Settings of ``zip`` with ``profile=released``; the defaults are those of the released code.

    Attributes:
        budget: contexts scored; None is 5,000.
        tokens: m, of the context.
        batch: images a step.
        flip: mirror half of the augmented images.
    """

    rate: Annotated[float, Gt(0)] = 0.01
    width: Annotated[float, Gt(0)] = 0.01
    budget: int | None = None
    tokens: Annotated[int, Interval(ge=1, le=64)] = 8
    batch: Annotated[int, Ge(1)] = 128
    flip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_budget(self.budget, 2 * self.directions)


class ZipReleased(Optimizer[ZipReleasedSettings]):
    """Zeroth-order intrinsic-dimensional prompt tuning, as released."""

    name = Zip.name
    form = "released"
    FORMS = Zip.FORMS
    access = Access.SOFT
    Settings = ZipReleasedSettings

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and room for the vectors of the published start."""
        super().check(box, task)
        check_room(box, self.settings.tokens, task.classnames)

    def bounds(self, task: Task) -> Spend:
        """Upper bounds of the spend; exact."""
        s, steps = self.settings, self._steps()
        contexts = 2 * s.directions * steps
        size, classes = min(s.batch, len(task.train)), len(task.classnames)
        return Spend(
            image_encodings=steps * size,
            soft_prompt_encodings=contexts * classes,
            pairs_scored=contexts * classes * size,
        )

    def run(self, search: Search) -> Outcome:
        """Walk from random vectors; end with the last step."""
        s, task, box = self.settings, search.task, search.box
        width = box.embed_text("a").shape[1]
        p0 = search.rng("zip", "start").normal(0.0, 0.02, (s.tokens, width))
        start = SoftStart(torch.from_numpy(p0.astype(np.float32)), plain_names(task.classnames))
        how = Augmentation(scale=(0.08, 1.0), flip=s.flip)
        walk = Spsa(s, search, start, lambda step: fresh_batch(search, step, s.batch, how))
        reason = march(search, walk, self._steps())
        scored = int(search.ledger["soft_prompt_encodings"]) // len(task.classnames)
        calls = {"calls_as_published": scored}
        return Outcome(SoftPredictor(walk.context.numpy(), start.names), reason, summary=calls)

    def _steps(self) -> int:
        return (self.settings.budget or 5000) // (2 * self.settings.directions)
