"""What every predictor can do, and what it says where it can't."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import pytest

from llmopt.errors import AccessError, ConfigError
from llmopt.heads.fitted import FittedHead
from llmopt.heads.predictor import HeadedPredictor
from llmopt.predictor import PREDICTORS, Arrays, Predictor, State, predictor_from_state, single
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.spend.ledger import Ledger
from llmopt.task import FloatArray, IntArray, Labelled
from llmopt.template import Template
from llmopt.testing.world import NAMES, FakeBox, make_task
from llmopt.vision.metered import MeteredBox

TEXT = single(Template("a {}."), NAMES)
BIAS = FittedHead("bias", {"bias": np.arange(len(NAMES), dtype=np.float32)}, {})
HEADED = HeadedPredictor(HeadedPredictor(TEXT, BIAS), BIAS)
SOFT = SoftPredictor(np.ones((2, 3), dtype=np.float32), NAMES)


class Coin(Predictor):
    """Nothing but what it must have."""

    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        return np.zeros((len(images), 2), dtype=np.float32)

    def describe(self) -> str:
        return "a coin"

    def state(self) -> State:
        return {}, {"kind": "coin"}

    @classmethod
    def from_state(cls, tensors: Arrays, config: Mapping[str, Any]) -> Self:
        return cls()


def columns(*found: int) -> Callable[[], IntArray]:
    return lambda: np.array(found)


@pytest.mark.parametrize("predictor", [TEXT, HEADED, SOFT])
def test_a_kind_is_found_by_its_name(predictor: Predictor) -> None:
    tensors, rest = predictor.state()
    assert PREDICTORS.get(predictor.kind) is type(predictor)
    again = predictor_from_state(tensors, json.loads(json.dumps(rest)))
    assert json.dumps(again.state()[1]) == json.dumps(rest)
    for name, array in again.state()[0].items():
        np.testing.assert_array_equal(array, tensors[name])


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown kind of predictor 'coin'"):
        predictor_from_state(*Coin().state())


def test_a_predictor_is_what_it_can_do() -> None:
    assert HEADED.innermost is TEXT
    assert HEADED.text is TEXT.text is TEXT
    assert (TEXT.portable, HEADED.portable, SOFT.portable) == (True, False, False)
    assert (TEXT.linear, HEADED.linear, SOFT.linear) == (True, False, True)
    coin = Coin()
    assert coin.innermost is coin
    assert coin.text is coin.head is coin.soft_prompt is None
    assert not coin.linear
    assert not coin.portable
    with pytest.raises(AccessError, match="the classes of a coin have no embeddings"):
        coin.text_matrix(MeteredBox(FakeBox(), Ledger()))


def test_text_takes_new_class_names() -> None:
    moved = TEXT.for_classes(["dog", "cat"], columns())
    assert moved == single(Template("a {}."), ["dog", "cat"])


def test_others_are_seen_through_the_classes_they_have_learned() -> None:
    box, images = MeteredBox(FakeBox(), Ledger()), make_task().train
    moved = HEADED.for_classes(["any", "other"], columns(2, 0))
    assert moved.describe() == HEADED.describe()
    np.testing.assert_array_equal(moved.scores(box, images), HEADED.scores(box, images)[:, [2, 0]])
    with pytest.raises(TypeError, match="is not saved"):
        moved.state()
