"""A black box made of a function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

from llmopt.errors import ConfigError, ModelError, TemplateError
from llmopt.template import Template
from llmopt.testing.world import pictures
from llmopt.vision import Access, FunctionBox

IMAGES = pictures("test", 2).images
PROMPTS = ["a dark ring.", "a light ring."]


def test_it_is_shown_decoded_images_a_batch_at_a_time() -> None:
    seen: list[Any] = []

    def score(images: list[PillowImage.Image], prompts: list[str]) -> list[list[float]]:
        seen.append((len(images), {(type(i), i.mode) for i in images}, prompts))
        return [[1.0, float(np.asarray(image).mean())] for image in images]

    box = FunctionBox("a function", score, batch_size=4, version="2")
    scores = box.scores(IMAGES, PROMPTS)
    assert scores.dtype == np.float32
    assert scores[:, 1].tolist() == pytest.approx([np.asarray(i.load()).mean() for i in IMAGES])
    assert [count for count, _, _ in seen] == [4, 4, 2]
    assert seen[0][1:] == ({(PillowImage.Image, "RGB")}, PROMPTS)
    assert box.labels(IMAGES, PROMPTS).tolist() == [1] * 10
    assert box.scores([], PROMPTS).shape == (0, 2)
    assert (box.info.name, box.info.pretrained, box.info.access) == ("a function", "2", 1)
    other = FunctionBox("a function", score, version="3")
    assert other.info.weights_sha256 != box.info.weights_sha256


def test_labels_only() -> None:
    box = FunctionBox("a function", lambda images, prompts: [1] * len(images), access="labels")
    assert box.info.access is Access.LABELS
    assert box.labels(IMAGES, PROMPTS).tolist() == [1] * 10


def test_answers_in_words() -> None:
    """Other words than the prompts too; who wants a place gets that of the first prompt named."""

    def speak(images: list[Any], prompts: list[str]) -> list[Any]:
        return [["a horse", prompts[1].upper()] for _ in images]

    box = FunctionBox("a function", speak, access="labels", batch_size=3)
    assert box.answers(IMAGES, PROMPTS) == [["a horse", PROMPTS[1].upper()]] * 10
    assert box.labels(IMAGES, PROMPTS).tolist() == [1] * 10
    lost = FunctionBox("a function", lambda images, prompts: ["?"] * len(images), access="labels")
    with pytest.raises(ModelError, match="must name one of the prompts for image 1, not '\\?'"):
        lost.labels(IMAGES, PROMPTS)
    assert (
        FunctionBox("f", lambda images, prompts: np.ones((10, 2))).answers(IMAGES, PROMPTS)[0] == 0
    )


@pytest.mark.parametrize(
    ("access", "answer", "says"),
    [
        ("scores", [0.0, 1.0], r"must give an array of shape \(10, 2\), not \(2,\)"),
        ("scores", [[0.0] * 10] * 2, r"must give an array of shape \(10, 2\), not \(2, 10\)"),
        ("scores", [[0.0, np.nan]] * 10, "gave a number that is not finite"),
        ("labels", [2] * 10, "must give labels that are places among the 2 prompts, from 0 on"),
        ("labels", [-1] * 10, "places among the 2 prompts"),
        ("labels", [0.5] * 10, "places among the 2 prompts"),
        ("labels", [[0, 1]] * 10, r"must give an array of shape \(10,\), not \(10, 2\)"),
    ],
)
def test_a_wrong_answer_is_refused(access: Any, answer: Any, says: str) -> None:
    box = FunctionBox("a function", lambda images, prompts: answer, access=access)
    with pytest.raises(ModelError, match=says) as raised:
        box.labels(IMAGES, PROMPTS)
    assert "'a function'" in str(raised.value)


def test_a_limit_on_tokens_where_one_is_known() -> None:
    def excess(prompt: str) -> int:
        return len(prompt.split()) - 8

    long = Template("a very very very very very very good {}.")
    FunctionBox("a function", lambda images, prompts: [[]]).check(long, ["ring"])
    with pytest.raises(TemplateError, match="1 tokens too long for a function"):
        FunctionBox("a function", lambda i, p: [[]], token_excess=excess).check(long, ["ring"])


def test_more_than_labels_and_scores_takes_a_class() -> None:
    with pytest.raises(ConfigError, match="'scores' or 'labels', not 'features'; derive from"):
        FunctionBox("a function", lambda i, p: [[]], access="features")  # type: ignore[arg-type]
