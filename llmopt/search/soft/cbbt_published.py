"""CBBT as released (Guo et al., EMNLP Findings 2023): prompt and adapter on augmented batches.

Access: ``soft``. The m context vectors ``p`` in R^D, D = m e, go down the cross-entropy L of a
batch along a gradient estimated from one-sided differences in q directions on the unit sphere,

    ``g = 1/eps * mean_i (L(p + eps u_i) - L(p)) / eps * u_i``,   eps = max(1/D, 0.001),     (1)

where the outer factor is meant to be D: it is 1000 instead for longer contexts. Differences this
small drown in half precision, so the model computes in fp32 at least. A small adapter is trained
beside the prompt by true gradients, since text and image features are outputs of the box; its two
kinds are inferred (:mod:`llmopt.search.soft.cbbt_adapters`). Adam, its rate on a cosine after a
first epoch at 1e-5; gradients clipped at norm 5. The result is the last epoch. (The released code
loads the epoch that was best on the test images; that is left out.)

Queries: a step encodes K soft prompts for each of q + 1 contexts. The paper does not count them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Interval

from llmopt.data.augment import Augmentation
from llmopt.heads.fitted import FittedHead
from llmopt.heads.predictor import HeadedPredictor
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.cbbt import Cbbt
from llmopt.search.soft.cbbt_adapters import (
    ALPHA,
    BEGINS,
    VIEWS,
    WEIGHTS,
    ClipAdapter,
    FeatureAdapter,
    TipAdapter,
)
from llmopt.search.soft.machinery.images import Encoded, fresh_batch, view
from llmopt.search.soft.machinery.point import Array, Point
from llmopt.search.soft.machinery.schedules import per_epoch, warmed_up_rate
from llmopt.search.soft.machinery.scoring import cross_entropy, double, score, soft_text
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import check_room, words_start
from llmopt.search.soft.machinery.subspace import word_axes
from llmopt.search.soft.machinery.torch_state import below
from llmopt.search.soft.machinery.walk import Walk, march
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.answers import WIDEST
from llmopt.vision.base import Access, BlackBox

_EPOCHS: Final = {"stanford_cars": 80, "sun397": 40, "imagenet": 12}


@dataclass(frozen=True)
class CbbtReleasedSettings(Settings):
    """Settings of ``cbbt`` with ``profile=released``; the defaults are those of the released code.

    Attributes:
        epochs: passes over the images; None is 150, or 80 (Cars), 40 (SUN397) or 12 (ImageNet).
        tokens: length of the context.
        directions: q, random ones a step.
        rate: Adam's.
        decay: L2 penalty in Adam's gradient.
        clip: largest norm of a gradient.
        batch: images a step.
        rank: search the span of so many principal axes of word vectors, the same for each token;
            0 is the whole space.
        adapter: ``clip``, ``tip`` or ``none``.
        flip: mirror half of the augmented images.
    """

    epochs: Annotated[int, Ge(1)] | None = None
    tokens: Annotated[int, Interval(ge=1, le=64)] = 1
    directions: Annotated[int, Ge(1)] = 256
    rate: Annotated[float, Ge(0)] = 2e-3
    decay: Annotated[float, Ge(0)] = 5e-4
    clip: Annotated[float, Ge(0)] = 5.0
    batch: Annotated[int, Ge(1)] = 32
    rank: Annotated[int, Ge(0)] = 0
    adapter: Literal["clip", "tip", "none"] = "clip"
    flip: bool = True


def sphere(rng: np.random.Generator, count: int, dim: int) -> Array:
    """(count, dim) independent directions, uniform on the unit sphere."""
    draws = rng.normal(size=(count, dim))
    return np.asarray(draws / np.linalg.norm(draws, axis=1, keepdims=True))


def one_sided(losses: Array, loss: float, directions: Array, eps: float) -> Array:
    """Gradient estimate (1) from (q,) losses at ``p + eps u_i`` and the loss at p."""
    slopes = (losses - loss) / eps
    return np.asarray(slopes @ directions / len(directions) / eps)


def released_words(tokens: int) -> str:
    """The released start by length; lengths it does not know repeat "a photo of a"."""
    if tokens in (1, 2):
        return ("a", "a photo")[tokens - 1]
    words = ["a", "photo", "of", "a"]
    return " ".join((words * math.ceil(tokens / len(words)))[: tokens if tokens > 4 else 4])


class Training(Walk):
    """Prompt and adapter on augmented batches; one step of the walk is one epoch.

    Args:
        settings: of the algorithm.
        search: task and black box.
        epochs: length of the cosine.
    """

    def __init__(self, settings: CbbtReleasedSettings, search: Search, epochs: int) -> None:
        self.settings, self.search, self.epochs = settings, search, epochs
        box, task = search.box, search.task
        self.how = Augmentation(flip=settings.flip)
        self.batches = per_epoch(len(task.train), settings.batch)
        self.cost = self.batches * (1 + settings.directions) + (settings.adapter == "clip")
        start = words_start(box, released_words(settings.tokens), task.classnames)
        self.names = start.names
        axes = word_axes(box, settings.rank) if settings.rank else None
        self.point = Point(start.context, axes, settings.rate, settings.decay)
        self.eps = max(1 / self.point.w.numel(), 0.001)
        self.adapter: FeatureAdapter | None = None
        self.text = torch.empty(0)

    @property
    def context(self) -> torch.Tensor:
        """(m, e) context of the current numbers w."""
        return self.point.contexts()

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One epoch of steps along (1)."""
        first = step * self.batches
        losses = [self._batch(first + place, step) for place in range(self.batches)]
        if self.adapter and self.adapter.reads_text:
            self.text = soft_text(self.search.box, self.width, self.context, self.names)
        return float(np.mean(losses))

    def _batch(self, number: int, epoch: int) -> float:
        s, box = self.settings, self.search.box
        images = fresh_batch(self.search, number, s.batch, self.how)
        features = torch.from_numpy(images.features)
        self.width = features.shape[1]
        if self.adapter is None and epoch >= BEGINS.get(s.adapter, self.epochs):
            self.adapter = self._clip() if s.adapter == "clip" else self._tip(self._keys())
        moved, added = self.adapter(features) if self.adapter else (features, torch.zeros(()))
        # The features the box gives back are constants, so this has the adapter's gradient.
        logits = box.soft_logits(moved, self.context[None], self.names)
        loss = cross_entropy(double(logits) + added.to(logits.device), images.labels)[0]
        u = sphere(
            self.search.rng("cbbt", "directions", number), s.directions, self.point.w.numel()
        )
        constant = added.detach().to(logits.device)
        losses = score(
            box,
            Encoded(moved.detach().numpy(), images.labels),
            self.point.contexts(self.eps * u),
            self.names,
            lambda logits: cross_entropy(double(logits) + constant, images.labels),
        )
        gradient = one_sided(losses.numpy(), loss.item(), u, self.eps)
        rate = warmed_up_rate(epoch, self.epochs, s.rate)
        if self.adapter:
            self.adapter.learn(loss, epoch, rate)
        self.point.descend(gradient, rate, s.clip)
        return loss.item()

    def fitted(self) -> FittedHead | None:
        """The adapter as it was when the last epoch ended."""
        if self.adapter is None or (self.adapter.reads_text and not len(self.text)):
            return None
        return self.adapter.head(self.text, self.search.box.info.logit_scale)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Context, adapter, text features and Adam's moments."""
        if self.adapter is None:
            return self.point.state()
        return {**self.point.state(), **self.adapter.state(), "text": self.text.numpy()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        self.point.restore(state)
        if "text" in state:
            weights = below(WEIGHTS, state)
            self.width = weights["w2" if "w2" in weights else "keys"].shape[-1]
            self.adapter = self._tip(weights["keys"]) if "keys" in weights else self._clip()
            self.adapter.restore(state)
            self.text = torch.from_numpy(state["text"])

    def _clip(self) -> ClipAdapter:
        dice = torch.Generator()
        dice.manual_seed(int(self.search.rng("cbbt", "adapter").integers(2**62)))
        return ClipAdapter(self.width, dice, self.settings.decay)

    def _tip(self, keys: npt.NDArray[np.float32]) -> TipAdapter:
        task = self.search.task
        labels, alpha = torch.from_numpy(task.train.labels), ALPHA.get(task.dataset, 1.17)
        return TipAdapter(keys, labels, len(task.classnames), alpha, self.epochs)

    def _keys(self) -> npt.NDArray[np.float32]:
        """(N, d) mean of augmented views that no epoch trains on, L2-normalised."""
        search, numbers = self.search, range(self.epochs + 1, self.epochs + 1 + VIEWS)
        views = [view(search.task.train, n, search.seed, self.how) for n in numbers]
        mean = np.mean([Encoded.passing(search.box, one).features for one in views], axis=0)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)


class CbbtReleased(Optimizer[CbbtReleasedSettings]):
    """Black-box tuning by approximate gradients, as released."""

    name = Cbbt.name
    form = "released"
    FORMS = Cbbt.FORMS
    access = Access.SOFT
    Settings = CbbtReleasedSettings
    HEADLESS: ClassVar = {"adapter": "none"}
    full_precision = True

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and room for the vectors of the start."""
        super().check(box, task)
        check_room(box, self.settings.tokens, task.classnames)

    def bounds(self, task: Task) -> Spend:
        """Exact, but for the pairs that reading off text features for the adapter takes."""
        s, classes, images = self.settings, len(task.classnames), len(task.train)
        size, epochs = min(s.batch, images), self._epochs(task)
        steps = epochs * per_epoch(images, s.batch)
        contexts, read = steps * (1 + s.directions), epochs * (s.adapter == "clip")
        views = VIEWS if s.adapter == "tip" and epochs > BEGINS["tip"] else 0
        return Spend(
            image_encodings=steps * size + views * images,
            soft_prompt_encodings=(contexts + read) * classes,
            pairs_scored=(contexts * size + read * WIDEST) * classes,
        )

    def run(self, search: Search) -> Outcome:
        """Train prompt and adapter together; end with the last epoch."""
        walk = Training(self.settings, search, self._epochs(search.task))
        reason = march(search, walk, walk.epochs)
        prompt, adapter = SoftPredictor(walk.context.numpy(), walk.names), walk.fitted()
        return Outcome(HeadedPredictor(prompt, adapter) if adapter else prompt, reason)

    def _epochs(self, task: Task) -> int:
        return self.settings.epochs or _EPOCHS.get(task.dataset, 150)
