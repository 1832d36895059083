"""CBBT as released (Guo et al., EMNLP Findings 2023): prompt and adapter on augmented batches.

Access: ``soft``. The m context vectors ``p`` in R^D, D = m e, go down the cross-entropy L of a
batch along a gradient estimated from one-sided differences in q directions on the unit sphere,

    ``g = 1/eps * mean_i (L(p + eps u_i) - L(p)) / eps * u_i``,   eps = max(1/D, 0.001),     (1)

where the outer factor is meant to be D: it is 1000 instead for longer contexts. A small adapter of
the image features,

    ``x' = normalise(0.2 A(x) + 0.8 x)``,   ``A(x) = relu(W2 relu(W1 x))``,                  (2)

is trained beside the prompt by true gradients, since text and image features are outputs of the
box. Adam, its rate on a cosine after a first epoch at 1e-5; gradients clipped at norm 5. The result
is the last epoch. (The released code loads the epoch that was best on the test images; that is left
out.)

Queries: a step encodes K soft prompts for each of q + 1 contexts. The paper does not count them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Interval

from llmopt.data.augment import Augmentation
from llmopt.heads.adapter import Bottleneck
from llmopt.heads.fitted import FittedHead
from llmopt.heads.predictor import HeadedPredictor
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.cbbt import Cbbt
from llmopt.search.soft.machinery.images import Encoded, fresh_batch
from llmopt.search.soft.machinery.point import Array, Point
from llmopt.search.soft.machinery.schedules import cosine_rate, per_epoch
from llmopt.search.soft.machinery.scoring import cross_entropy, score, soft_text
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import check_room, words_start
from llmopt.search.soft.machinery.subspace import word_axes
from llmopt.search.soft.machinery.torch_state import below, pack, unpack
from llmopt.search.soft.machinery.walk import Walk, march
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.vision.answers import WIDEST
from llmopt.vision.base import Access, BlackBox

_EPOCHS: Final = {"stanford_cars": 80, "sun397": 40, "imagenet": 12}
_RATIO: Final = 0.2


@dataclass(frozen=True)
class CbbtReleasedSettings(Settings):
    """Settings of ``cbbt`` with ``profile=released``; the defaults are those of the released code.

    Attributes:
        epochs: passes over the images; None is 150, or 80 (Cars), 40 (SUN397) or 12 (ImageNet).
        tokens: length of the context.
        directions: q.
        rate: Adam's.
        decay: L2 penalty in Adam's gradient.
        clip: largest norm of a gradient.
        batch: images a step.
        rank: search the span of so many principal axes of word vectors, the same for each token;
            0 is the whole space.
        adapter: train the adapter too.
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
    adapter: bool = True
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
        self.cost = self.batches * (1 + settings.directions) + settings.adapter
        start = words_start(box, released_words(settings.tokens), task.classnames)
        self.names = start.names
        axes = word_axes(box, settings.rank) if settings.rank else None
        self.point = Point(start.context, axes, settings.rate, settings.decay)
        self.eps = max(1 / self.point.w.numel(), 0.001)
        self.adapter: Bottleneck | None = None
        self.text = torch.empty(0)

    @property
    def context(self) -> torch.Tensor:
        """(m, e) context of the current numbers w."""
        return self.point.contexts()

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One epoch of steps along (1)."""
        rate = cosine_rate(step, self.epochs, self.settings.rate)
        losses = [
            self._batch(number, rate)
            for number in range(step * self.batches, (step + 1) * self.batches)
        ]
        if self.adapter:
            dim = self.adapter.w2.shape[0]
            self.text = soft_text(self.search.box, dim, self.context, self.names)
        return float(np.mean(losses))

    def _batch(self, number: int, rate: float) -> float:
        s, box = self.settings, self.search.box
        images = fresh_batch(self.search, number, s.batch, self.how)
        features = torch.from_numpy(images.features)
        if s.adapter and self.adapter is None:
            self._make_adapter(features.shape[1])
        moved = self.adapter(features) if self.adapter else features
        # The features the box gives back are constants, so this has the adapter's gradient.
        logits = box.soft_logits(moved, self.context[None], self.names)
        loss = cross_entropy(logits.double(), images.labels)[0]
        u = sphere(
            self.search.rng("cbbt", "directions", number), s.directions, self.point.w.numel()
        )
        seen = Encoded(moved.detach().numpy(), images.labels)
        losses = score(
            box,
            seen,
            self.point.contexts(self.eps * u),
            self.names,
            lambda logits: cross_entropy(logits.double(), images.labels),
        )
        gradient = one_sided(losses.numpy(), loss.item(), u, self.eps)
        if self.adapter:
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
        self.point.descend(gradient, rate, s.clip)
        return loss.item()

    def fitted(self) -> FittedHead | None:
        """The adapter as it was when the last epoch ended."""
        if self.adapter is None or not len(self.text):
            return None
        tensors = {
            **self._weights(),
            "ratio": np.array([_RATIO], dtype=np.float32),
            "outer": np.ones(1, dtype=np.float32),
            "text": self.text.numpy() * np.float32(self.search.box.info.logit_scale),
        }
        return FittedHead("adapter", tensors, {})

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Context, adapter, text features and Adam's moments."""
        if self.adapter is None:
            return self.point.state()
        weights = {f"adapter.{name}": array for name, array in self._weights().items()}
        moments = pack(self.optimizer, "adapter-optimizer.")
        return {**self.point.state(), **weights, **moments, "text": self.text.numpy()}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        self.point.restore(state)
        if self.settings.adapter:
            adapter = self._make_adapter(state["adapter.w2"].shape[0])
            weights = below("adapter.", state)
            adapter.load_state_dict({name: torch.from_numpy(w) for name, w in weights.items()})
            unpack(self.optimizer, state, "adapter-optimizer.")
            self.text = torch.from_numpy(state["text"])

    def _make_adapter(self, dim: int) -> Bottleneck:
        dice = torch.Generator()
        dice.manual_seed(int(self.search.rng("cbbt", "adapter").integers(2**62)))
        self.adapter = Bottleneck(dim, max(1, dim // 4), _RATIO, dice, start="released")
        self.optimizer = torch.optim.Adam(
            self.adapter.parameters(), lr=self.settings.rate, weight_decay=self.settings.decay
        )
        return self.adapter

    def _weights(self) -> dict[str, npt.NDArray[Any]]:
        assert self.adapter is not None
        return {name: w.detach().numpy().copy() for name, w in self.adapter.named_parameters()}


class CbbtReleased(Optimizer[CbbtReleasedSettings]):
    """Black-box tuning by approximate gradients, as released."""

    name = Cbbt.name
    form = "released"
    FORMS = Cbbt.FORMS
    access = Access.SOFT
    Settings = CbbtReleasedSettings
    HEADLESS = None

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and room for the vectors of the start."""
        super().check(box, task)
        check_room(box, self.settings.tokens, task.classnames)

    def bounds(self, task: Task) -> Spend:
        """Exact, but for the pairs that reading off text features for the adapter takes."""
        s, classes, images = self.settings, len(task.classnames), len(task.train)
        size, epochs = min(s.batch, images), self._epochs(task)
        steps = epochs * per_epoch(images, s.batch)
        contexts, read = steps * (1 + s.directions), epochs * s.adapter
        return Spend(
            image_encodings=steps * size,
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
