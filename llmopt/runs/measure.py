"""Measuring finished predictors on test images, after the search and apart from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmopt.metrics import Predicted, figures, per_class, reliability
from llmopt.predictor import Predictor, TextPredictor
from llmopt.stats import PairedGain, accuracy_interval, paired_gain
from llmopt.vision.base import Access

if TYPE_CHECKING:
    from llmopt.task import Labelled
    from llmopt.vision.metered import MeteredBox


_FEW = 30


@dataclass(frozen=True)
class Evaluation:
    """Several predictors on the same images.

    Attributes:
        labels: (N,) true classes.
        baseline, best: what the start says of them, and what was found.
        classes: K, their number.
        before: what was best before a language model was asked; None where none was.
        others: published ensembles, by the names of :mod:`llmopt.runs.baselines`.
        templates: how many each of those averages.
    """

    labels: npt.NDArray[np.int64]
    baseline: Predicted
    best: Predicted
    classes: int
    before: Predicted | None = None
    others: Mapping[str, Predicted] = field(default_factory=dict)
    templates: Mapping[str, int] = field(default_factory=dict)

    @property
    def baseline_accuracy(self) -> float:
        """Accuracy of the start, a fraction."""
        return float((self.baseline.top == self.labels).mean())

    @property
    def best_accuracy(self) -> float:
        """Accuracy of what was found, a fraction."""
        return float((self.best.top == self.labels).mean())

    @property
    def baseline_ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the start's accuracy."""
        return accuracy_interval(self.baseline.top == self.labels)

    @property
    def best_ci95(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy of what was found."""
        return accuracy_interval(self.best.top == self.labels)

    @property
    def gain(self) -> PairedGain:
        """Paired gain of what was found over the start, on the same images."""
        return paired_gain(self.best.top == self.labels, self.baseline.top == self.labels)

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

    def told(self, classnames: Sequence[str]) -> dict[str, Any]:
        """What files say of it beside accuracies: ``metrics`` of start and best, each class, and
        the published ensembles with the best's paired gain over them.
        """  # fmt: skip
        sides = {"start": self.baseline, "best": self.best}
        return {
            "metrics": {
                name: {
                    **figures(self.labels, one),
                    "reliability": reliability(self.labels, one),
                }
                for name, one in sides.items()
            },
            "per_class": per_class(self.labels, self.baseline, self.best, classnames),
            "baselines": {name: self._against(name) for name in self.others},
        }

    def _against(self, name: str) -> dict[str, Any]:
        hits = self.others[name].top == self.labels
        gain = paired_gain(self.best.top == self.labels, hits)
        return {
            "templates": self.templates[name],
            "test_accuracy": float(hits.mean()),
            "test_accuracy_ci95": list(accuracy_interval(hits)),
            "metrics": figures(self.labels, self.others[name]),
            "gain": {
                "test_accuracy": gain.difference,
                "ci95": list(gain.ci95),
                "p_value": gain.p_value,
            },
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """As a file holds it; :func:`predictions` is the inverse."""
        found: dict[str, npt.NDArray[Any]] = {"labels": self.labels}
        for name, one in {"baseline": self.baseline, "best": self.best, **self.others}.items():
            found[name] = one.top
            for part in _PARTS:
                if (array := getattr(one, part)) is not None:
                    found[f"{name}.{part}"] = array
        return found


_PARTS = {"in_five": "b", "confidence": "f"}  # with the kind of number each holds


def predictions(
    arrays: Mapping[str, npt.NDArray[Any]], classes: int
) -> tuple[npt.NDArray[np.int64], dict[str, Predicted]]:
    """True classes, and what each predictor says of them, as a file has it.

    Args:
        arrays: by name, as :meth:`Evaluation.arrays` gives them.
        classes: K, their number.

    Raises:
        ValueError: they are no such thing.
        KeyError: start or best is missing.
    """
    kinds = {name: _PARTS.get(name.partition(".")[2], "i") for name in arrays}
    if any(one.ndim != 1 or one.dtype.kind != kinds[name] for name, one in arrays.items()):
        raise ValueError("it holds no list of classes")
    if len({len(one) for one in arrays.values()}) > 1:
        raise ValueError("its lists are not of one length")
    for name, one in arrays.items():
        most = {"i": classes - 1, "f": 1.0, "b": True}[kinds[name]]
        if one.size and not ((one >= 0) & (one <= most)).all():
            raise ValueError(f"'{name}' holds what is none of {classes} classes, or no probability")
    names = {name.partition(".")[0] for name in arrays} - {"labels"}
    found = {
        name: Predicted(arrays[name], *(arrays.get(f"{name}.{part}") for part in _PARTS))
        for name in sorted({*names, "baseline", "best"})
    }
    return arrays["labels"], found


def measure(
    box: MeteredBox,
    images: Labelled,
    best: Predictor,
    baseline: Predictor,
    classes: int,
    before: Predictor | None = None,
    others: Mapping[str, TextPredictor] | None = None,
) -> Evaluation:
    """Predict all images with each predictor."""
    graded = box.access > Access.LABELS

    def predict(one: Predictor) -> Predicted:
        return Predicted.of(one.scores(box, images), images.labels, graded=graded)

    first, then = predict(baseline), predict(best)
    others = others or {}
    return Evaluation(
        images.labels,
        first,
        then,
        classes,
        predict(before) if before else None,
        {name: predict(one) for name, one in others.items()},
        {name: len(one.templates) for name, one in others.items()},
    )
