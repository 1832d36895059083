"""Leaving an image out in closed form is the same as fitting again without it and its views."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from llmopt.heads import HEADS
from llmopt.heads.base import Shots
from llmopt.heads.bias import Bias, BiasSettings
from llmopt.heads.gda import GDA, GDASettings
from llmopt.heads.pseudo import ClassMeans
from llmopt.heads.ridge import Ridge
from llmopt.heads.tip import Tip
from llmopt.testing.heads import refit, unit, world


def test_equal_to_brute_force_where_classes_are_of_unequal_size() -> None:
    few, _ = world(shots=4)
    uneven = few.of(np.array([0, 1, 2, 3, 4, 5, 8, 12, 13, 14]))
    for head in (Bias(), GDA(), Ridge(), Tip()):
        for config, left_out in head.held_out(uneven, seed=0):
            np.testing.assert_allclose(left_out, refit(head, uneven, config), atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in HEADS if HEADS.get(name).left_out == "exact"])
def test_a_copy_among_the_views_tells_nothing(name: str) -> None:
    """Labels that mean nothing are not predicted, although views are copies of their image."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 8)
    images = unit(rng.normal(size=(32, 1, 40)))
    features = np.repeat(images, 5, axis=1)
    text = unit(rng.normal(size=(4, 40)))
    shots = Shots(np.zeros((32, 5, 4), np.float32), labels, features, text, 1.0)
    for _, left_out in HEADS.get(name)().held_out(shots, seed=0):
        assert (left_out.argmax(axis=1) == labels).mean() < 0.5


def test_gda_with_its_covariance_kept_would_believe_in_random_labels() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 8)
    features, text = unit(rng.normal(size=(32, 1, 200))), unit(rng.normal(size=(4, 200)))
    shots = Shots(np.zeros((32, 1, 4), np.float32), labels, features, text, 1.0)
    x = features[:, 0].astype(np.float64)
    means = ClassMeans(x, labels, text.astype(np.float64), share=0.0)
    deviations = x - means.all()[labels]
    spread = (deviations**2).sum() / 31
    kept = np.linalg.inv(deviations.T @ deviations / 31 + spread / 31 * np.eye(200))
    hits = 0
    for i, label in enumerate(labels):
        mu = means.without(i)
        hits += (mu @ kept @ x[i] - np.diag(mu @ kept @ mu.T) / 2).argmax() == label
    assert hits == 32
    head = GDA(GDASettings(kappa=0.0, rhos=(1.0,)))
    _, left_out = next(iter(head.held_out(shots, 0)))
    assert (left_out.argmax(axis=1) == labels).mean() < 0.5


def test_gda_is_not_believed_to_be_better_than_it_is() -> None:
    """With the covariance kept, held-out accuracy would be far too good."""
    gaps = []
    for seed in range(4):
        few, test = world(
            classes=6, shots=4, views=4, width=60, seed=seed, noise=1.5, text_noise=2.0, test=60
        )
        gda = GDA()
        config, left_out = next(c for c in gda.held_out(few, seed) if c[0]["rho"] == 1)
        unseen = gda.correct(gda.fit(few, config, 0), test.plain, test.plain_features)
        believed = (left_out.argmax(axis=1) == few.labels).mean()
        gaps.append(believed - (unseen.argmax(axis=1) == test.labels).mean())
    assert -0.25 < np.mean(gaps) < 0.02


def test_gda_without_spread_is_the_nearest_mean() -> None:
    few, test = world(shots=1, views=1)
    gda = GDA(GDASettings(kappa=0.0))
    tensors = gda.fit(few, {"rho": 1.0, "share": 0.0}, 0)
    assert few.features is not None
    assert test.plain_features is not None
    means = few.features[:, 0]
    distances = ((test.plain_features[:, None] - means) ** 2).sum(axis=2)
    predicted = gda.correct(tensors, test.plain, test.plain_features).argmax(axis=1)
    np.testing.assert_array_equal(predicted, few.labels[distances.argmin(axis=1)])


def test_ridge_is_penalised_least_squares_on_the_residuals() -> None:
    few, _ = world(shots=2)
    config, _ = next(iter(Ridge().held_out(few, 0)))
    tensors = Ridge().fit(few, config, 0)
    assert few.features is not None
    views, width = few.features.shape[1:]
    rows = np.concatenate([few.features, np.ones((len(few), views, 1))], axis=2)
    targets = np.eye(4)[few.labels][:, None] - softmax(few.base / config["temperature"], axis=-1)
    # A penalty is a row of data that says 0.
    design = np.vstack(
        [rows.reshape(-1, width + 1) / views**0.5, config["penalty"] ** 0.5 * np.eye(width + 1)]
    )
    wanted = np.vstack([targets.reshape(-1, 4) / views**0.5, np.zeros((width + 1, 4))])
    solution, *_ = np.linalg.lstsq(design, wanted, rcond=None)
    np.testing.assert_allclose(tensors["weights"], solution[:-1].T, atol=1e-5)
    np.testing.assert_allclose(tensors["bias"], solution[-1], atol=1e-5)


def test_bias_gives_classes_their_share() -> None:
    few, _ = world(shots=8)
    favoured = replace(few, base=few.base + np.array([6.0, 0, 0, 0], np.float32))
    head = Bias(BiasSettings(kappa=0.01))
    tensors = head.fit(favoured, {"temperature": 2.0}, 0)
    corrected = favoured.plain / 2 + head.correct(tensors, favoured.plain, None)
    before = (favoured.plain.argmax(axis=1) == 0).mean()
    after = (corrected.argmax(axis=1) == 0).mean()
    assert before > after + 0.05
    assert after == pytest.approx(0.25, abs=0.05)
