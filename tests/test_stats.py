from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats as reference
from scipy.special import log_softmax

from llmopt import stats


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- scores against labels


def test_log_likelihoods_are_the_log_softmax_of_the_true_class() -> None:
    logits = rng().normal(size=(3, 20, 7)).astype(np.float32) * 30
    labels = rng(1).integers(0, 7, 20)
    expected = log_softmax(logits.astype(np.float64), axis=-1)[:, np.arange(20), labels]
    np.testing.assert_allclose(stats.log_likelihoods(logits, labels), expected, atol=1e-12)


def test_log_likelihoods_survive_large_and_infinite_logits() -> None:
    logits = np.array([[1e4, -1e4], [5.0, -np.inf]])
    np.testing.assert_allclose(stats.log_likelihoods(logits, [0, 0]), [0.0, 0.0])
    np.testing.assert_allclose(stats.log_likelihoods(logits[:1], [1]), [-2e4])


def test_accuracy_counts_hits() -> None:
    logits = np.eye(4)
    assert stats.accuracy(logits, [0, 1, 2, 0]) == 0.75
    assert stats.correct(np.stack([logits, -logits]), [0, 1, 2, 3]).sum(axis=1).tolist() == [4, 0]
    assert np.isnan(stats.accuracy(np.empty((0, 4)), []))


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (3, 10), (80, 100)])
def test_accuracy_interval_is_wilsons(hits: int, n: int) -> None:
    low, high = stats.accuracy_interval(np.arange(n) < hits)
    expected = reference.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_accuracy_interval_without_images_says_nothing() -> None:
    assert stats.accuracy_interval([]) == (0.0, 1.0)


# --- two classifiers on the same images


def test_paired_gain_counts_disagreements_and_tests_them_exactly() -> None:
    a = np.array([1, 1, 1, 1, 1, 0, 1, 0], dtype=bool)
    b = np.array([0, 0, 0, 0, 0, 1, 1, 0], dtype=bool)
    gain = stats.paired_gain(a, b)
    assert (gain.n_better, gain.n_worse) == (5, 1)
    assert gain.difference == 0.5
    assert gain.p_value == pytest.approx(reference.binomtest(5, 6, 0.5).pvalue)
    assert gain.ci95[0] < 0.5 < gain.ci95[1]
    mirrored = stats.paired_gain(b, a)
    assert mirrored.difference == -0.5
    assert mirrored.ci95 == pytest.approx((-gain.ci95[1], -gain.ci95[0]))


def test_paired_gain_of_all_ties_is_nothing_with_an_honest_interval() -> None:
    gain = stats.paired_gain(np.ones(50, bool), np.ones(50, bool))
    assert gain.difference == 0.0
    assert gain.p_value == 1.0
    assert -0.1 < gain.ci95[0] < 0 < gain.ci95[1] < 0.1


def test_paired_gain_refuses_unpaired_samples() -> None:
    with pytest.raises(ValueError, match="one length"):
        stats.paired_gain([True], [True, False])


@pytest.mark.parametrize("n", [20, 100])
@pytest.mark.parametrize("shares", [(0.1, 0.05), (0.2, 0.2), (0.02, 0.3)])
def test_paired_interval_covers_and_test_holds_its_level(
    n: int, shares: tuple[float, float]
) -> None:
    better, worse = shares
    draws = rng(2).choice(3, size=(3000, n), p=[better, worse, 1 - better - worse])
    gains = [stats.paired_gain(draw == 0, draw == 1) for draw in draws]
    truth = better - worse
    covered = np.mean([g.ci95[0] <= truth <= g.ci95[1] for g in gains])
    assert covered >= 0.94
    if better == worse:
        assert np.mean([g.p_value <= 0.05 for g in gains]) <= 0.05


def test_paired_t_is_students() -> None:
    values = rng(3).normal(0.3, 1, 25)
    estimate = stats.paired_t(values)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.se == pytest.approx(reference.sem(values))
    bound = reference.ttest_1samp(values, 0, alternative="greater").confidence_interval(0.95).low
    assert estimate.lower == pytest.approx(bound)


def test_paired_t_of_degenerate_samples() -> None:
    assert stats.paired_t([0.5]) == (0.5, float("inf"), float("-inf"))
    assert stats.paired_t([0.5, 0.5]) == (0.5, 0.0, 0.5)
    with pytest.raises(ValueError, match="at least one"):
        stats.paired_t([])


def test_estimates_are_pooled_by_their_precision() -> None:
    assert stats.pooled([(1.0, 0.5)]) == (1.0, pytest.approx(0.5))
    mean, se = stats.pooled([(1.0, 0.5), (4.0, 1.0)])
    assert (mean, se) == (pytest.approx(1.6), pytest.approx(0.2**0.5))
    assert stats.pooled([(1.0, 0.5), (9.0, float("inf"))]) == (1.0, pytest.approx(0.5))
    assert stats.pooled([(9.0, float("inf"))]) == (0.0, float("inf"))
    assert stats.pooled([(0.0, 0.0), (5.0, 1.0)])[0] == pytest.approx(0.0)


def test_permutation_test_is_exact_for_small_samples() -> None:
    values = rng(4).normal(0.5, 1, 10)
    expected = reference.permutation_test(
        (values,), np.sum, permutation_type="samples", n_resamples=2**11
    )
    assert stats.permutation_test(values, rng()) == pytest.approx(expected.pvalue)
    assert stats.permutation_test(np.zeros(5), rng()) == 1.0


def test_permutation_test_by_sampling_agrees_and_holds_its_level() -> None:
    values = rng(5).normal(0.4, 1, 30)
    sampled = stats.permutation_test(values, rng(), resamples=20_000)
    assert sampled == pytest.approx(reference.ttest_1samp(values, 0).pvalue, abs=0.02)
    null = rng(6).normal(size=(400, 20))
    p = [stats.permutation_test(sample, rng(i), resamples=500) for i, sample in enumerate(null)]
    assert np.mean(np.asarray(p) <= 0.05) <= 0.08


# --- many comparisons


def test_holm_by_hand_and_in_any_order() -> None:
    np.testing.assert_allclose(stats.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert stats.holm([]).size == 0
    assert stats.holm([0.7, 0.9]).max() == 1.0


def test_holm_keeps_the_family_wise_error() -> None:
    p = rng(7).uniform(size=(4000, 8))
    p[:, :2] *= 1e-4  # two real effects
    false_alarm = [bool((stats.holm(row)[2:] <= 0.05).any()) for row in p]
    assert np.mean(false_alarm) <= 0.06


def test_shrinkage_beats_raw_means_and_removes_the_winners_curse() -> None:
    generator = rng(8)
    truth = generator.normal(0.6, 0.05, size=(300, 40))
    observed = truth + generator.normal(0, 0.1, size=truth.shape)
    ses = np.full(40, 0.1)
    shrunk = np.stack([stats.shrink(row, ses) for row in observed])
    assert ((shrunk - truth) ** 2).mean() < 0.4 * ((observed - truth) ** 2).mean()
    winner = shrunk.argmax(axis=1)
    rows = np.arange(300)
    optimism = (shrunk[rows, winner] - truth[rows, winner]).mean()
    naive = (observed[rows, winner] - truth[rows, winner]).mean()
    assert abs(optimism) < 0.015 < 0.15 < naive


def test_posterior_spread_is_calibrated() -> None:
    generator = rng(9)
    truth = generator.normal(0, 1, size=(50, 300))
    observed = truth + generator.normal(0, 0.7, size=truth.shape)
    fits = [stats.posterior(row, np.full(300, 0.7)) for row in observed]
    scaled = np.stack([(t - m) / s for t, (m, s) in zip(truth, fits, strict=True)])
    assert scaled.std() == pytest.approx(1.0, abs=0.05)


def test_shrinkage_of_degenerate_pools() -> None:
    np.testing.assert_allclose(stats.shrink([0.7], [0.1]), [0.7])
    np.testing.assert_allclose(stats.shrink([0.5, 0.5], [0.0, 0.0]), [0.5, 0.5])
    np.testing.assert_allclose(stats.shrink([0.4, 0.6], [0.0, 0.0]), [0.4, 0.6])
    np.testing.assert_allclose(stats.shrink([0.4, 0.6], [5.0, 5.0]), [0.5, 0.5])
    np.testing.assert_allclose(stats.shrink([0.4, 0.6], [np.inf, np.inf]), [0.5, 0.5])
    means, ses = stats.posterior([0.0, 1.0, 5.0], [0.1, 0.1, np.inf])
    assert means[2] == pytest.approx(2.0)
    assert ses[2] > 1.0
    assert stats.shrink([], []).size == 0


# --- means


def test_mean_interval_is_students_and_covers() -> None:
    values = rng(11).normal(0.7, 0.05, size=(4000, 3))
    expected = reference.t.interval(0.95, 2, values[0].mean(), reference.sem(values[0]))
    assert stats.mean_interval(values[0])[1:] == pytest.approx(expected)
    covered = [low <= 0.7 <= high for _, low, high in map(stats.mean_interval, values)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    assert np.isnan(stats.mean_interval([0.3])[1:]).all()


def test_importing_stats_loads_neither_torch_nor_scipy() -> None:
    check = "import sys, llmopt.stats; print('torch' in sys.modules, 'scipy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert answer.stdout.split() == ["False", "False"]
