from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmopt.errors import ConfigError
from llmopt.heads import HEADS
from llmopt.heads.base import OCTAVES, Config, Prior, Shots, folds, temperature
from llmopt.heads.bias import Bias
from llmopt.heads.fitted import FittedHead
from llmopt.heads.gda import GDA
from llmopt.heads.none import NONE, NoHead
from llmopt.heads.ridge import Ridge
from llmopt.heads.select import best, judged, make, select
from llmopt.heads.tip import Tip
from llmopt.stats import accuracy, log_likelihoods
from llmopt.task import FloatArray
from llmopt.testing.heads import unit, world

CLOSED = ("bias", "tip", "gda", "ridge")

ANY_CONFIG = {
    "temperature": 2.0, "steps": 2, "beta": 3.0, "penalty": 0.1, "rho": 1.0, "share": 0.1,
    "alpha": 1.0,
}  # fmt: skip


# --- the list of heads


def test_every_head_is_listed_under_its_own_name() -> None:
    for name in HEADS:
        assert HEADS.get(name).name == name
        assert HEADS.get(name)().settings is not None


def test_an_unknown_head_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="unknown head 'gdaa'; did you mean 'gda'") as error:
        HEADS.get("gdaa")
    assert "residual" in str(error.value)


def test_listing_heads_loads_neither_torch_nor_numpy() -> None:
    check = "import sys, llmopt.heads; print('torch' in sys.modules, 'numpy' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert answer.stdout.split() == ["False", "False"]


def test_closed_forms_and_loading_need_no_torch() -> None:
    modules = "select, bias, tip, gda, ridge, none"
    check = f"import sys; from llmopt.heads import {modules}; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert answer.stdout.strip() == "False"


# --- shots


def test_folds_are_even_and_spread_each_class() -> None:
    labels = np.repeat(np.arange(6), 10)
    fold = folds(labels, 5, seed=1)
    assert np.bincount(fold).tolist() == [12] * 5
    for label in range(6):
        assert np.bincount(fold[labels == label], minlength=5).tolist() == [2] * 5
    assert np.bincount(folds(np.arange(7), 5, 0)).tolist() == [2, 2, 1, 1, 1]
    assert not np.array_equal(fold, folds(labels, 5, seed=2))


def test_shots_that_do_not_fit_together_are_refused() -> None:
    few, _ = world()
    with pytest.raises(ValueError, match="labels"):
        replace(few, labels=few.labels[1:])
    with pytest.raises(ValueError, match="features"):
        replace(few, base=few.base[:, :1])


def test_shots_without_features_say_so() -> None:
    few, _ = world()
    with pytest.raises(ValueError, match="features"):
        GDA().fit(replace(few, features=None), ANY_CONFIG, 0)


def test_the_fitted_temperature_is_the_likeliest() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)).astype(np.float32)
    drawn = logits + rng.gumbel(size=logits.shape)
    assert temperature(4 * logits, drawn.argmax(axis=1)) == 4.0


# --- choosing


def test_a_head_that_helps_is_found_and_helps_on_new_images() -> None:
    few, test = world(classes=6, shots=8, width=24, noise=1.0, text_noise=1.5, test=50)
    selection = select(make(CLOSED), few, seed=0)
    assert not selection.fallback
    assert selection.head.name in CLOSED
    scores = selection.head.scores(test.plain, test.plain_features)
    assert accuracy(scores, test.labels) > accuracy(test.plain, test.labels) + 0.03
    assert "points" in selection.reason
    chosen = selection.evidence[selection.head.name]
    assert chosen.gain > chosen.se > 0
    told = json.loads(json.dumps(selection.summary(), allow_nan=False))
    assert told["chosen"] == selection.head.name
    assert set(told["heads"]) == set(CLOSED)
    assert chosen.likelihoods.shape == (len(few),)


def test_labels_that_mean_nothing_are_left_alone() -> None:
    taken = 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(4), 32)
        features = unit(rng.normal(size=(128, 2, 30)))
        text = unit(rng.normal(size=(4, 30)))
        shots = Shots(10 * features @ text.T, labels, features, text, 10.0)
        taken += not select(make(CLOSED), shots, seed).fallback
    assert taken <= 2


def test_perfect_scores_are_left_alone() -> None:
    few, _ = world(views=1)
    perfect = replace(few, base=np.float32(40) * np.eye(4, dtype=np.float32)[few.labels][:, None])
    selection = select(make(CLOSED), perfect, seed=0)
    assert selection.fallback
    assert selection.head is NONE
    assert "no head" in selection.reason
    np.testing.assert_array_equal(selection.head.scores(few.plain), few.plain)


def test_a_change_of_confidence_is_no_gain() -> None:
    """Every image is right and sure: nothing that the images could speak for is worth a head."""
    few, test = world(shots=8, views=1)

    def told(shots: Shots) -> Shots:
        right = np.eye(4, dtype=np.float32)[shots.labels][:, None]
        return replace(shots, base=np.float32(20) * right + shots.base)

    chosen = select(make(CLOSED), told(few), 0, told(test))
    gains = {name: (e.gain, e.se) for name, e in chosen.evidence.items()}
    assert any(gain > se for gain, se in gains.values()), gains
    assert chosen.fallback


def test_at_one_shot_a_head_is_what_is_usual_for_it() -> None:
    few, test = world(classes=6, shots=1, width=24, noise=0.5, text_noise=3.0)
    alone = select(make(CLOSED), few, seed=0)
    assert alone.head.name == "gda"
    assert alone.reason.endswith("as is usual; no image left out can judge it")
    assert alone.evidence["gda"].measured is None
    assert set(alone.evidence) == {"tip", "gda", "ridge"}, "the others need an image to judge them"
    assert json.loads(json.dumps(alone.summary(), allow_nan=False))["heads"]["gda"]["images"] == 0
    scores = alone.head.scores(test.plain, test.plain_features)
    assert accuracy(scores, test.labels) > accuracy(test.plain, test.labels) + 0.03
    again = select([GDA()], few, seed=1)
    assert again.head.alpha == alone.head.alpha
    unjudged = select(make(("bias",)), few, seed=0)
    assert unjudged.fallback
    assert "one image a class" in unjudged.reason


def test_at_one_shot_a_head_is_mild() -> None:
    """Sure scores stay right, whatever the one image of a class shows."""
    for seed in range(5):
        few, test = world(classes=6, shots=1, views=1, width=24, noise=2.0, seed=seed)
        sure = [
            replace(some, base=np.float32(30) * np.eye(6, dtype=np.float32)[some.labels][:, None])
            for some in (few, test)
        ]
        for name in ("tip", "gda", "ridge"):
            selection = select(make((name,)), sure[0], seed=0)
            scores = selection.head.scores(sure[1].plain, sure[1].plain_features)
            assert accuracy(scores, test.labels) > 0.99


def test_validation_images_speak_for_a_head_and_against_it() -> None:
    few, test = world(classes=6, shots=1, width=24, noise=0.5, text_noise=3.0)
    every_fifth = np.arange(len(test)) % 5 == 0
    val, rest = test.of(every_fifth), test.of(~every_fifth)
    assert judged(few, val).tolist() == list(range(6, 6 + len(val)))
    selection = select(make(CLOSED), few, 0, val)
    assert not selection.fallback
    assert "24 images left out" in selection.reason
    scores = selection.head.scores(rest.plain, rest.plain_features)
    assert accuracy(scores, rest.labels) > accuracy(rest.plain, rest.labels)
    wrong = replace(few, labels=np.roll(few.labels, 1))
    against = select([GDA()], wrong, 0, val)
    assert against.fallback
    assert against.reason.startswith("no head: the best of 1, gda, -")
    assert "; with what is usual" in against.reason


def test_an_image_alone_in_its_class_is_not_judged() -> None:
    few, _ = world(shots=2)
    uneven = few.of(np.array([0, 1, 2, 4, 5]))
    assert judged(uneven).tolist() == [0, 1, 3, 4]
    assert len(best(Bias(), uneven, 0).likelihoods) == 4


def test_nor_one_of_two_by_a_head_with_a_prior() -> None:
    few, _ = world(shots=3)
    uneven = few.of(np.array([0, 1, 2, 3, 4, 6]))
    assert judged(uneven, prior=GDA.prior).tolist() == [0, 1, 2]
    assert len(best(GDA(), uneven, 0).likelihoods) == 3


def test_the_usual_strength_grows_with_the_shots() -> None:
    prior = Prior(octaves=-1.0, growth=1.0)
    usual = [prior.strengths(n)[OCTAVES == 0].item() for n in (1, 2, 4, 16)]
    assert usual == [0.5, 1, 2, 8]
    made = [prior.strengths(n, made=True)[OCTAVES == 0].item() for n in (1, 16)]
    assert np.log2(made) == pytest.approx([-1 - 3.3, 3 - 3.3 / 16])
    few, _ = world(classes=4, shots=1)
    flat = replace(few, base=np.zeros_like(few.base))
    for head in (Tip(), GDA(), Ridge()):
        _, correction = next(iter(head.held_out(flat, 0)))
        assert head.unit(2 * correction, 3.0) <= head.unit(correction, 3.0)
        assert head.unit(0 * correction, 3.0) == 3.0


def test_nothing_is_usual_for_a_head_without_a_prior() -> None:
    for noise, seed in ((0.5, 0), (1.0, 2), (2.0, 4)):
        few, _ = world(shots=4, noise=noise, seed=seed)
        selection = select([Bias()], few, seed)
        evidence = selection.evidence["bias"]
        assert evidence.measured == (evidence.gain, evidence.se)
        assert "usual" not in selection.reason


def test_no_heads_fall_back() -> None:
    few, _ = world()
    assert select([], few, seed=0).reason == "no head was asked for"


def test_one_confident_mistake_does_not_decide() -> None:
    few, _ = world(classes=4, shots=6)
    truth = np.eye(4, dtype=np.float32)[few.labels][:, None]
    unsure = replace(few, base=np.broadcast_to(truth, few.base.shape).copy())
    mistaken = np.float32(5) * truth
    mistaken[0] = np.roll(mistaken[0], 1, axis=-1) * 1000

    class Oracle(NoHead):
        name = "bias"

        def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
            yield {}, mistaken[:, 0]

    found, nothing = best(Oracle(), unsure, 0), best(NoHead(), unsure, 0)
    assert found.likelihoods[0] > np.log(0.05 / 4) - 1e-6
    assert found.likelihoods.mean() > nothing.likelihoods.mean() - 0.2


def test_validation_images_add_evidence_and_are_not_fitted() -> None:
    few, test = world(shots=4)
    val = test.of(np.arange(0, len(test), 10))
    found = best(Ridge(), few, 0, val)
    assert len(found.likelihoods) == len(few) + len(val)
    selection = select([Ridge()], few, 0, val)
    if not selection.fallback:
        seen = few.seen(int(selection.head.config["views"]))
        expected = Ridge().fit(seen, selection.head.config, 0)
        np.testing.assert_array_equal(selection.head.tensors["weights"], expected["weights"])


def test_cross_fitted_likelihoods_are_those_of_the_best_point_or_below() -> None:
    few, _ = world(shots=4, noise=1.0)
    found = best(Tip(), few, 0)
    config, alpha, warmth = found.config, found.alpha, found.temperature
    seen = few.seen(int(config["views"]))
    correction = {c["beta"]: h for c, h in Tip().held_out(seen, 0)}[config["beta"]]
    likelihoods = log_likelihoods((few.plain + alpha * correction) / warmth, few.labels)
    at_best = np.log(0.95 * np.exp(likelihoods) + 0.05 / 4)
    assert found.likelihoods.mean() <= at_best.mean() + 1e-6
    nothing = best(NoHead(), few, 0)
    assert nothing.hits.mean() == accuracy(few.plain, few.labels)


def test_choosing_repeats() -> None:
    few, _ = world()
    first, second = (select(make(CLOSED), few, seed=4) for _ in range(2))
    assert first.reason == second.reason
    assert first.head.config == second.head.config


# --- keeping


def test_a_fitted_head_survives_a_file(tmp_path: Path) -> None:
    few, test = world()
    head = GDA()
    fitted = FittedHead("gda", head.fit(few, ANY_CONFIG, 0), ANY_CONFIG, 0.7, 1.5)
    tensors, rest = fitted.save()
    save_file(tensors, tmp_path / "head.safetensors")
    again = FittedHead.load(load_file(tmp_path / "head.safetensors"), json.loads(json.dumps(rest)))
    expected = fitted.scores(test.plain, test.plain_features)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(again.scores(test.plain, test.plain_features), expected)
    assert again.looks_at_features == head.looks_at_features


def test_what_is_saved_is_contiguous() -> None:
    fitted = FittedHead("gda", {"weights": np.ones((3, 4), np.float32).T}, {})
    assert all(array.flags.c_contiguous for array in fitted.save()[0].values())


def test_strength_zero_is_no_head() -> None:
    few, test = world()
    for name in CLOSED:
        head = HEADS.get(name)()
        fit = head.fit(few, ANY_CONFIG, 0)
        none = FittedHead(name, fit, {}, alpha=0.0)
        np.testing.assert_allclose(
            none.scores(test.plain, test.plain_features), test.plain, atol=1e-5
        )
