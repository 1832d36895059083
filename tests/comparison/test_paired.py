"""The statistics of comparisons, against scipy and against simulated runs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from llmopt.comparison.paired import (
    Difference,
    accuracy,
    compared,
    difference,
    measured,
    sign_flip,
)
from llmopt.metrics import METRICS, Metric, Predicted, top1
from llmopt.stats import holm, paired_gain


def test_one_seed_is_mcnemars_test() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 300)) < [[0.8], [0.7]]
    better, worse = int((a & ~b).sum()), int((b & ~a).sum())
    expected = scipy_stats.binomtest(better, better + worse).pvalue
    assert sign_flip(a.astype(int) - b.astype(int)) == pytest.approx(expected, rel=1e-9)
    assert difference(a, b).p_value == pytest.approx(paired_gain(a, b).p_value, rel=1e-9)


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_the_exact_test_agrees_with_scipys_permutations(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    values = rng.integers(-seeds, seeds + 1, size=14) + (rng.random(14) < 0.3)
    expected = scipy_stats.permutation_test(
        (values, np.zeros(14)),
        lambda x, y: x.sum() - y.sum(),
        permutation_type="samples",
        vectorized=False,
        n_resamples=np.inf,
    ).pvalue
    assert sign_flip(values) == pytest.approx(expected, rel=1e-9)


def test_no_difference_is_no_evidence() -> None:
    assert sign_flip(np.zeros(10, dtype=int)) == 1.0
    same = np.ones((3, 20), dtype=bool)
    found = difference(same, same)
    assert (found.mean, found.p_value) == (0.0, 1.0)
    assert found.verdict(1.0) == "no significant difference"


def test_large_samples_take_the_fast_way_and_stay_probabilities() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(-3, 4, size=20_000)
    p = sign_flip(values)
    z = abs(values.sum()) / np.sqrt((values**2).sum())
    assert p == pytest.approx(2 * scipy_stats.norm.sf(z), abs=5e-3)
    assert 0 < sign_flip(np.abs(values) + 1) <= 1e-11


def test_verdicts() -> None:
    def found(mean: float, low: float, high: float) -> Difference:
        return Difference(mean, (low, high), 0.001, 3, 100)

    assert found(0.1, 0.05, 0.15).verdict(0.01) == "better"
    assert found(-0.1, -0.15, -0.05).verdict(0.01) == "worse"
    assert found(0.1, -0.05, 0.25).verdict(0.01) == "these runs only"
    assert found(0.1, 0.05, 0.15).verdict(0.06) == "no significant difference"


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        difference(np.ones((2, 3)), np.ones((2, 4)))


def test_intervals_over_seeds_cover_at_their_rate() -> None:
    rng = np.random.default_rng(2)
    truth = 0.1
    covered = 0
    for _ in range(600):
        gains = truth + rng.normal(0, 0.05, size=3)  # what few-shot samples do
        rates = np.clip(0.6 + np.stack([gains, np.zeros(3)]), 0, 1)
        hits = rng.random((2, 3, 400)) < rates[..., None]
        low, high = difference(hits[0], hits[1]).interval
        covered += low <= truth <= high
    assert 0.92 <= covered / 600 <= 0.98


def test_intervals_over_images_cover_at_their_rate() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(600):
        kinds = rng.choice(4, size=200, p=[0.5, 0.15, 0.1, 0.25])
        a, b = (kinds == 0) | (kinds == 1), (kinds == 0) | (kinds == 2)
        low, high = difference(a, b).interval
        covered += low <= 0.05 <= high
    assert 0.93 <= covered / 600 <= 0.98


def test_the_family_wise_error_holds() -> None:
    """Of comparisons among four equal arms, one in twenty may call any pair different."""
    rng = np.random.default_rng(4)
    false_alarms = 0
    for _ in range(400):
        hits = rng.random((4, 2, 150)) < 0.7
        p_values = [difference(hits[i], hits[j]).p_value for i in range(4) for j in range(i + 1, 4)]
        false_alarms += bool((holm(p_values) < 0.05).any())
    assert false_alarms / 400 <= 0.07


def test_intervals_of_accuracies_stay_accuracies() -> None:
    hits = np.arange(100) < np.array([[99], [100], [90]])
    found = accuracy(hits)
    assert found.high == 1.0
    each = hits.mean(axis=1)
    assert found.value == pytest.approx(each.mean())
    low, _ = scipy_stats.t.interval(0.95, 2, loc=found.value, scale=scipy_stats.sem(each))
    assert found.low == pytest.approx(low)


def test_seeds_that_agree_do_not_make_the_test_images_certain() -> None:
    hits = np.stack([np.arange(100) < 90] * 2)
    low, high = accuracy(hits)[1:]
    assert 0.03 < high - low < 0.15
    low, high = difference(hits, ~hits).interval
    assert high - low > 0.1


def sides(
    seed: int, rates: tuple[float, float], seeds: int = 1
) -> tuple[np.ndarray, list[list[Predicted]]]:
    """Three classes, and two sides' predictions that are right at their rates."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 200)
    return labels, [
        [
            Predicted(np.where(rng.random(200) < rate, labels, (labels + 1) % 3))
            for _ in range(seeds)
        ]
        for rate in rates
    ]


def test_resampling_agrees_with_what_is_exact() -> None:
    """Accuracy, told to be no share of hits, comes out as the exact test has it."""
    labels, (a, b) = sides(5, (0.8, 0.72))
    exact = compared(METRICS["top1"], labels, a, b)
    drawn = compared(Metric("drawn", top1), labels, a, b)
    assert drawn.mean == exact.mean
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.03)
    assert drawn.interval == pytest.approx(exact.interval, abs=0.02)
    value = measured(Metric("drawn", top1), labels, a)
    assert value == pytest.approx(measured(METRICS["top1"], labels, a), abs=0.02)


def test_less_of_some_metrics_is_better() -> None:
    labels, (a, b) = sides(6, (0.9, 0.6), seeds=3)
    for side, sure in ((a, 0.9), (b, 0.99)):
        side[:] = [Predicted(one.top, None, np.full(200, sure, np.float32)) for one in side]
    found = compared(METRICS["ece"], labels, a, b)
    assert found.mean < -0.2
    assert found.points > 20
    assert found.verdict(found.p_value) == "better"
    f1 = compared(METRICS["macro_f1"], labels, a, b)
    assert f1.interval[0] > 0
    assert f1.p_value == pytest.approx(1 / 1001)
    with pytest.raises(ValueError, match="not known"):
        compared(METRICS["ece"], labels, [Predicted(labels)], [Predicted(labels)])


def test_equal_sides_are_rarely_called_different() -> None:
    alarms = 0
    for seed in range(12):
        labels, (a, b) = sides(seed, (0.7, 0.7))
        alarms += compared(METRICS["macro_f1"], labels, a, b).p_value < 0.05
    assert alarms <= 3
