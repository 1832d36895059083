"""A task of one's own images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from llmopt.errors import ConfigError, DatasetError, LlmoptError
from llmopt.task import Task

RED = np.full((4, 4, 3), (255, 0, 0), dtype=np.uint8)
GREEN = np.full((4, 4, 3), (0, 255, 0), dtype=np.uint8)


def test_arrays_pictures_and_paths(tmp_path: Path) -> None:
    PillowImage.fromarray(GREEN).save(tmp_path / "green.png")
    task = Task.from_images(
        [RED, PillowImage.fromarray(RED), str(tmp_path / "green.png")],
        ["red", 0, "green"],
        ["red", "green"],
        val=([GREEN], [1]),
        test=([RED, GREEN], np.array([0, 1])),
        template="a {} square.",
        name="colours",
    )
    assert task.train.labels.tolist() == [0, 0, 1]
    assert task.val.labels.tolist() == [1]
    assert task.test is not None
    assert task.test.labels.tolist() == [0, 1]
    assert (task.shots, task.dataset, task.start.text) == (2, "colours", "a {} square.")
    loaded = [np.asarray(image.load()) for image in task.train.images]
    for pixels, wanted in zip(loaded, (RED, RED, GREEN), strict=True):
        np.testing.assert_array_equal(pixels, wanted)


def test_the_split_is_known_by_its_pixels_and_labels() -> None:
    one = Task.from_images([RED, GREEN], [0, 1], ["red", "green"])
    same = Task.from_images([RED.copy(), GREEN], ["red", "green"], ["red", "green"])
    other = Task.from_images([RED, GREEN], [1, 0], ["red", "green"])
    assert one.split_sha256 == same.split_sha256 != other.split_sha256
    assert one.test is None


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        ([], [], DatasetError, "no images to train on"),
        ([RED], [], DatasetError, "1 images, but 0 labels"),
        ([RED], ["redd"], DatasetError, "did you mean 'red'"),
        ([RED], [2], DatasetError, "not from 0 to 1"),
        ([RED], [-1], DatasetError, "not from 0 to 1"),
        ([RED], [0.5], DatasetError, "not from 0 to 1"),
        ([RED.astype(float)], [0], ConfigError, "uint8"),
        ([None], [0], ConfigError, "not NoneType"),
    ],
)
def test_what_is_wrong_is_named(
    images: list[object], labels: list[object], error: type[LlmoptError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Task.from_images(images, labels, ["red", "green"])
