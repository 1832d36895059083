from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from llmopt.data.registry import about_dataset, dataset_names, open_dataset
from llmopt.data.shapes import ShapesImage
from llmopt.data.tasks import make_task
from llmopt.data.worlds import WORLDS, open_world

ATTRIBUTES = ("colour", "size", "side", "pattern")
opened = cache(open_world)
CLEAN = [name for name, world in WORLDS.items() if not world.noise]


@pytest.mark.parametrize("name", CLEAN)
def test_one_object_is_of_the_class_and_the_other_of_none(name: str) -> None:
    world, data = WORLDS[name], opened(name)
    words_of: dict[str, set[tuple[str, ...]]] = {}
    for shape, *words in world.classes:
        words_of.setdefault(shape, set()).add(tuple(words))
    for which in ("train", "val", "test"):
        shared = Counter[int]()
        for image, label in data.split(which):
            assert isinstance(image, ShapesImage)
            target, other = image.scene
            assert target.shape == world.classes[label][0]
            fitting = [
                thing
                for thing in image.scene
                for words in words_of[thing.shape]
                if all(map(thing.has, words))
            ]
            assert fitting == [target]
            words = world.classes[label][1:]
            assert all(map(target.has, words))
            same = [n for n in ATTRIBUTES if getattr(target, n) == getattr(other, n)]
            assert len(same) == world.shares
            shared.update(map(words.index, map(str, (getattr(target, n) for n in same))))
            assert not world.others or other.colour in world.others
            assert target.shape != other.shape
        assert len(shared) == 2 * world.shares


def test_labels_are_wrong_in_training_only_and_a_class_is_missing_from_the_test() -> None:
    data = opened("shapes-noise")
    for which, share in (("train", 0.1), ("val", 0.1), ("test", 0.0)):
        part = data.split(which)
        true = [data.classnames.index(image.scene[0].shape) for image in part.images]  # type: ignore[attr-defined]
        assert np.mean(np.array(true) != part.labels) == pytest.approx(share, abs=0.003)
    data = opened("shapes-gap")
    assert 11 in data.split("train").labels
    assert set(data.split("test").labels.tolist()) == set(range(11))


def test_they_are_data_sets_like_others_and_the_same_everywhere() -> None:
    digest = hashlib.sha256()
    for name in WORLDS:
        data = opened(name)
        assert name in dataset_names()
        assert about_dataset(name)
        for which in ("train", "val", "test"):
            for image, label in data.split(which):
                digest.update(f"{image.key()} {label}\n".encode())
    assert digest.hexdigest()[:16] == "4583000e8c5dd675"
    task = make_task(open_dataset("shapes-gap", Path()), 1, 1)
    assert len(task.train) == len(task.classnames)
