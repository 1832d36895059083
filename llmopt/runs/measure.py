"""Measuring a finished predictor on test images, after the search and apart from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmopt.predictor import Predictor
from llmopt.stats import PairedGain, accuracy_interval, paired_gain

if TYPE_CHECKING:
    from llmopt.task import Labelled
    from llmopt.vision.metered import MeteredBox


_FEW = 30


@dataclass(frozen=True)
class Evaluation:
    """Two predictors on the same images, or three.

    Attributes:
        labels: (N,) true classes.
        baseline, best: (N,) predicted classes of the start and of what was found.
        classes: K, their number.
        before: (N,) predicted classes of what was best before a language model was asked; None
            where none was.
    """

    labels: npt.NDArray[np.int64]
    baseline: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    classes: int
    before: npt.NDArray[np.int64] | None = None

    @property
    def baseline_accuracy(self) -> float:
        """Accuracy of the start, a fraction."""
        return float((self.baseline == self.labels).mean())

    @property
    def best_accuracy(self) -> float:
        """Accuracy of what was found, a fraction."""
        return float((self.best == self.labels).mean())

    @property
    def baseline_ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the start's accuracy."""
        return accuracy_interval(self.baseline == self.labels)

    @property
    def best_ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy of what was found."""
        return accuracy_interval(self.best == self.labels)

    @property
    def gain(self) -> PairedGain:
        """Paired gain of what was found over the start, on the same images."""
        return paired_gain(self.best == self.labels, self.baseline == self.labels)

    @property
    def at_chance(self) -> bool:
        """Whether what was found cannot be told from guessing, a class or the most frequent one.

        Clearly less than guessing is something else: a prompt that misleads. Of fewer than 30
        images nothing is said.
        """
        majority = np.bincount(self.labels, minlength=self.classes).max() / len(self.labels)
        low, high = self.best_ci95
        guessing = low <= max(majority, 1 / self.classes) and high >= 1 / self.classes
        return bool(guessing and len(self.labels) >= _FEW)


def measure(
    box: MeteredBox,
    images: Labelled,
    best: Predictor,
    baseline: Predictor,
    classes: int,
    before: Predictor | None = None,
) -> Evaluation:
    """Predict all images with each predictor."""

    def predict(one: Predictor) -> npt.NDArray[np.int64]:
        return np.asarray(one.scores(box, images).argmax(axis=1), dtype=np.int64)

    first, then = predict(baseline), predict(best)
    return Evaluation(images.labels, first, then, classes, predict(before) if before else None)
