"""CoOp (Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022).

Access: white box. It differentiates through the text tower, so it is no black-box method: it stands
here as the upper reference for the others. The black box must be of level ``soft`` and give
gradients, which a remote one does not.

The context p minimises the cross-entropy of the few shots,

    ``min_p  mean_i CE(tau x_i . t(p), y_i)``                                                (1)

by SGD with momentum, its rate on a cosine over the epochs after a first one at 1e-5.

======================== ======================================== ==============================
setting                  ``released``                             ``llmopt`` (default)
======================== ======================================== ==============================
start                    16 random vectors, N(0, 0.02^2), or, if  the words of the start template
                         ``words`` are given, theirs
rate                     2e-3                                     0.1 of a word's spread
momentum, weight decay   0.9, 5e-4                                0.9, 0
images                   batches of 32, augmented and encoded     the same batches, of images
                         anew in every epoch                      encoded once
epochs                   50 at 1 shot, 100 at 2 to 4, 200 above;  the same
                         50 on ImageNet
result                   the last step                            chosen on validation images
======================== ======================================== ==============================

The class name stands at the end; CoOp's middle and front positions are left out.

Queries: each step encodes K soft prompts, one context for every class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from llmopt.data.augment import Augmentation
from llmopt.errors import AccessError
from llmopt.search.base import Bounds, Optimizer, Outcome, Search
from llmopt.search.soft.machinery.checks import check_range
from llmopt.search.soft.machinery.images import Encoded, fresh_batch
from llmopt.search.soft.machinery.schedules import by_shots, cosine_rate, per_epoch
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import (
    SoftStart,
    check_room,
    plain_names,
    soft_start,
    words_start,
)
from llmopt.search.soft.machinery.torch_state import pack, unpack
from llmopt.search.soft.machinery.trail import bounds as trail_bounds
from llmopt.search.soft.machinery.walk import Walk, follow, march
from llmopt.task import Task
from llmopt.vision.base import Access, BlackBox


@dataclass(frozen=True)
class CoopSettings:
    """Settings of ``coop``; the table above has their values in the profile ``released``.

    Attributes:
        profile: ``llmopt`` or ``released``.
        epochs: passes over the images; None is by shots.
        tokens: length of a random context (``released``).
        words: start from these instead, as "a photo of a" (``released``).
        class_specific: a context for each class.
        rate: of SGD; 0 is a tenth of the spread of the token embeddings.
        momentum: of SGD.
        decay: L2 penalty in the gradient.
        batch: images a step.
        views: augmented views of each training image (``llmopt``).
        flip: mirror half of the augmented images (``released``).
        standard_errors: how many a gain over the start must exceed to be kept (``llmopt``).
    """

    profile: str = "llmopt"
    epochs: int | None = None
    tokens: int = 16
    words: str = ""
    class_specific: bool = False
    rate: float = 0.0
    momentum: float = 0.9
    decay: float = 0.0
    batch: int = 32
    views: int = 0
    flip: bool = True
    standard_errors: float = 1.0

    def __post_init__(self) -> None:
        check_range("tokens", self.tokens, 1, 64)
        check_range("batch", self.batch, 1)
        check_range("momentum", self.momentum, 0, 1)
        for name in ("rate", "decay", "views", "standard_errors"):
            check_range(name, getattr(self, name), 0)
        if self.epochs is not None:
            check_range("epochs", self.epochs, 1)


class Sgd(Walk):
    """The algorithm; one step is one epoch.

    Args:
        settings: of ``coop``.
        search: task and black box.
        start: where the context stands at first.
        epochs: length of the cosine.
        rate: its top.
        warm_up_rate: of the first epoch.
        fit: the images; None augments and encodes them anew in every epoch.
    """

    def __init__(
        self,
        settings: CoopSettings,
        search: Search,
        start: SoftStart,
        epochs: int,
        rate: float,
        warm_up_rate: float,
        fit: Encoded | None = None,
    ) -> None:
        self.settings, self.search, self.names, self.fit = settings, search, start.names, fit
        self.epochs, self.rate, self.warm_up_rate = epochs, rate, warm_up_rate
        context = start.context
        if settings.class_specific:
            context = context.expand(len(start.names), *context.shape)
        self.p = context.clone().requires_grad_()
        self.sgd = torch.optim.SGD(
            [self.p], lr=rate, momentum=settings.momentum, weight_decay=settings.decay
        )
        images = len(fit) if fit else len(search.task.train)
        self.cost = per_epoch(images, settings.batch)

    @property
    def context(self) -> torch.Tensor:
        """p."""
        return self.p.detach().clone()

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One epoch."""
        self.sgd.param_groups[0]["lr"] = cosine_rate(
            step, self.epochs, self.rate, self.warm_up_rate
        )
        total = 0.0
        for number in range(step * self.cost, (step + 1) * self.cost):
            images = self._batch(number)
            logits = self.search.box.soft_logits(
                images.features, self.p[None], self.names, grad=True
            )[0]
            loss = F.cross_entropy(logits, images.labels.to(logits.device))
            self.sgd.zero_grad()
            torch.autograd.backward(loss)
            self.sgd.step()
            total += loss.item()
        return total / self.cost

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The context and its momentum."""
        return {"p": self.context.numpy(), **pack(self.sgd)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        with torch.no_grad():
            self.p.copy_(torch.from_numpy(state["p"]))
        unpack(self.sgd, state)

    def _batch(self, number: int) -> Encoded:
        size = self.settings.batch
        if self.fit is None:
            how = Augmentation(scale=(0.08, 1.0), flip=self.settings.flip)
            return fresh_batch(self.search, number, size, how)
        epoch, place = divmod(number, self.cost)
        order = self.search.rng("epoch", epoch).permutation(len(self.fit))
        return self.fit[order[place * size : (place + 1) * size]]


class Coop(Optimizer[CoopSettings]):
    """Context optimisation, the white-box reference."""

    name = "coop"
    access = Access.SOFT
    Settings = CoopSettings
    PROFILES: ClassVar = {"llmopt": {}, "released": {"rate": 2e-3, "decay": 5e-4}}
    ONLY: ClassVar = {
        **dict.fromkeys(("tokens", "words", "flip"), frozenset({"released"})),
        **dict.fromkeys(("views", "standard_errors"), frozenset({"llmopt"})),
    }

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and room for the vectors of the published start."""
        super().check(box, task)
        if not box.gives_gradients:
            raise AccessError(
                f"optimizer 'coop' needs gradients, which {box.info.name} does not give; use a "
                "model that runs here, with --model, or craft, cbbt, zip or bbt"
            )
        if self.settings.profile == "released":
            check_room(box, self.settings.tokens, task.classnames)

    def bounds(self, task: Task) -> Bounds:
        """Exact."""
        s, epochs, classes = self.settings, self._epochs(task), len(task.classnames)
        if s.profile == "llmopt":
            images = len(task.train) * (1 + s.views)
            steps = epochs * per_epoch(images, s.batch)
            walk = trail_bounds(task, s.views, epochs + 1, 0)
            pairs = steps * min(s.batch, images) * classes
            return Bounds(
                image_encodings=walk.image_encodings,
                text_encodings=walk.text_encodings,
                soft_prompt_encodings=walk.soft_prompt_encodings + steps * classes,
                pairs_scored=walk.pairs_scored + pairs,
            )
        size = min(s.batch, len(task.train))
        steps = epochs * per_epoch(len(task.train), s.batch)
        return Bounds(
            image_encodings=steps * size,
            soft_prompt_encodings=steps * classes,
            pairs_scored=steps * classes * size,
        )

    def run(self, search: Search) -> Outcome:
        """Run the profile's schedule."""
        s, task, box = self.settings, search.task, search.box
        epochs = self._epochs(task)
        if s.profile == "llmopt":
            start = soft_start(box, task.start, task.classnames)
            rate = s.rate or 0.1 * box.embedding_std
            return follow(
                search,
                start.names,
                lambda fit: Sgd(s, search, start, epochs, rate, rate, fit),
                epochs,
                views=s.views,
                standard_errors=s.standard_errors,
            )
        start = self._published_start(search)
        walk = Sgd(s, search, start, epochs, s.rate, 1e-5)
        reason = march(search, walk, epochs)
        return Outcome(SoftPredictor(walk.context.numpy(), start.names), reason)

    def _published_start(self, search: Search) -> SoftStart:
        classnames = search.task.classnames
        if self.settings.words:
            return words_start(search.box, self.settings.words, classnames)
        width = search.box.embed_text("a").shape[1]
        p0 = search.rng("coop", "start").normal(0.0, 0.02, (self.settings.tokens, width))
        return SoftStart(torch.from_numpy(p0.astype(np.float32)), plain_names(classnames))

    def _epochs(self, task: Task) -> int:
        if self.settings.epochs is not None:
            return self.settings.epochs
        return 50 if task.dataset == "imagenet" else by_shots(task.shots, 50, 100, 200)
