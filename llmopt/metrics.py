"""How good predictions are: top-1 and top-5, recall and F1 by class, calibration.

Everything is a function of what was predicted on N images; nothing here looks at pixels or prompts.
All figures are fractions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llmopt.stats import BoolArray, accuracy_interval

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

BINS: Final = 15
"""Of confidence, equally wide, in the calibration error (Guo et al., 2017)."""
FEW: Final = 5
"""Classes a top-5 answer may name."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a classifier says of N images.

    Attributes:
        top: (N,) the likeliest class.
        in_five: (N,) whether the true class is among the five likeliest; None where the classifier
            ranks no classes, or has no more than five.
        confidence: (N,) probability of the likeliest class; None where it gives none.
    """

    top: IntArray
    in_five: BoolArray | None = None
    confidence: FloatArray | None = None

    @classmethod
    def of(cls, scores: npt.ArrayLike, labels: IntArray, *, graded: bool = True) -> Predicted:
        """Of (N, K) logits and (N,) true classes.

        Args:
            scores: the logits.
            labels: the true classes.
            graded: the logits say how likely each class is, not just which one is answered.
        """
        logits = np.asarray(scores)
        top = logits.argmax(axis=1).astype(np.int64)
        if not graded or not logits.size:
            return cls(top)
        above = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
        odds = np.exp((logits - logits.max(axis=1, keepdims=True)).astype(np.float64))
        confidence = (1 / odds.sum(axis=1)).astype(np.float32)
        return cls(top, above < FEW if logits.shape[1] > FEW else None, confidence)

    def take(self, rows: IntArray) -> Predicted:
        """Of these images alone."""
        return Predicted(*(None if one is None else one[rows] for one in self._parts()))  # type: ignore[arg-type]

    def mixed(self, other: Predicted, which: BoolArray) -> Predicted:
        """With what ``other`` says of the images in ``which``."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return Predicted(
            *(None if a is None or b is None else np.where(which, b, a) for a, b in pairs)  # type: ignore[arg-type]
        )

    def _parts(self) -> tuple[npt.NDArray[Any] | None, ...]:
        return self.top, self.in_five, self.confidence


@dataclass(frozen=True)
class Metric:
    """A figure of merit.

    Attributes:
        label: for people.
        of: its value, of (N,) true classes and what was predicted; None where that is not known.
        hits: (N,) whether each image is a hit, where the figure is the share of hits.
        sign: 1 where more is better, -1 where less is.
    """

    label: str
    of: Callable[[IntArray, Predicted], float | None]
    hits: Callable[[IntArray, Predicted], BoolArray | None] | None = None
    sign: int = 1


def _right(labels: IntArray, predicted: Predicted) -> BoolArray:
    return np.asarray(predicted.top == labels)


def _in_five(labels: IntArray, predicted: Predicted) -> BoolArray | None:
    return predicted.in_five


def top1(labels: IntArray, predicted: Predicted) -> float:
    """Accuracy."""
    return float(_right(labels, predicted).mean())


def top5(labels: IntArray, predicted: Predicted) -> float | None:
    """Share of images whose class is among the five likeliest."""
    return None if predicted.in_five is None else float(predicted.in_five.mean())


def mean_recall(labels: IntArray, predicted: Predicted) -> float:
    """Mean over the classes that occur of the share of their images that is recognised."""
    images, _, right = _counts(labels, predicted)
    return float((right / np.maximum(images, 1))[images > 0].mean())


def macro_f1(labels: IntArray, predicted: Predicted) -> float:
    """Mean F1 of the classes that occur or are predicted."""
    images, answers, right = _counts(labels, predicted)
    met = images + answers
    return float((2 * right / np.maximum(met, 1))[met > 0].mean())


def calibration_error(labels: IntArray, predicted: Predicted) -> float | None:
    """Expected calibration error: how far confidence is from accuracy, over :data:`BINS` bins."""
    bins = reliability(labels, predicted)
    if bins is None:
        return None
    gaps = [one["images"] * abs(one["confidence"] - one["accuracy"]) for one in bins]
    return float(sum(gaps) / len(labels))


METRICS: Final[dict[str, Metric]] = {
    "top1": Metric("test", top1, _right),
    "top5": Metric("top-5", top5, _in_five),
    "mean_per_class_recall": Metric("mean per-class recall", mean_recall),
    "macro_f1": Metric("macro F1", macro_f1),
    "ece": Metric("calibration error", calibration_error, sign=-1),
}
"""By their names in files and options."""


def figures(labels: IntArray, predicted: Predicted) -> dict[str, float | None]:
    """Every metric by name."""
    return {name: metric.of(labels, predicted) for name, metric in METRICS.items()}


def reliability(labels: IntArray, predicted: Predicted) -> list[dict[str, Any]] | None:
    """Bins of confidence that have images: ``low``, ``high``, ``images``, mean ``confidence`` and
    ``accuracy``.
    """  # fmt: skip
    if predicted.confidence is None:
        return None
    sure = predicted.confidence.astype(np.float64)
    place = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
    images = np.bincount(place, minlength=BINS)
    confidence = np.bincount(place, sure, BINS)
    right = np.bincount(place, _right(labels, predicted).astype(np.float64), BINS)
    return [
        {
            "low": k / BINS,
            "high": (k + 1) / BINS,
            "images": int(images[k]),
            "confidence": float(confidence[k] / images[k]),
            "accuracy": float(right[k] / images[k]),
        }
        for k in np.flatnonzero(images).tolist()
    ]


def per_class(
    labels: IntArray, start: Predicted, best: Predicted, classnames: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each class: its images, the start's and the best's recall with 95 % intervals, the
    best's precision and F1; None where there is nothing to divide by.
    """  # fmt: skip
    rows = []
    counted = [_counts(labels, one, len(classnames)) for one in (start, best)]
    for k, name in enumerate(classnames):
        (images, _, before), (_, answers, right) = ([int(n[k]) for n in one] for one in counted)
        (old, old_ci), (new, new_ci) = (_recall(hits, images) for hits in (before, right))
        met = images + answers
        rows.append(
            {
                "class": name,
                "images": images,
                "start_recall": old,
                "start_recall_ci95": old_ci,
                "recall": new,
                "recall_ci95": new_ci,
                "precision": right / answers if answers else None,
                "f1": 2 * right / met if met else None,
            }
        )
    return rows


def _counts(
    labels: IntArray, predicted: Predicted, classes: int = 0
) -> tuple[IntArray, IntArray, IntArray]:
    """(K,) images of each class, answers that name it, and images of it that are recognised."""
    classes = max(classes, int(max(labels.max(initial=0), predicted.top.max(initial=0))) + 1)
    right = labels[_right(labels, predicted)]
    images, answers, hits = (
        np.bincount(a, minlength=classes) for a in (labels, predicted.top, right)
    )
    return images, answers, hits


def _recall(hits: int, images: int) -> tuple[float | None, list[float] | None]:
    """Share of a class's images that is recognised, and its interval."""
    if not images:
        return None, None
    return hits / images, list(accuracy_interval(np.arange(images) < hits))
