"""Heads that are trained: Adam on cached views, the number of steps chosen on left-out images.

The images are passed through in random order again and again, each in one of its cached views at
random, as in training with fresh augmentation; nothing is encoded again. There is no closed form
for leaving one image out, so images are left out in folds, each class spread over them: a fold is
scored by a fit on the others, at a few lengths of training, and the likeliest length trains the
head on all images. Lengths are counted in steps, so that the cost does not grow with the data.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt, MinLen

from llmopt.heads.base import Config, Head, Shots, Tensors, folds
from llmopt.settings import Settings
from llmopt.task import FloatArray

FOLDS = 5


@dataclass(frozen=True)
class Training(Settings):
    """Settings of training.

    Attributes:
        steps: lengths of training to choose from (200 passes of at most 26 steps in CraFT).
        batch: images a step (32 in CBBT, 256 in CraFT and Tip-Adapter-F).
        lr: learning rate, constant, so that a short training is the beginning of a long one.
        weight_decay: AdamW's (0 in CraFT's released code, 0.01 in Tip-Adapter-F).
        eps: Adam's.
    """

    steps: Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1)] = (20, 50, 100, 200, 500, 1000)
    batch: Annotated[int, Ge(1)] = 64
    lr: Annotated[float, Gt(0)] = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 0.01
    eps: Annotated[float, Gt(0)] = 1e-8


T = TypeVar("T", bound=Training)
M = TypeVar("M", bound=torch.nn.Module)


class TrainedHead(Head[T], Generic[T, M]):
    """A head fitted by gradient descent on its own parameters."""

    left_out = "folds"

    @abstractmethod
    def build(self, shots: Shots, options: Config, generator: torch.Generator) -> M:
        """The head before training."""

    @abstractmethod
    def loss(
        self, module: M, base: torch.Tensor, features: torch.Tensor | None, labels: torch.Tensor
    ) -> torch.Tensor:
        """Mean loss of a batch: (B, K) scores, (B, d) features, (B,) labels."""

    @abstractmethod
    def arrays(self, module: M) -> Tensors:
        """What :meth:`correct` needs."""

    def options(self, shots: Shots, seed: int) -> Config:
        """Numbers fixed before training, equal for all folds."""
        return {}

    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """``h`` of each image under the fit on the other folds, for each length of training."""
        options = self.options(shots, seed)
        corrections = {steps: np.empty_like(shots.plain) for steps in self.settings.steps}
        count = min(FOLDS, len(shots))
        fold = folds(shots.labels, count, seed)
        for k in range(count):
            out = fold == k
            rest = shots.of(~out)
            held = shots.of(out)
            for steps, module in self._train(rest, options, self.settings.steps, [seed, k]):
                corrections[steps][out] = self.correct(
                    self.arrays(module), held.plain, held.plain_features
                )
        for steps, correction in corrections.items():
            yield {**options, "steps": steps}, correction

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """Train on all images."""
        _, module = next(self._train(shots, config, (int(config["steps"]),), [seed]))
        return self.arrays(module)

    def strengths(self, base: FloatArray, correction: FloatArray) -> npt.NDArray[np.float64]:
        """Around 1, the strength it was trained at."""
        return np.array([0.25, 0.5, 1.0, 2.0])

    def _train(
        self, shots: Shots, options: Config, stops: tuple[int, ...], seed: list[int]
    ) -> Iterator[tuple[int, M]]:
        """The module after each of the numbers of steps in ``stops``."""
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        module = self.build(shots, options, generator)
        optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=self.settings.lr,
            weight_decay=self.settings.weight_decay,
            eps=self.settings.eps,
        )
        base, labels = torch.tensor(shots.base), torch.tensor(shots.labels)
        features = None if shots.features is None else torch.tensor(shots.features)
        batches = _batches(len(shots), self.settings.batch, rng)
        done = 0
        for stop in sorted(stops):
            with one_thread():
                for batch in islice(batches, stop - done):
                    view = rng.integers(0, shots.views, len(batch))
                    seen = None if features is None else features[batch, view]
                    optimizer.zero_grad()
                    loss: Any = self.loss(module, base[batch, view], seen, labels[batch])
                    loss.backward()
                    optimizer.step()
            done = stop
            yield stop, module


def _batches(images: int, size: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    """Pass after pass over the images, each in a new order."""
    while True:
        order = rng.permutation(images)
        for first in range(0, images, size):
            yield order[first : first + size]


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread.

    The matrices of a head are so small that threads mostly wait for each other (on a busy machine
    a hundred times longer than they work), and sums then do not depend on how many there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> torch.Tensor:
    """PyTorch's initial values of a linear layer's weights and biases, from a generator."""
    bound: float = fan_in**-0.5
    return (2 * torch.rand(shape, generator=generator) - 1) * bound
