"""CBBT (Guo et al., "Black-Box Tuning of Vision-Language Models with Effective Gradient
Approximation", EMNLP Findings 2023).

Access: ``soft``. The m context vectors ``p`` in R^D, D = m e, go down the cross-entropy L of a
batch along a gradient estimated from differences in q directions on the unit sphere. As published
the differences are one-sided,

    ``g = 1/eps * mean_i (L(p + eps u_i) - L(p)) / eps * u_i``,   eps = max(1/D, 0.001),     (1)

where the outer factor is meant to be D: it is 1000 instead for longer contexts. A small adapter of
the image features,

    ``x' = normalise(0.2 A(x) + 0.8 x)``,   ``A(x) = relu(W2 relu(W1 x))``,                  (2)

is trained beside the prompt by true gradients, since text and image features are outputs of the
box. Adam, its rate on a cosine after a first epoch at 1e-5; gradients clipped at norm 5.

The default takes both sides, on the same images, in directions orthogonal to each other:

    ``g = D * mean_i (L(p + eps u_i) - L(p - eps u_i)) / (2 eps) * u_i``.                    (3)

It also moves each class in a direction of its own. The loss is a known function of the scores
S (N, K), only the text tower is unknown; with ``G = dL/dS`` exact, class k's own slope is

    ``d_ik = sum_n G_nk (S_nk(p + eps u_ik) - S_nk(p - eps u_ik)) / (2 eps)``                (4)

and ``g = D * mean_i sum_k d_ik u_ik``: K directions for the encodings of one.

======================== ============================================== ==========================
setting                  ``released``                                   ``llmopt`` (default)
======================== ============================================== ==========================
start                    "a" (2 tokens: "a photo", 4: "a photo of a")   the start template's words
estimate                 (1)                                            (4), or (3)
directions q             256                                            8
eps                      max(1/D, 0.001)                                5 % of the context's norm
rate                     2e-3                                           0.1 of a word's spread
L2 penalty               5e-4                                           0
images                   batches of 32, augmented and encoded anew      all at once, encoded once
length                   150 epochs (12 to 80 on large data sets)       CraFT's budget of contexts
adapter                  beside the prompt                              after it, if it helps
result                   the last epoch                                 chosen on validation images
======================== ============================================== ==========================

(The released code loads the epoch that was best on the test images; that is left out.)

Queries: a step encodes K soft prompts for each of q + 1 contexts, or 2 q + 1 with two sides. The
paper does not count them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from llmopt.data.augment import Augmentation
from llmopt.heads.adapter import Bottleneck
from llmopt.heads.base import FittedHead
from llmopt.heads.predictor import HeadedPredictor
from llmopt.search.base import Bounds, Optimizer, Outcome, Search
from llmopt.search.soft.machinery.checks import check_range
from llmopt.search.soft.machinery.images import Encoded, fresh_batch
from llmopt.search.soft.machinery.schedules import cosine_rate, per_epoch, steps_allowed
from llmopt.search.soft.machinery.scoring import cross_entropy, score, soft_text
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import SoftStart, check_room, soft_start, words_start
from llmopt.search.soft.machinery.subspace import word_axes
from llmopt.search.soft.machinery.torch_state import below, pack, unpack
from llmopt.search.soft.machinery.trail import WIDEST
from llmopt.search.soft.machinery.trail import bounds as trail_bounds
from llmopt.search.soft.machinery.walk import Walk, follow, march
from llmopt.task import Task
from llmopt.vision.base import Access, BlackBox

Array = npt.NDArray[np.float64]


# --- the estimators ------------------------------------------------------------------------------


def sphere(rng: np.random.Generator, count: int, dim: int) -> Array:
    """(count, dim) independent directions, uniform on the unit sphere."""
    draws = rng.normal(size=(count, dim))
    return np.asarray(draws / np.linalg.norm(draws, axis=1, keepdims=True))


def orthogonal(rng: np.random.Generator, count: int, dim: int) -> Array:
    """(count, dim) directions, each uniform on the unit sphere, orthogonal in blocks of dim."""
    blocks = [
        np.linalg.qr(rng.normal(size=(dim, min(dim, count - first))))[0].T
        for first in range(0, count, dim)
    ]
    # QR fixes the signs of its diagonal; a random sign makes each direction uniform.
    rows = np.concatenate(blocks)
    return np.asarray(rows * rng.choice([-1.0, 1.0], (count, 1)))


def one_sided(losses: Array, loss: float, directions: Array, eps: float) -> Array:
    """Gradient estimate (1) from (q,) losses at ``p + eps u_i`` and the loss at p."""
    slopes = (losses - loss) / eps
    return np.asarray(slopes @ directions / len(directions) / eps)


def two_sided(plus: Array, minus: Array, directions: Array, eps: float) -> Array:
    """Gradient estimate (3) from (q,) losses at ``p + eps u_i`` and at ``p - eps u_i``."""
    slopes = (plus - minus) / (2 * eps)
    return np.asarray(slopes @ directions / len(directions) * directions.shape[1])


def class_wise(plus: Array, minus: Array, directions: Array, eps: float) -> Array:
    """Gradient estimate (4), from directions of its own for each class.

    Args:
        plus, minus: (q, K) sums over the images of ``G_nk S_nk``, with each class k moved along
            and against its own direction.
        directions: (q, K, D).
        eps: length of the move.
    """
    slopes = (plus - minus) / (2 * eps)
    count, _, dim = directions.shape
    return np.asarray(np.einsum("qk,qkd->d", slopes, directions) / count * dim)


# --- the algorithm -------------------------------------------------------------------------------

_EPOCHS = {"stanford_cars": 80, "sun397": 40, "imagenet": 12}
_RATIO = 0.2


@dataclass(frozen=True)
class CbbtSettings:
    """Settings of ``cbbt``; the table above has their values in the profile ``released``.

    Attributes:
        profile: ``llmopt`` or ``released``.
        budget: contexts scored; None is 2,000 at 1 shot, 4,000 at 2 to 4, 8,000 above (``llmopt``).
        epochs: passes over the images; None is by data set (``released``).
        tokens: length of the context (``released``).
        directions: q.
        own: each class moves along directions of its own, (4) (``llmopt``).
        eps: length of a move, as a share of the context's norm (``llmopt``).
        rate: Adam's; 0 is a tenth of the spread of the token embeddings.
        decay: L2 penalty in Adam's gradient.
        clip: largest norm of a gradient.
        batch: images a step (``released``).
        rank: search the span of so many principal axes of word vectors, the same for each token;
            0 is the whole space.
        adapter: train the adapter too: beside the prompt (``released``), after it (``llmopt``).
        views: augmented views of each training image (``llmopt``).
        flip: mirror half of the augmented images (``released``).
        standard_errors: how many a gain over the start must exceed to be kept (``llmopt``).
    """

    profile: str = "llmopt"
    budget: int | None = None
    epochs: int | None = None
    tokens: int = 1
    directions: int = 8
    own: bool = True
    eps: float = 0.05
    rate: float = 0.0
    decay: float = 0.0
    clip: float = 5.0
    batch: int = 32
    rank: int = 0
    adapter: bool = True
    views: int = 0
    flip: bool = True
    standard_errors: float = 1.0

    def __post_init__(self) -> None:
        check_range("tokens", self.tokens, 1, 64)
        check_range("directions", self.directions, 1)
        check_range("eps", self.eps, 1e-6, 1)
        for name in ("rate", "decay", "clip", "rank", "views", "standard_errors"):
            check_range(name, getattr(self, name), 0)
        check_range("batch", self.batch, 1)
        if self.epochs is not None:
            check_range("epochs", self.epochs, 1)
        if self.budget is not None:
            check_range("budget", self.budget, 2 * self.directions + 2)


class Point:
    """The trained numbers w: the context itself, or its coordinates on a few axes.

    Args:
        start: (m, e) context.
        axes: (r, e) orthonormal axes that each token may move along; None is every direction.
        rate, decay: Adam's.
    """

    def __init__(
        self, start: torch.Tensor, axes: torch.Tensor | None, rate: float, decay: float
    ) -> None:
        self.axes = axes
        w = start if axes is None else start @ axes.T
        # What the axes leave of the start stays as it is.
        self.rest = None if axes is None else start - w @ axes
        self.w = w.clone().requires_grad_()
        self.adam = torch.optim.Adam([self.w], lr=rate, weight_decay=decay)

    def contexts(self, moves: Array | None = None) -> torch.Tensor:
        """(m, e) context, or (..., m, e) contexts after (..., D) moves of w."""
        w = self.w.detach()
        if moves is not None:
            w = w + torch.from_numpy(moves.astype(np.float32)).reshape(*moves.shape[:-1], *w.shape)
        return w.clone() if self.axes is None or self.rest is None else self.rest + w @ self.axes

    def descend(self, gradient: Array, rate: float, clip: float) -> None:
        """One step of Adam along a (D,) gradient, its norm clipped."""
        self.w.grad = torch.from_numpy(gradient.astype(np.float32)).reshape(self.w.shape)
        torch.nn.utils.clip_grad_norm_([self.w], clip)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """For a checkpoint."""
        return {"w": self.w.detach().numpy().copy(), **pack(self.adam)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        with torch.no_grad():
            self.w.copy_(torch.from_numpy(state["w"]))
        unpack(self.adam, state)


class Descent(Walk):
    """The default: all images in every step, the same ones on both sides.

    Args:
        settings: of ``cbbt``.
        search: task and black box.
        start: where the context stands at first.
        steps: length of the cosine.
        fit: the images.
    """

    def __init__(
        self, settings: CbbtSettings, search: Search, start: SoftStart, steps: int, fit: Encoded
    ) -> None:
        self.settings, self.search, self.names, self.fit = settings, search, start.names, fit
        self.steps, self.cost = steps, 2 * settings.directions + 1
        self.rate = settings.rate or 0.1 * search.box.embedding_std
        self.eps = settings.eps * float(start.context.norm())
        axes = word_axes(search.box, settings.rank) if settings.rank else None
        self.point = Point(start.context, axes, self.rate, settings.decay)

    @property
    def context(self) -> torch.Tensor:
        """At w."""
        return self.point.contexts()

    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """One step of Adam along (3) or (4)."""
        if scores is None:
            context = self.context[None]
            scores = score(self.search.box, self.fit, context, self.names)[0]
        rng = self.search.rng("cbbt", "directions", step)
        gradient = self._own(rng, scores) if self.settings.own else self._shared(rng)
        rate = cosine_rate(step, self.steps, self.rate, self.rate)
        self.point.descend(gradient, rate, self.settings.clip)
        return float(cross_entropy(scores[None], self.fit.labels))

    def _shared(self, rng: np.random.Generator) -> Array:
        u = orthogonal(rng, self.settings.directions, self.point.w.numel())
        losses = self._both_sides(u, lambda s: cross_entropy(s.double(), self.fit.labels))
        plus, minus = np.split(losses, 2)
        return two_sided(plus, minus, u, self.eps)

    def _own(self, rng: np.random.Generator, scores: torch.Tensor) -> Array:
        count, classes, dim = self.settings.directions, len(self.names), self.point.w.numel()
        u = orthogonal(rng, count * classes, dim).reshape(count, classes, dim)
        onehot = F.one_hot(self.fit.labels, classes)
        slope = (scores.double().softmax(dim=-1) - onehot) / len(self.fit)  # G
        sums = self._both_sides(u, lambda s: (s.cpu().double() * slope).sum(dim=-2))
        plus, minus = np.split(sums, 2)
        return class_wise(plus, minus, u, self.eps)

    def _both_sides(self, u: Array, reduce: Callable[[torch.Tensor], torch.Tensor]) -> Array:
        contexts = self.point.contexts(self.eps * np.concatenate([u, -u]))
        return score(self.search.box, self.fit, contexts, self.names, reduce).numpy()

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The context and Adam's moments."""
        return self.point.state()

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""
        self.point.restore(state)


class Training(Walk):
    """As published: prompt and adapter on augmented batches; one step is one epoch.

    Args:
        settings: of ``cbbt``.
        search: task and black box.
        epochs: length of the cosine.
    """

    def __init__(self, settings: CbbtSettings, search: Search, epochs: int) -> None:
        self.settings, self.search, self.epochs = settings, search, epochs
        box, task = search.box, search.task
        self.how = Augmentation(flip=settings.flip)
        self.batches = per_epoch(len(task.train), settings.batch)
        self.cost = self.batches * (1 + settings.directions) + settings.adapter
        start = words_start(box, _words(settings.tokens), task.classnames)
        self.names = start.names
        axes = word_axes(box, settings.rank) if settings.rank else None
        self.point = Point(start.context, axes, settings.rate, settings.decay)
        self.eps = max(1 / self.point.w.numel(), 0.001)
        self.adapter: Bottleneck | None = None
        self.text = torch.empty(0)

    @property
    def context(self) -> torch.Tensor:
        """At w."""
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


class Cbbt(Optimizer[CbbtSettings]):
    """Black-box tuning by approximate gradients."""

    name = "cbbt"
    access = Access.SOFT
    Settings = CbbtSettings
    HEADLESS: ClassVar = {"adapter": False}
    PROFILES: ClassVar = {
        "llmopt": {},
        "released": {"directions": 256, "rate": 2e-3, "decay": 5e-4},
    }
    ONLY: ClassVar = {
        **dict.fromkeys(("epochs", "tokens", "batch", "flip"), frozenset({"released"})),
        **dict.fromkeys(
            ("budget", "own", "eps", "views", "standard_errors"), frozenset({"llmopt"})
        ),
    }

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and room for the vectors of the published start."""
        super().check(box, task)
        if self.settings.profile == "released":
            check_room(box, self.settings.tokens, task.classnames)

    def bounds(self, task: Task) -> Bounds:
        """Exact, but for the pairs that reading off text features for the adapter takes."""
        s, classes, images = self.settings, len(task.classnames), len(task.train)
        if s.profile == "llmopt":
            steps, head = self._steps(task), "adapter" if s.adapter else "none"
            return trail_bounds(task, s.views, steps + 1, 2 * s.directions * steps, head)
        size, epochs = min(s.batch, images), self._epochs(task)
        steps = epochs * per_epoch(images, s.batch)
        contexts, read = steps * (1 + s.directions), epochs * s.adapter
        return Bounds(
            image_encodings=steps * size,
            soft_prompt_encodings=(contexts + read) * classes,
            pairs_scored=(contexts * size + read * WIDEST) * classes,
        )

    def run(self, search: Search) -> Outcome:
        """Run the profile's algorithm."""
        s, task = self.settings, search.task
        if s.profile == "llmopt":
            start, steps = soft_start(search.box, task.start, task.classnames), self._steps(task)
            return follow(
                search,
                start.names,
                lambda fit: Descent(s, search, start, steps, fit),
                steps,
                views=s.views,
                standard_errors=s.standard_errors,
                head="adapter" if s.adapter else "none",
            )
        walk = Training(s, search, self._epochs(task))
        reason = march(search, walk, walk.epochs)
        prompt, adapter = SoftPredictor(walk.context.numpy(), walk.names), walk.fitted()
        return Outcome(HeadedPredictor(prompt, adapter) if adapter else prompt, reason)

    def _steps(self, task: Task) -> int:
        s = self.settings
        return steps_allowed(s.budget, task.shots, 2 * s.directions)

    def _epochs(self, task: Task) -> int:
        return self.settings.epochs or _EPOCHS.get(task.dataset, 150)


def _words(tokens: int) -> str:
    """The released start by length; lengths it does not know repeat "a photo of a"."""
    if tokens in (1, 2):
        return ("a", "a photo")[tokens - 1]
    words = ["a", "photo", "of", "a"]
    return " ".join((words * math.ceil(tokens / len(words)))[: tokens if tokens > 4 else 4])
