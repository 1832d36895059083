"""Metrics against scikit-learn, and where they are not known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fuzz import fuzz
from hypothesis import strategies as st
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from llmopt.metrics import BINS, METRICS, Predicted, figures, per_class, reliability


def drawn(seed: int, images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(0, 3, (images, classes)).astype(np.float32)
    logits[np.arange(images), labels] += 2
    return logits, labels


@pytest.mark.parametrize(("images", "classes"), [(1, 6), (40, 7), (500, 12), (300, 200)])
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_they_equal_those_of_scikit_learn(images: int, classes: int) -> None:
    logits, labels = drawn(classes, images, classes)
    predicted = Predicted.of(logits, labels)
    found = figures(labels, predicted)
    assert found["top1"] == (logits.argmax(1) == labels).mean()
    assert found["top5"] == pytest.approx(
        top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
    )
    assert found["mean_per_class_recall"] == pytest.approx(
        balanced_accuracy_score(labels, predicted.top)
    )
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted.top, average="macro"))
    rows = per_class(labels, predicted, predicted, [str(k) for k in range(classes)])
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted.top, labels=range(classes), zero_division=0
    )
    assert [row["images"] for row in rows] == support.tolist()
    for name, theirs in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert [row[name] or 0 for row in rows] == pytest.approx(theirs.tolist())


def test_calibration_is_the_gap_of_confidence_and_accuracy() -> None:
    logits, labels = drawn(3, 4_000, 8)
    predicted = Predicted.of(logits, labels)
    odds = np.exp(logits.astype(float))
    sure = (odds / odds.sum(1, keepdims=True)).max(1)
    edges = np.linspace(0, 1, BINS + 1)
    gap = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (sure > low) & (sure <= high)
        if inside.any():
            hits = logits.argmax(1)[inside] == labels[inside]
            gap += inside.mean() * abs(hits.mean() - sure[inside].mean())
    assert METRICS["ece"].of(labels, predicted) == pytest.approx(gap, abs=1e-6)
    bins = reliability(labels, predicted)
    assert bins is not None
    assert sum(one["images"] for one in bins) == 4_000
    assert all(one["low"] <= one["confidence"] <= one["high"] for one in bins)


def test_what_is_not_known_is_none() -> None:
    logits, labels = drawn(1, 30, 9)
    answers = figures(labels, Predicted.of(logits, labels, graded=False))
    assert (answers["top5"], answers["ece"]) == (None, None)
    assert answers["macro_f1"] is not None
    assert reliability(labels, Predicted.of(logits, labels, graded=False)) is None
    assert figures(labels % 5, Predicted.of(logits[:, :5], labels % 5))["top5"] is None
    absent = per_class(np.array([0]), Predicted(np.array([0])), Predicted(np.array([0])), "ab")[1]
    assert (absent["images"], absent["recall"], absent["recall_ci95"]) == (0, None, None)
    assert (absent["precision"], absent["f1"]) == (None, None)


@fuzz(seed=st.integers(0, 10_000), images=st.integers(1, 60), classes=st.integers(1, 40))
def test_they_are_fractions(seed: int, images: int, classes: int) -> None:
    logits, labels = drawn(seed, images, classes)
    found = figures(labels, Predicted.of(1e4 * logits, labels))
    assert all(value is None or 0 <= value <= 1 for value in found.values())
    assert (found["top5"] is None) == (classes <= 5)
