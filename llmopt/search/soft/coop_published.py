"""CoOp as released (Zhou et al., IJCV 2022): random vectors, augmented batches, the last step.

Access: white box, as :mod:`llmopt.search.soft.coop`, whose equation (1) it minimises. The context
starts as 16 random vectors from N(0, 0.02^2), drawn for each class where it has a context of its
own, or as the vectors of given words. Every epoch
augments and encodes the training images anew, in batches of 32; the first one runs at a rate of
1e-5, the others on a cosine from 2e-3 to 0. Momentum is 0.9, weight decay 5e-4. The result is
wherever the last step led.

Queries: each step encodes K soft prompts, one context for every class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Interval

from llmopt.data.augment import Augmentation
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.coop import Coop, Sgd, SgdSettings, check_gradients
from llmopt.search.soft.machinery.images import fresh_batch
from llmopt.search.soft.machinery.schedules import per_epoch, warmed_up_rate
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import SoftStart, check_room, plain_names, words_start
from llmopt.search.soft.machinery.walk import march
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access, BlackBox


@dataclass(frozen=True)
class CoopReleasedSettings(SgdSettings):
    """Settings of ``coop`` with ``profile=released``; the defaults are those of the released code.

    Attributes:
        tokens: length of a random context.
        words: start from these instead, as "a photo of a".
        flip: mirror half of the augmented images.
    """

    rate: Annotated[float, Ge(0)] = 2e-3
    decay: Annotated[float, Ge(0)] = 5e-4
    tokens: Annotated[int, Interval(ge=1, le=64)] = 16
    words: str = ""
    flip: bool = True


class CoopReleased(Optimizer[CoopReleasedSettings]):
    """Context optimisation, the white-box reference, as released."""

    name = Coop.name
    form = "released"
    FORMS = Coop.FORMS
    access = Access.SOFT
    Settings = CoopReleasedSettings

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, that there are gradients, and room for the vectors of the start."""
        super().check(box, task)
        check_gradients(box)
        check_room(box, self.settings.tokens, task.classnames)

    def bounds(self, task: Task) -> Spend:
        """Upper bounds of the spend; exact."""
        s, classes, images = self.settings, len(task.classnames), len(task.train)
        steps, size = s.epochs_of(task) * per_epoch(images, s.batch), min(s.batch, images)
        return Spend(
            image_encodings=steps * size,
            soft_prompt_encodings=steps * classes,
            pairs_scored=steps * classes * size,
        )

    def run(self, search: Search) -> Outcome:
        """Descend from random vectors or words; end with the last step."""
        s, start = self.settings, self._start(search)
        how = Augmentation(scale=(0.08, 1.0), flip=s.flip)
        batches = per_epoch(len(search.task.train), s.batch)
        epochs = s.epochs_of(search.task)
        walk = Sgd(
            s,
            search,
            start,
            lambda number: fresh_batch(search, number, s.batch, how),
            batches,
            lambda epoch: warmed_up_rate(epoch, epochs, s.rate),
        )
        reason = march(search, walk, epochs)
        return Outcome(SoftPredictor(walk.context.numpy(), start.names), reason)

    def _start(self, search: Search) -> SoftStart:
        classnames = search.task.classnames
        if self.settings.words:
            return words_start(search.box, self.settings.words, classnames)
        width = search.box.embed_text("a").shape[1]
        shape = [len(classnames)] if self.settings.class_specific else []
        shape += [self.settings.tokens, width]
        p0 = search.rng("coop", "start").normal(0.0, 0.02, shape)
        return SoftStart(torch.from_numpy(p0.astype(np.float32)), plain_names(classnames))
