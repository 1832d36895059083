"""A predictor with a head on top, and how it comes about after a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from llmopt.data.augment import Augmentation, with_views
from llmopt.errors import AccessError
from llmopt.heads import HEADS
from llmopt.heads import bank as banks
from llmopt.heads.bank import Bank, default_bank
from llmopt.heads.base import Shots
from llmopt.heads.fitted import FittedHead
from llmopt.heads.select import Selection, make, select
from llmopt.heads.words import Words
from llmopt.predictor import (
    Arrays,
    Predictor,
    State,
    TextPredictor,
    predictor_from_state,
    texts,
)
from llmopt.stats import accuracy
from llmopt.task import FloatArray, IntArray, Labelled, Task
from llmopt.template import Template
from llmopt.vision.base import Access, BoxInfo

if TYPE_CHECKING:
    from llmopt.vision.metered import MeteredBox

AUTO = ("bias", "tip", "gda", "ridge", "map")
"""What ``auto`` looks at, of what a box's level allows: heads in closed form."""

_SURE = 8.0
"""Answers count 0 or 1, which the flattest of likely temperatures would leave unsure."""


@dataclass(frozen=True, eq=False)
class Bridge:
    """Features from scores: which prompts, and what is made of their scores."""

    bank: Bank
    features: banks.Features

    def __call__(self, box: MeteredBox, images: Labelled, base: FloatArray) -> FloatArray:
        """(N, d) features of images whose (N, K) base scores are known."""
        return self.features(self.bank.scores(box, images, base))


@dataclass(frozen=True, eq=False)
class HeadedPredictor(Predictor):
    """A predictor whose scores a head corrects.

    Attributes:
        base: the predictor.
        fitted: the head.
        bridge: where the features come from on a box that gives scores or answers only; None
            elsewhere.
    """

    kind = "headed"

    base: Predictor
    fitted: FittedHead
    bridge: Bridge | Words | None = None

    @property
    def access(self) -> Access:
        """The least a box must offer."""
        if isinstance(self.bridge, Words):
            return Access.LABELS
        if self.fitted.looks_at_features and self.bridge is None:
            return Access.FEATURES
        return Access.SCORES

    @property
    def innermost(self) -> Predictor:
        """The predictor below this head and any other."""
        return self.base.innermost

    @property
    def text(self) -> TextPredictor | None:
        """The text prompts below the head, if there are any."""
        return self.base.text

    @property
    def by_class(self) -> Mapping[int, Mapping[str, float]] | None:
        """The prompts of each class below the head, if it has its own."""
        return self.base.by_class

    @property
    def soft_prompt(self) -> Mapping[str, Any] | None:
        """What a result file says of the soft prompt below the head, if there is one."""
        return self.base.soft_prompt

    @property
    def head(self) -> Mapping[str, Any]:
        """What a result file says of the head."""
        return self.fitted.save()[1]

    def text_matrix(self, box: MeteredBox, scored_on: Labelled | None = None) -> FloatArray:
        """(K, d) float32 class embeddings, L2-normalised, of the prompts below the head."""
        return self.base.text_matrix(box, scored_on)

    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        """(N, K) float32 class scores.

        Raises:
            AccessError: the head looks at features, and the box has none; or at answers, and the
                box gives more.
        """
        if isinstance(self.bridge, Words) and box.access > Access.LABELS:
            raise AccessError(
                f"head '{self.fitted.name}' reads answers, but {box.info.name} offers "
                f"'{box.access}'; fit one for it"
            )
        if box.access < self.access:
            raise AccessError(
                f"head '{self.fitted.name}' needs access level '{self.access}', but "
                f"{box.info.name} offers '{box.access}'"
            )
        base = self.base.scores(box, images)
        if not self.fitted.looks_at_features:
            return self.fitted.scores(base)
        if self.bridge is None:
            return self.fitted.scores(base, box.image_features(images))
        return self.fitted.scores(base, self.bridge(box, images, base))

    def describe(self) -> str:
        """The base in its own words, and the head's name."""
        return f"{self.base.describe()} with head '{self.fitted.name}'"

    def state(self) -> State:
        """The states of base, head and bridge under their names."""
        tensors, config = self.base.state()
        arrays = {f"base.{name}": array for name, array in tensors.items()}
        head, rest = self.fitted.save()
        arrays |= {f"head.{name}": array for name, array in head.items()}
        state: dict[str, Any] = {"kind": self.kind, "base": config, "head": rest, "bank": None}
        if isinstance(self.bridge, Words):
            state["words"] = list(self.bridge.words)
        elif self.bridge is not None:
            features, scale = self.bridge.features.save()
            arrays |= {f"bank.{name}": array for name, array in features.items()}
            bank = self.bridge.bank
            state["bank"] = scale | {
                "templates": [template.text for template in bank.templates],
                "phrases": list(bank.phrases),
                "classnames": list(bank.classnames),
            }
        return arrays, state

    @classmethod
    def from_state(cls, tensors: Arrays, config: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`state`."""
        base = predictor_from_state(_below("base.", tensors), config["base"])
        fitted = FittedHead.load(_below("head.", tensors), config["head"])
        if "words" in config:
            if base.text is None:
                raise TypeError("a head that reads answers needs text prompts")
            return cls(base, fitted, Words(base.text, texts(config["words"])))
        told = config["bank"]
        if told is None:
            return cls(base, fitted)
        templates = tuple(Template(text) for text in told["templates"])
        bank = Bank(templates, tuple(told["phrases"]), tuple(told["classnames"]))
        features = banks.Features.load(_below("bank.", tensors), told)
        return cls(base, fitted, Bridge(bank, features))


def head_names(asked: str) -> tuple[str, ...]:
    """The heads that ``--head`` means: ``auto``, or names with commas between.

    Raises:
        ConfigError: one is unknown.
    """
    if asked == "auto":
        return AUTO
    names = tuple(name.strip() for name in asked.split(","))
    for name in names:
        HEADS.get(name)
    return names


def heads_for(names: Sequence[str], info: BoxInfo) -> tuple[str, ...]:
    """Those of some heads that a box's level allows.

    Raises:
        AccessError: none is left.
    """

    def fits(name: str) -> bool:
        return (HEADS.get(name).level == Access.LABELS) == (info.access == Access.LABELS)

    found = tuple(filter(fits, names))
    if names and not found:
        raise AccessError(
            f"head '{','.join(names)}' is not for {info.name}, which offers '{info.access}'; "
            f"with it you can use: auto, {', '.join(filter(fits, AUTO))}"
        )
    return found


def with_head(
    base: Predictor,
    names: Sequence[str],
    box: MeteredBox,
    task: Task,
    seed: int,
    *,
    views: int = 0,
    augmentation: Augmentation | None = None,
    standard_errors: float = 1.0,
) -> tuple[Predictor, Selection]:
    """Fit heads on a predictor's scores of the training images, and keep the surest, or none.

    Args:
        base: what the search found.
        names: heads to look at.
        box: the metered black box; views are charged as the images they are.
        task: the few shots.
        seed: of views, folds and training.
        views: augmented views of each training image beside the image itself; they help only
            where a crop shows the same, which is tried.
        augmentation: how views differ from their image.
        standard_errors: how many a gain must exceed to count.

    Returns:
        The predictor with its head (``base`` itself if no head is convincing), and why.

    Raises:
        AccessError: none of the heads is for a box of this level.
        BudgetExhausted: the caps do not pay for it; ``base`` is as good as before.
    """
    heads = make(heads_for(names, box.info))
    train = with_views(task.train, views, seed, augmentation)
    base_scores = base.scores(box, train)
    sure = _SURE if box.access < Access.SCORES else 1.0
    sight = None
    if any(head.looks_at_features for head in heads):
        sight = _sight(base, box, task, train, base_scores)

    def shots(images: Labelled, scores: FloatArray, labels: IntArray) -> Shots:
        shape = (len(labels), -1, scores.shape[-1])
        base_scores = np.float32(sure) * scores.reshape(shape)
        if sight is None:
            return Shots(base_scores, labels)
        seen = sight.features(images, scores)
        features = seen.reshape(*shape[:2], seen.shape[-1])
        made = isinstance(sight.bridge, Bridge)
        return Shots(base_scores, labels, features, sight.text, sight.scale, made)

    few = shots(train, base_scores, task.train.labels)
    held = None
    if len(task.val):
        held = shots(task.val, base.scores(box, task.val), task.val.labels)
    selection = select(heads, few, seed, held, standard_errors)
    known = _accuracy(selection.head, few), _accuracy(selection.head, held) if held else None
    selection = replace(selection, accuracies=known)
    if selection.fallback:
        return base, selection
    selection = replace(selection, head=selection.head.scaled(sure))
    bridge = sight.bridge if sight is not None and selection.head.looks_at_features else None
    return HeadedPredictor(base, selection.head, bridge), selection


def _accuracy(head: FittedHead, shots: Shots) -> float:
    """Of the images as they are, under a head."""
    return accuracy(head.scores(shots.plain, shots.plain_features), shots.labels)


@dataclass(frozen=True, eq=False)
class _Sight:
    """Where features come from, and the class embeddings beside them."""

    features: Callable[[Labelled, FloatArray], FloatArray]
    text: FloatArray
    scale: float
    bridge: Bridge | Words | None


def _sight(
    base: Predictor, box: MeteredBox, task: Task, train: Labelled, scores: FloatArray
) -> _Sight:
    """The box's own features where there are some, a bank's or the answers elsewhere."""
    if box.access < Access.SCORES and base.text is not None:
        words = Words.heard(base.text, box, train)
        return _Sight(lambda i, s: words(box, i, s), words.classes(), 1.0, words)
    if box.access >= Access.FEATURES and base.linear:
        text = base.text_matrix(box, train)
        return _Sight(lambda i, _: box.image_features(i), text, box.info.logit_scale, None)
    bank = default_bank(task.classnames)
    fitted = banks.Features.fit(
        bank.scores(box, train, scores), len(task.train), len(task.classnames)
    )
    bridge = Bridge(bank, fitted)
    return _Sight(lambda i, s: bridge(box, i, s), fitted.text, fitted.scale, bridge)


def _below(prefix: str, tensors: Arrays) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
