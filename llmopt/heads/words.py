"""Features from answers: what a box of level ``labels`` says of an image, weighted by rank.

An image has the feature ``x = w / |w|``, where w is 1 at its first answer, 1/2 at the second, and
so on; over several templates, their weighted mean. Answers are the K classes, in their order, and
behind them the other words that the training images were answered with.

Queries: none; the answers are those that the scores are made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llmopt.predictor import TextPredictor
from llmopt.task import FloatArray, Labelled
from llmopt.vision.spoken import of_class, weights

if TYPE_CHECKING:
    from llmopt.vision.metered import MeteredBox


@dataclass(frozen=True)
class Words:
    """The answers that features are made of.

    Attributes:
        text: the prompts that are answered.
        words: (A - K) answers that are no class.
    """

    text: TextPredictor
    words: tuple[str, ...]

    @classmethod
    def heard(cls, text: TextPredictor, box: MeteredBox, images: Labelled) -> Words:
        """The words that these images are answered with."""
        classes = set(map(of_class, range(len(text.classnames))))
        told = [box.answers(images, template, text.classnames) for template in text.templates]
        words = {str(word) for answers in told for word in np.unique(answers)}
        return cls(text, tuple(sorted(words - classes - {""})))

    def __call__(self, box: MeteredBox, images: Labelled, base: FloatArray) -> FloatArray:
        """(N, A) features; the base scores are not looked at."""
        names = [*map(of_class, range(len(self.text.classnames))), *self.words]
        columns = {name: place for place, name in enumerate(names)}
        found = np.zeros((len(images), len(names)), dtype=np.float32)
        for share, template in zip(self.text.weights, self.text.templates, strict=True):
            answers = box.answers(images, template, self.text.classnames)
            found += np.float32(share) * weights(answers, columns, len(columns))
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(lengths, 1e-12), dtype=np.float32)

    def classes(self) -> FloatArray:
        """(K, A): what each class is answered with if the box means what it says."""
        count = len(self.text.classnames)
        return np.eye(count, count + len(self.words), dtype=np.float32)
