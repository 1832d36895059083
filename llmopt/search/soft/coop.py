"""CoOp (Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022), from the user's
template and on images encoded once.

Access: white box. It differentiates through the text tower, so it is no black-box method: it stands
here as the upper reference for the others. The black box must be of level ``soft`` and give
gradients, which a remote one does not.

The context p minimises the cross-entropy of the few shots,

    ``min_p  mean_i CE(tau x_i . t(p), y_i)``                                                (1)

by SGD with momentum, its rate on a cosine over the epochs.

The default differs from the published algorithm (:mod:`llmopt.search.soft.coop_published`) in:

======================== ======================================== ==============================
setting                  ``released``                             ``llmopt`` (default)
======================== ======================================== ==============================
start                    16 random vectors, N(0, 0.02^2), or, if  the words of the start template
                         ``words`` are given, theirs
rate                     2e-3, after a first epoch at 1e-5        0.1 of a word's spread
weight decay             5e-4                                     0
images                   batches of 32, augmented and encoded     the same batches, of images
                         anew in every epoch                      encoded once
result                   the last step                            chosen on validation images
======================== ======================================== ==============================

The class name stands at the end; CoOp's middle and front positions are left out.

Queries: each step encodes K soft prompts, one context for every class; one context more an epoch,
for the choice in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy.typing as npt
import torch
from annotated_types import Ge, Interval
from torch.nn import functional as F

from llmopt.errors import AccessError
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.schedules import by_shots, cosine_rate, per_epoch
from llmopt.search.soft.machinery.start import SoftStart, soft_start
from llmopt.search.soft.machinery.torch_state import pack, unpack
from llmopt.search.soft.machinery.trail import trail_bounds
from llmopt.search.soft.machinery.walk import Walk, follow
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.base import Access, BlackBox


@dataclass(frozen=True)
class SgdSettings(Settings):
    """Settings of the descent, in either form.

    Attributes:
        epochs: passes over the images; None is 50 at 1 shot, 100 at 2 to 4, 200 above, and 50 on
            ImageNet.
        class_specific: a context for each class.
        rate: of SGD.
        momentum: of SGD.
        decay: L2 penalty in the gradient.
        batch: images a step.
    """

    epochs: Annotated[int, Ge(1)] | None = None
    class_specific: bool = False
    rate: Annotated[float, Ge(0)] = 0.0
    momentum: Annotated[float, Interval(ge=0, le=1)] = 0.9
    decay: Annotated[float, Ge(0)] = 0.0
    batch: Annotated[int, Ge(1)] = 32

    def epochs_of(self, task: Task) -> int:
        """The epochs set, or those that CoOp takes for a task."""
        if self.epochs is not None:
            return self.epochs
        return 50 if task.dataset == "imagenet" else by_shots(task.shots, 50, 100, 200)


@dataclass(frozen=True)
class CoopSettings(SgdSettings):
    """Settings of ``coop``; a rate of 0 is a tenth of the spread of the token embeddings.

    Attributes:
        views: augmented views of each training image.
        standard_errors: how many a gain over the start must exceed to be kept.
    """

    views: Annotated[int, Ge(0)] = 0
    standard_errors: Annotated[float, Ge(0)] = 1.0


class Sgd(Walk):
    """The descent; one step of the walk is one epoch.

    Args:
        settings: of the algorithm.
        search: task and black box.
        start: where the context stands at first.
        images: those of a step of SGD, by its number.
        batches: steps of SGD in an epoch.
        rate: of an epoch.
    """

    def __init__(
        self,
        settings: SgdSettings,
        search: Search,
        start: SoftStart,
        images: Callable[[int], Encoded],
        batches: int,
        rate: Callable[[int], float],
    ) -> None:
        self.search, self.names, self.images = search, start.names, images
        self.epochs, self.cost = settings.epochs_of(search.task), batches
        self.rate = rate
        context = start.context
        if settings.class_specific and context.ndim == 2:
            context = context.expand(len(start.names), *context.shape)
        self.p = context.clone().requires_grad_()
        self.sgd = torch.optim.SGD(
            [self.p], lr=rate(0), momentum=settings.momentum, weight_decay=settings.decay
        )

    @property
    def context(self) -> torch.Tensor:
        """(m, e) context p, or (K, m, e) with one for each class."""
        return self.p.detach().clone()

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """Pass over the images once; returns the mean loss, in nats."""
        self.sgd.param_groups[0]["lr"] = self.rate(step)
        total = 0.0
        for number in range(step * self.cost, (step + 1) * self.cost):
            images = self.images(number)
            logits = self.search.box.soft_logits(
                images.features, self.p[None], self.names, grad=True
            )[0]
            loss = F.cross_entropy(logits, images.labels.to(logits.device))  # (1)
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


def check_gradients(box: BlackBox) -> None:
    """Refuse a black box that gives no gradients.

    Raises:
        AccessError: it names the box and what to do.
    """
    if not box.gives_gradients:
        raise AccessError(
            f"optimizer 'coop' needs gradients, which {box.info.name} does not give; use a "
            "model that runs here, with --model, or craft, cbbt, zip or bbt"
        )


class Coop(Optimizer[CoopSettings]):
    """Context optimisation, the white-box reference."""

    name = "coop"
    form = "llmopt"
    FORMS: ClassVar = {
        "llmopt": "llmopt.search.soft.coop:Coop",
        "released": "llmopt.search.soft.coop_published:CoopReleased",
    }
    access = Access.SOFT
    Settings = CoopSettings
    starts_at_template = True

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and that there are gradients."""
        super().check(box, task)
        check_gradients(box)

    def bounds(self, task: Task) -> Spend:
        """Upper bounds of the spend; exact."""
        s, epochs, classes = self.settings, self.settings.epochs_of(task), len(task.classnames)
        images = len(task.train) * (1 + s.views)
        steps = epochs * per_epoch(images, s.batch)
        return trail_bounds(task, s.views, epochs + 1, 0) + Spend(
            soft_prompt_encodings=steps * classes,
            pairs_scored=steps * min(s.batch, images) * classes,
        )

    def run(self, search: Search) -> Outcome:
        """Descend from the template; end with the likeliest epoch or the template itself."""
        s, task, box = self.settings, search.task, search.box
        start = soft_start(box, task.start, task.classnames)
        top, epochs = s.rate or 0.1 * box.embedding_std, s.epochs_of(task)

        def make(fit: Encoded) -> Sgd:
            batches = per_epoch(len(fit), s.batch)

            def images(number: int) -> Encoded:
                epoch, place = divmod(number, batches)
                order = search.rng("epoch", epoch).permutation(len(fit))
                return fit[order[place * s.batch : (place + 1) * s.batch]]

            return Sgd(
                s, search, start, images, batches, lambda step: cosine_rate(step, epochs, top)
            )

        return follow(
            search,
            start.names,
            make,
            epochs,
            views=s.views,
            standard_errors=s.standard_errors,
        )
