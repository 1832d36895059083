"""The recipe in an exported classifier is the classifier: run as it stands, it gives its scores."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from paper_runs import paper_run
from readers import read_matrix

from llmopt.data.shapes import SHAPES, ShapesDataset
from llmopt.export.formats import export, save
from llmopt.export.recipe import recipe
from llmopt.heads import HEADS
from llmopt.heads.adapter import Adapter, AdapterSettings
from llmopt.heads.bank import Bank, Features
from llmopt.heads.base import Head
from llmopt.heads.fitted import FittedHead
from llmopt.heads.predictor import Bridge, HeadedPredictor
from llmopt.predictor import Predictor, single
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.spend.ledger import Ledger
from llmopt.task import FloatArray, Labelled
from llmopt.template import Template
from llmopt.testing.heads import world
from llmopt.vision.metered import MeteredBox
from llmopt.vision.openclip import OpenClipBlackBox

NAMES = ("cat", "dog", "owl", "fox")


def names(tree: Any) -> Any:
    """Of a JSON tree, with dots."""
    return json.loads(json.dumps(tree), object_hook=lambda found: SimpleNamespace(**found))


def followed(text: str, tensors: dict[str, Any], rest: Any, x: FloatArray, **more: Any) -> Any:
    """(K,) scores of one image by a recipe."""
    known: dict[str, Any] = {"exp": np.exp, "maximum": np.maximum, "norm": np.linalg.norm}
    known |= {"x": x, "predictor": names(rest), **more}
    for name, array in tensors.items():
        *folders, last = name.split(".")
        if not folders:
            known[last] = array
            continue
        place = known.setdefault(folders[0], SimpleNamespace())
        for folder in folders[1:]:
            vars(place).setdefault(folder, SimpleNamespace())
            place = getattr(place, folder)
        setattr(place, last, array)
    exec(text, known)  # noqa: S102 - as a user would
    return known["s"]


def fitted(head: Head[Any], seed: int = 0) -> FittedHead:
    """On a small world, with a strength and a temperature of its own."""
    shots, _ = world(seed=seed)
    found = [candidate for candidate, _ in head.held_out(shots, 1)]
    return FittedHead(head.name, head.fit(shots, found[-1], 1), found[-1], 0.7, 1.6)


@pytest.mark.parametrize("name", [*HEADS, "adapter released"])
def test_every_heads_recipe_gives_its_scores(name: str) -> None:
    head = HEADS.get(name)() if name in HEADS else Adapter(AdapterSettings(start="released"))
    shots, test = world()
    predictor = HeadedPredictor(single(Template("a {}."), NAMES), fitted(head))
    tensors, rest = predictor.state()
    told = recipe(rest)
    for tensor in tensors:
        assert tensor in told
    assert test.features is not None
    assert shots.text is not None
    arrays = {**tensors, "text_matrix": shots.text}
    scale = {"logit_scale": test.scale, "logit_bias": 0.0}
    expected = predictor.fitted.scores(test.plain, test.plain_features)
    for x, scores in zip(test.features[:, 0], expected, strict=True):
        np.testing.assert_allclose(followed(told, arrays, rest, x, **scale), scores, atol=1e-4)


def test_a_bank_and_a_head_below_are_told_too() -> None:
    shots, test = world()
    features = Features.fit(shots.base.reshape(-1, 4), len(shots), 4)
    bridge = Bridge(Bank((), (), NAMES), features)
    _, _, width = shots.embedded()[0].shape
    gda = fitted(HEADS.get("gda")())
    seen = features(test.plain)
    weights = np.ones((4, seen.shape[1]), dtype=np.float32)
    gda.tensors.update(weights=weights)
    predictor = HeadedPredictor(single(Template("a {}."), NAMES), gda, bridge)
    tensors, rest = predictor.state()
    told = recipe(rest)
    assert all(tensor in told for tensor in tensors)
    assert "predictor.bank.phrases" in told
    arrays = {**tensors, "text_matrix": np.zeros((4, width)), "r": test.plain[0]}
    s = followed(told, arrays, rest, np.zeros(width), logit_scale=1.0, logit_bias=0.0)
    np.testing.assert_allclose(s, gda.scores(np.zeros((1, 4)), seen[:1])[0], atol=1e-4)

    below = fitted(HEADS.get("bias")())
    both = HeadedPredictor(HeadedPredictor(single(Template("a {}."), NAMES), below), below)
    tensors, rest = both.state()
    told = recipe(rest)
    assert all(tensor in told for tensor in tensors)
    arrays = {**tensors, "text_matrix": shots.text}
    x = test.embedded()[0][0, 0]
    s = followed(told, arrays, rest, x, logit_scale=test.scale, logit_bias=0.0)
    expected = below.scores(below.scores(test.plain[:1]))[0]
    np.testing.assert_allclose(s, expected, atol=1e-4)


def test_without_a_head_nothing_is_added() -> None:
    for predictor in (single(Template("a {}."), NAMES), SoftPredictor(np.zeros((2, 3)), NAMES)):
        told = recipe(predictor.state()[1])
        assert "h =" not in told
        assert all(name in told for name in predictor.state()[0])


@pytest.mark.parametrize("name", ["bias", "ridge", "gda", "residual"])
def test_the_recipe_in_the_file_is_the_classifier(name: str, tmp_path: Path) -> None:
    box = OpenClipBlackBox(device="cpu")
    found, labels = ShapesDataset("shapes-small").split("test")
    images = Labelled(tuple(found[:24]), labels[:24])
    shots, _ = world(len(SHAPES), width=box.image_features(images.images).shape[1])
    head = HEADS.get(name)()
    config, _ = next(iter(head.held_out(shots, 1)))
    correction = FittedHead(name, head.fit(shots, config, 1), config, 0.7, 1.6)
    predictor: Predictor = HeadedPredictor(single(Template("a small {}."), SHAPES), correction)
    run = paper_run(tmp_path / "runs", predictor=predictor, classnames=SHAPES)
    save(export(run, "safetensors"), tmp_path / "c.safetensors")
    tensors, metadata = read_matrix(tmp_path / "c.safetensors")
    ours = predictor.scores(MeteredBox(box, Ledger()), images)
    for x, scores in zip(box.image_features(images.images), ours, strict=True):
        theirs = followed(metadata["recipe"], tensors, metadata["predictor"], x,
                          logit_scale=metadata["logit_scale"],
                          logit_bias=metadata["logit_bias"])  # fmt: skip
        np.testing.assert_allclose(theirs, scores, atol=2e-3)
