"""Heads that are trained: Adam on cached views, the number of epochs chosen on left-out images.

One epoch shows each training image once, in one of its cached views at random, as training with
fresh augmentation would; nothing is encoded again. There is no closed form for leaving one image
out, so images are left out in folds, each class spread over them: a fold is scored by a fit on the
others, at a few lengths of training, and the likeliest length trains the head on all images.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from llmopt.heads.base import Config, Head, Shots, Tensors, folds
from llmopt.task import FloatArray

FOLDS = 5


@dataclass(frozen=True)
class Training:
    """Settings of training.

    Attributes:
        epochs: lengths of training to choose from, in passes over the images.
        batch: images a step (256 in CraFT and Tip-Adapter-F).
        lr: learning rate, constant, so that a short training is the beginning of a long one.
        weight_decay: AdamW's (0 in CraFT's released code, 0.01 in Tip-Adapter-F).
        eps: Adam's.
    """

    epochs: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.01
    eps: float = 1e-8


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
        corrections = {epochs: np.empty_like(shots.plain) for epochs in self.settings.epochs}
        count = min(FOLDS, len(shots))
        fold = folds(shots.labels, count, seed)
        for k in range(count):
            out = fold == k
            rest = shots.of(~out)
            held = shots.of(out)
            for epochs, module in self._train(rest, options, self.settings.epochs, [seed, k]):
                corrections[epochs][out] = self.correct(
                    self.arrays(module), held.plain, held.plain_features
                )
        for epochs, correction in corrections.items():
            yield {**options, "epochs": epochs}, correction

    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """Train on all images."""
        epochs = int(config["epochs"])
        _, module = next(self._train(shots, config, (epochs,), [seed]))
        return self.arrays(module)

    def strengths(self, base: FloatArray, correction: FloatArray) -> npt.NDArray[np.float64]:
        """Around 1, the strength it was trained at."""
        return np.array([0.25, 0.5, 1.0, 2.0])

    def _train(
        self, shots: Shots, options: Config, stops: tuple[int, ...], seed: list[int]
    ) -> Iterator[tuple[int, M]]:
        """The module after each of the numbers of epochs in ``stops``."""
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        module = self.build(shots, options, generator)
        optimizer = torch.optim.AdamW(
            module.parameters(),
            lr=self.settings.lr,
            weight_decay=self.settings.weight_decay,
            eps=self.settings.eps,
        )
        base, labels = torch.from_numpy(shots.base), torch.from_numpy(shots.labels)
        features = None if shots.features is None else torch.from_numpy(shots.features)
        views = base.shape[1]
        for epoch in range(1, max(stops) + 1):
            order = rng.permutation(len(shots))
            with one_thread():
                for first in range(0, len(order), self.settings.batch):
                    batch = order[first : first + self.settings.batch]
                    view = rng.integers(0, views, len(batch))
                    seen = None if features is None else features[batch, view]
                    optimizer.zero_grad()
                    loss: Any = self.loss(module, base[batch, view], seen, labels[batch])
                    loss.backward()
                    optimizer.step()
            if epoch in stops:
                yield epoch, module


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
