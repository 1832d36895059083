"""A classifier whose classes have prompts of their own: the template, and descriptions.

The embedding of a class is the weighted mean of its prompts' normalised embeddings, normalised
again (Pratt et al., ICCV 2023; Menon and Vondrick, ICLR 2023 average likewise). A box that gives
scores only has them averaged in place of embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llmopt.predictor import Arrays, Predictor, State, texts
from llmopt.task import FloatArray, IntArray, Labelled
from llmopt.template import Template
from llmopt.vision.base import Access
from llmopt.vision.metered import MeteredBox

Weights = npt.NDArray[np.float64]


class Bank:
    """The prompts of all classes against some images: cheap to weigh in many ways.

    Classes with fewer prompts than others are filled up with their first one, which costs nothing
    and is given no weight.

    Args:
        box: encodes or scores the prompts.
        prompts: K lists of prompts, at least one each.
        images: N, compared with them; None where only embeddings are wanted.
    """

    def __init__(
        self, box: MeteredBox, prompts: Sequence[Sequence[str]], images: Labelled | None
    ) -> None:
        self._box = box
        most = max(map(len, prompts))
        self.sets = [[own[m] if m < len(own) else own[0] for own in prompts] for m in range(most)]
        self.there = np.array([[m < len(own) for own in prompts] for m in range(most)])
        """(M, K): a prompt, and no filling."""
        self._visual: FloatArray | None = None
        self._features: FloatArray | None = None
        self._scores: FloatArray | None = None
        if box.access >= Access.FEATURES:
            self._visual = None if images is None else box.image_features(images)
            self._features = box.prompt_features(self.sets, images)
        elif images is not None:
            self._scores = box.score_prompts(images, self.sets)

    def matrix(self, weights: Weights) -> FloatArray:
        """(K, d) float32 embeddings of the classes, L2-normalised, by (M, K) weights."""
        assert self._features is not None
        mean = np.einsum("mk,mkd->kd", weights, self._features)
        return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True), dtype=np.float32)

    def logits(self, weights: Weights) -> FloatArray:
        """(N, K) float32 class scores by (M, K) weights, which sum to 1 for each class."""
        if self._features is not None:
            found: FloatArray = self._box.logits(self._visual, self.matrix(weights))
            return found
        assert self._scores is not None
        return np.asarray(np.einsum("mk,mnk->nk", weights, self._scores), dtype=np.float32)

    def column(self, place: int, label: int, weights: npt.NDArray[np.float64]) -> float:
        """The score of one image for one class by (M,) weights of its prompts."""
        if self._features is not None and self._visual is not None:
            mean = weights @ self._features[:, label]
            row = (mean / np.linalg.norm(mean)).astype(np.float32)
            return float(self._box.logits(self._visual[place][None], row[None])[0, 0])
        assert self._scores is not None
        return float(weights @ self._scores[:, place, label])

    def singly(self, labels: IntArray) -> tuple[Weights, Weights, Weights]:
        """What each prompt alone says of the images.

        Returns:
            (M, K) sums over the images of the class, (M, K) sums over all images, and (N, M) of
            each image for its own class.
        """
        classes = np.eye(len(self.sets[0]))[labels]  # (N, K)
        if self._features is not None and self._visual is not None:
            visual = self._box.info.logit_scale * self._visual.astype(np.float64)
            sums, whole = classes.T @ visual, visual.sum(axis=0)
            shape = self.there.shape
            own, every, each = np.empty(shape), np.empty(shape), np.empty((len(labels), shape[0]))
            for m, features in enumerate(self._features):  # all at once would be twice their size
                exact = features.astype(np.float64)
                own[m] = np.einsum("kd,kd->k", exact, sums)
                every[m] = exact @ whole
                each[:, m] = np.einsum("nd,nd->n", exact[labels], visual)
            return own, every, each
        scores = np.asarray(self._scores, dtype=np.float64)
        own = np.einsum("mnk,nk->mk", scores, classes)
        return own, scores.sum(axis=1), scores[:, np.arange(len(labels)), labels].T


@dataclass(frozen=True)
class DescribedPredictor(Predictor):
    """Classes with weighted prompts of their own.

    Attributes:
        template: fills the prompts of classes that have none of their own.
        classnames: K, in label order.
        prompts: K lists of whole prompts, at least one each.
        weights: likewise, positive, summing to 1 for each class.
    """

    kind = "described"
    portable = True
    linear = True

    template: Template
    classnames: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    weights: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        sizes = list(map(len, self.prompts))
        if sizes != list(map(len, self.weights)) or len(sizes) != len(self.classnames):
            raise ValueError("each class needs prompts and as many weights")
        if not sizes or not all(sizes):
            raise ValueError("each class needs at least one prompt")

    @property
    def by_class(self) -> Mapping[int, Mapping[str, float]]:
        """By label, the weight of each prompt."""
        pairs = zip(self.prompts, self.weights, strict=True)
        return {k: dict(zip(*pair, strict=True)) for k, pair in enumerate(pairs)}

    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        """(N, K) float32 class scores."""
        return Bank(box, self.prompts, images).logits(self._padded())

    def text_matrix(self, box: MeteredBox, scored_on: Labelled | None = None) -> FloatArray:
        """(K, d) float32 class embeddings, L2-normalised."""
        if box.access < Access.FEATURES:
            return super().text_matrix(box, scored_on)
        return Bank(box, self.prompts, scored_on).matrix(self._padded())

    def for_classes(
        self, classnames: Sequence[str], columns: Callable[[], IntArray]
    ) -> DescribedPredictor:
        """Known classes keep their prompts; others get the template's."""
        known = dict(
            zip(self.classnames, zip(self.prompts, self.weights, strict=True), strict=True)
        )
        plain = {name: ((self.template.fill(name),), (1.0,)) for name in classnames}
        prompts, weights = zip(*({**plain, **known}[name] for name in classnames), strict=True)
        return replace(self, classnames=tuple(classnames), prompts=prompts, weights=weights)

    def describe(self) -> str:
        """How many classes have how many prompts."""
        several = [own for own in self.prompts if len(own) > 1]
        count = sum(map(len, several))
        return (
            f"{self.template.text} with {count} descriptions of {len(several)} of "
            f"{len(self.prompts)} classes"
        )

    def state(self) -> State:
        """All weights as one array, float64, and the texts."""
        config = {
            "kind": self.kind,
            "template": self.template.text,
            "classnames": list(self.classnames),
            "prompts": [list(own) for own in self.prompts],
        }
        return {"weights": np.concatenate([np.asarray(own) for own in self.weights])}, config

    @classmethod
    def from_state(cls, tensors: Arrays, config: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`state`."""
        prompts = tuple(texts(own) for own in config["prompts"])
        ends = np.cumsum([len(own) for own in prompts])
        weights = np.split(tensors["weights"], ends[:-1])
        if len(tensors["weights"]) != ends[-1]:
            raise ValueError("prompts and weights are not of one number")
        return cls(
            Template(str(config["template"])),
            texts(config["classnames"]),
            prompts,
            tuple(tuple(own.tolist()) for own in weights),
        )

    def _padded(self) -> Weights:
        """(M, K)."""
        padded = np.zeros((max(map(len, self.weights)), len(self.weights)))
        for k, own in enumerate(self.weights):
            padded[: len(own), k] = own
        return padded
