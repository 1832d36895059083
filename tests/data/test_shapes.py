from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from llmopt.data.contact_sheet import contact_sheet
from llmopt.data.shapes import (
    COLOURS,
    IMAGE_SIZE,
    IMAGES_PER_CLASS,
    PATTERNS,
    SHAPES,
    SIDES,
    SIZES,
    TASKS,
    TEST_IMAGES,
    ShapesDataset,
    planted_template,
    pool_image,
)
from llmopt.errors import DatasetError

SPLITS = ("train", "val", "test")
ATTRIBUTES = ("shape", "colour", "size", "side", "pattern")


def test_ten_tasks_over_twelve_shapes_and_eight_colours() -> None:
    assert [task.removeprefix("shapes-") for task in TASKS] == [
        "small", "large", "left", "right", "red", "green", "blue", "yellow", "striped", "solid",
    ]  # fmt: skip
    assert len(set(SHAPES)) == 12
    assert len(set(COLOURS)) == 8


def test_the_same_pixels_everywhere() -> None:
    image = ShapesDataset("shapes-small").split("test")[0][17]
    assert image.name == "shapes-small/test/00017"
    pixels = image.load().tobytes()
    assert hashlib.sha256(pixels).hexdigest() == (
        "371322fd8f4591ead4ea5385bb57a15306dc783e4b1cfdf991319805f4a51a69"
    )
    assert image.key() == "d80b3e6c2a2c4da8ed61454b7dd7a7dcb63f62ed1fa8aee74a533646d329e9d0"
    assert image.load().tobytes() == pixels


@pytest.mark.parametrize("task", TASKS)
def test_exactly_one_object_fits_and_its_shape_is_the_label(task: str) -> None:
    dataset = ShapesDataset(task)
    for split in SPLITS:
        images, labels = dataset.split(split)
        for image, label in zip(images, labels.tolist(), strict=True):
            fitting = [thing for thing in image.scene if thing.has(dataset.concept)]
            assert [thing.shape for thing in fitting] == [dataset.classnames[label]]
            one, other = image.scene
            assert all(getattr(one, name) != getattr(other, name) for name in ATTRIBUTES)


@pytest.mark.parametrize("task", TASKS)
def test_classes_are_balanced(task: str) -> None:
    dataset = ShapesDataset(task)
    for split, per_class in IMAGES_PER_CLASS.items():
        labels = dataset.split(split)[1]
        assert labels.dtype == np.int64
        assert np.bincount(labels).tolist() == [per_class] * len(SHAPES)
    counts = np.bincount(dataset.split("test")[1])
    assert counts.sum() == TEST_IMAGES
    assert counts.max() - counts.min() <= 1


def test_no_image_is_in_two_places() -> None:
    images = [image for task in TASKS for split in SPLITS for image in _images(task, split)]
    images += [pool_image(index) for index in range(1000)]
    assert len({image.seed for image in images}) == len(images)
    assert len({image.key() for image in images}) == len(images)
    some = [image.load().tobytes() for image in images[::50]]
    assert len(set(some)) == len(some)


def _images(task: str, split: str) -> list:
    return ShapesDataset(task).split(split)[0]


def test_the_other_object_gives_nothing_away() -> None:
    """Attributes that a task doesn't fix are the label object's about half of the time."""
    images, _ = ShapesDataset("shapes-red").split("test")
    red = [next(thing for thing in image.scene if thing.has("red")) for image in images]
    for words in (SIZES, SIDES, PATTERNS):
        assert 0.44 < np.mean([thing.has(words[0]) for thing in red]) < 0.56


def test_pictures_are_small_and_coloured_as_described() -> None:
    image = pool_image(0)
    picture = image.load()
    assert (picture.mode, picture.size) == ("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    for index in range(200):
        image = pool_image(index)
        pixels = np.asarray(image.load(), dtype=np.float64)
        for thing in image.scene:
            if thing.colour == "red" and thing.pattern == "solid" and thing.size == "large":
                half = slice(0, 24) if thing.side == "left" else slice(24, 48)
                redness = pixels[:, half, 0] - pixels[:, half, 1:].mean(axis=2)
                assert (redness > 100).mean() > 0.08


def test_the_split_digest_tells_tasks_apart_and_stays() -> None:
    digests = {task: ShapesDataset(task).split_sha256() for task in TASKS[:3]}
    assert len(set(digests.values())) == 3
    assert ShapesDataset(TASKS[0]).split_sha256() == digests[TASKS[0]]


def test_planted_templates_name_the_concept() -> None:
    for task in TASKS:
        template = planted_template(task)
        assert template.count("{}") == 1
        assert task.removeprefix("shapes-") in template.split() + template.rstrip(".").split()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DatasetError, match="shapes-pink"):
        ShapesDataset("shapes-pink")
    with pytest.raises(DatasetError, match="holdout"):
        ShapesDataset("shapes-small").split("holdout")


def test_contact_sheet_holds_every_image() -> None:
    images = [pool_image(index).load() for index in range(5)]
    images.append(Image.new("RGB", (400, 300), "white"))
    labels = [*"abcde", "a label that is far too long for its cell"]
    sheet = contact_sheet(images, labels, columns=4, cell=96, title="six pictures")
    assert sheet.width > 4 * 96
    assert sheet.height > 2 * 96
    enlarged = images[0].resize((96, 96), Image.Resampling.NEAREST).tobytes()
    assert sheet.crop((8, 36, 104, 132)).tobytes() == enlarged
    with pytest.raises(ValueError, match="1 images but 2 labels"):
        contact_sheet(images[:1], ["a", "b"])
    with pytest.raises(ValueError, match="no images"):
        contact_sheet([], [])
