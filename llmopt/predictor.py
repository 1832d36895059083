"""What a run leaves behind: images in, class scores out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmopt.task import FloatArray, Labelled
from llmopt.template import Template
from llmopt.vision.base import Access

if TYPE_CHECKING:
    from llmopt.vision.metered import MeteredBox


class Predictor(ABC):
    """A classifier made of prompts, and perhaps a head.

    Attributes:
        soft_prompt: what a result file says of its soft prompt, or None.
        head: what it says of its head, or None.
    """

    soft_prompt: Mapping[str, Any] | None = None
    head: Mapping[str, Any] | None = None

    @abstractmethod
    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        """(N, K) float32 class scores."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people."""

    @abstractmethod
    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Arrays and a JSON-able rest, ``kind`` among it, from which it can be made again."""


@dataclass(frozen=True)
class TextPredictor(Predictor):
    """Templates with weights.

    Where the box gives features, the class embedding is the weighted mean of the templates'
    normalised embeddings, normalised again, as open_clip and CLIP_benchmark ensemble; where it
    gives scores only, the weighted mean of the scores.

    Attributes:
        templates: at least one.
        classnames: the names that fill them, in label order.
        weights: one each, positive, summing to 1.
    """

    templates: tuple[Template, ...]
    classnames: tuple[str, ...]
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.templates or len(self.templates) != len(self.weights):
            raise ValueError("templates and weights must be of one length, at least one")

    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        """(N, K) float32 class scores."""
        weights = np.asarray(self.weights, dtype=np.float32)
        if box.access >= Access.FEATURES and len(self.templates) > 1:
            visual = box.image_features(images)
            return np.asarray(box.logits(visual, self.text_matrix(box, images)), dtype=np.float32)
        scores = box.score_templates(images, self.templates, self.classnames)
        return np.tensordot(weights, scores, axes=1).astype(np.float32)

    def text_matrix(self, box: MeteredBox, scored_on: Labelled | None = None) -> FloatArray:
        """(K, d) class embeddings, L2-normalised."""
        weights = np.asarray(self.weights, dtype=np.float32)
        features = box.text_features(self.templates, self.classnames, scored_on)
        mean = np.tensordot(weights, features, axes=1)
        return np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True), dtype=np.float32)

    def describe(self) -> str:
        """The template, or how many."""
        first = self.templates[0].text
        return first if len(self.templates) == 1 else f"{first} (+{len(self.templates) - 1} more)"

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """The weights as an array, the texts beside it."""
        config = {
            "kind": "text",
            "templates": [t.text for t in self.templates],
            "classnames": list(self.classnames),
        }
        return {"weights": np.asarray(self.weights, dtype=np.float64)}, config

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any]
    ) -> TextPredictor:
        """The inverse of :meth:`state`."""
        templates = tuple(Template(text) for text in config["templates"])
        return cls(templates, tuple(config["classnames"]), tuple(tensors["weights"].tolist()))


def single(template: Template, classnames: Sequence[str]) -> TextPredictor:
    """The predictor of one template."""
    return TextPredictor((template,), tuple(classnames))
