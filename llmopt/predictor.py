"""What a run leaves behind: images in, class scores out.

A predictor is what it can do: whoever uses one asks it, never what class it is. A kind of one's own
derives from :class:`Predictor` and is found again by its name through the entry points
``llmopt.predictors``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from llmopt.errors import AccessError
from llmopt.registry import Registry
from llmopt.task import FloatArray, IntArray, Labelled
from llmopt.template import Template
from llmopt.vision.base import Access

if TYPE_CHECKING:
    from llmopt.vision.metered import MeteredBox

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
State: TypeAlias = tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]


class Predictor(ABC):
    """A classifier made of prompts, and perhaps a head.

    Class attributes:
        kind: its name in files, by which it is found again.
        portable: whether it can be scored behind another model than the one it was found behind.
        linear: whether its scores are the logits of image features against :meth:`text_matrix`.
    """

    kind: ClassVar[str]
    portable: ClassVar[bool] = False
    linear: ClassVar[bool] = False

    @abstractmethod
    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        """(N, K) float32 class scores."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people."""

    @abstractmethod
    def state(self) -> State:
        """Arrays and a JSON-able rest, ``kind`` among it, from which it can be made again.

        A soft prompt's vectors are the array ``context``.
        """

    @classmethod
    @abstractmethod
    def from_state(cls, tensors: Arrays, config: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`state`."""

    @property
    def innermost(self) -> Predictor:
        """The predictor below every head: itself, where it has none."""
        return self

    @property
    def text(self) -> TextPredictor | None:
        """Its text prompts, without any head on them; None where there are none."""
        return None

    @property
    def by_class(self) -> Mapping[int, Mapping[str, float]] | None:
        """By label, whole prompts and their weights; None where all classes share templates."""
        return None

    @property
    def soft_prompt(self) -> Mapping[str, Any] | None:
        """What a result file says of its soft prompt, or None."""
        return None

    @property
    def head(self) -> Mapping[str, Any] | None:
        """What a result file says of its head, or None."""
        return None

    def text_matrix(self, box: MeteredBox, scored_on: Labelled | None = None) -> FloatArray:
        """(K, d) float32 class embeddings, L2-normalised, of its prompts, without any head.

        Args:
            box: encodes the prompts.
            scored_on: images they will be compared with, which are then charged as pairs.

        Raises:
            AccessError: the classes of this predictor have no embeddings.
        """
        raise AccessError(f"the classes of {self.describe()} have no embeddings")

    def for_classes(self, classnames: Sequence[str], columns: Callable[[], IntArray]) -> Predictor:
        """The same predictor for the K' classes of another data set.

        Args:
            classnames: K' names, for prompts that can take new ones.
            columns: asked by other predictors: (K',) places of the classes among those learned.
                It raises where one of them was not learned.
        """
        return _Columns(self, columns())


PREDICTORS: Final[Registry[type[Predictor]]] = Registry(
    "kind of predictor",
    "predictors",
    {
        "text": "llmopt.predictor:TextPredictor",
        "described": "llmopt.search.text.described:DescribedPredictor",
        "soft": "llmopt.search.soft.machinery.soft_predictor:SoftPredictor",
        "headed": "llmopt.heads.predictor:HeadedPredictor",
    },
    base="llmopt.predictor:Predictor",
)
"""What a saved predictor may be, by :attr:`Predictor.kind`."""


def predictor_from_state(tensors: Arrays, config: Mapping[str, Any]) -> Predictor:
    """The inverse of :meth:`Predictor.state`, whatever its kind.

    Raises:
        ConfigError: its kind is unknown.
    """
    return PREDICTORS.get(config["kind"]).from_state(tensors, config)


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

    kind = "text"
    portable = True
    linear = True

    templates: tuple[Template, ...]
    classnames: tuple[str, ...]
    weights: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if not self.templates or len(self.templates) != len(self.weights):
            raise ValueError("templates and weights must be of one length, at least one")

    @property
    def text(self) -> TextPredictor:
        """Itself."""
        return self

    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        """(N, K) float32 class scores."""
        weights = np.asarray(self.weights, dtype=np.float32)
        if box.access >= Access.FEATURES and len(self.templates) > 1:
            visual = box.image_features(images)
            found: FloatArray = box.logits(visual, self.text_matrix(box, images))
            return found
        scores = box.score_templates(images, self.templates, self.classnames)
        return np.tensordot(weights, scores, axes=1).astype(np.float32)

    def text_matrix(self, box: MeteredBox, scored_on: Labelled | None = None) -> FloatArray:
        """(K, d) float32 class embeddings, L2-normalised."""
        weights = np.asarray(self.weights, dtype=np.float32)
        features = box.text_features(self.templates, self.classnames, scored_on)
        mean = np.tensordot(weights, features, axes=1)
        return np.asarray(mean / np.linalg.norm(mean, axis=-1, keepdims=True), dtype=np.float32)

    def for_classes(
        self, classnames: Sequence[str], columns: Callable[[], IntArray]
    ) -> TextPredictor:
        """The same templates, filled with the new names."""
        return replace(self, classnames=tuple(classnames))

    def describe(self) -> str:
        """The first template, and how many more there are."""
        first = self.templates[0].text
        return first if len(self.templates) == 1 else f"{first} (+{len(self.templates) - 1} more)"

    def state(self) -> State:
        """The weights as an array, (T,) float64; the texts beside it."""
        config = {
            "kind": self.kind,
            "templates": [t.text for t in self.templates],
            "classnames": list(self.classnames),
        }
        return {"weights": np.asarray(self.weights, dtype=np.float64)}, config

    @classmethod
    def from_state(cls, tensors: Arrays, config: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`state`."""
        templates = tuple(Template(text) for text in texts(config["templates"]))
        return cls(templates, texts(config["classnames"]), tuple(tensors["weights"].tolist()))


def texts(found: Any) -> tuple[str, ...]:
    """Texts as a file holds them.

    Raises:
        TypeError: it is no list of texts.
    """
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TypeError("what should be a list of texts is none")
    return tuple(found)


def single(template: Template, classnames: Sequence[str]) -> TextPredictor:
    """The predictor of one template."""
    return TextPredictor((template,), tuple(classnames))


@dataclass(frozen=True, eq=False)
class _Columns(Predictor):
    """A predictor seen through some of its classes, ``columns`` (K',). A view: it is not saved."""

    kind = "columns"

    whole: Predictor
    columns: IntArray

    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        return self.whole.scores(box, images)[:, self.columns]

    def describe(self) -> str:
        return self.whole.describe()

    def state(self) -> State:
        raise TypeError("a predictor seen through some of its classes is not saved")

    @classmethod
    def from_state(cls, tensors: Arrays, config: Mapping[str, Any]) -> Self:
        raise TypeError("a predictor seen through some of its classes is not saved")
