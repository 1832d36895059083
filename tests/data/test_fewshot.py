"""The samples of the papers, number for number."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt.data.fewshot import sample
from llmopt.errors import ConfigError
from llmopt.images import FileImage
from llmopt.task import FewShot, Labelled

# The EuroSAT split has its images class after class, so sizes are all that is needed to repeat
# the published samples.
EUROSAT_TRAIN = (1500, 1500, 1500, 1250, 1250, 1000, 1250, 1500, 1250, 1500)
EUROSAT_VAL = (600, 600, 600, 500, 500, 400, 500, 600, 500, 600)

ONE_SHOT = {
    1: (
        [275, 2665, 3129, 5022, 5991, 7507, 8920, 10217, 11527, 12429],
        [96, 1099, 1229, 2257, 2727, 2999, 3421, 3702, 4656, 5256],
    ),
    2: (
        [115, 1687, 3173, 5239, 6096, 7753, 8631, 9765, 11990, 12434],
        [36, 1195, 1362, 2020, 2626, 3001, 3611, 4221, 4786, 5180],
    ),
    3: (
        [487, 2713, 4114, 4767, 6507, 7937, 9236, 10220, 11939, 12134],
        [13, 1080, 1465, 2082, 2419, 2898, 3567, 4181, 4576, 5362],
    ),
}


def listed(labels: list[int]) -> Labelled:
    images = tuple(FileImage(None, str(i)) for i in range(len(labels)))  # type: ignore[arg-type]
    return Labelled(images, np.array(labels, dtype=np.int64))


def by_class(counts: tuple[int, ...]) -> Labelled:
    return listed(np.repeat(np.arange(len(counts)), counts).tolist())


def positions(few: FewShot) -> list[int]:
    return [int(image.name) for image in few.images]


@pytest.mark.parametrize("seed", ONE_SHOT)
def test_one_shot_on_eurosat_is_the_published_sample(seed: int) -> None:
    train, val = sample(by_class(EUROSAT_TRAIN), by_class(EUROSAT_VAL), 1, seed)
    assert (positions(train), positions(val)) == ONE_SHOT[seed]


def test_two_shots_on_eurosat() -> None:
    train, val = sample(by_class(EUROSAT_TRAIN), by_class(EUROSAT_VAL), 2, 1)
    assert positions(train)[:6] == [275, 1165, 1629, 2022, 3241, 4014]
    assert positions(val)[:4] == [234, 104, 925, 631]
    assert len(train) == len(val) == 20


def test_validation_stops_at_four() -> None:
    train, val = sample(by_class(EUROSAT_TRAIN), by_class(EUROSAT_VAL), 16, 1)
    assert np.bincount(train.labels).tolist() == [16] * 10
    assert np.bincount(val.labels).tolist() == [4] * 10


def test_a_short_class_gives_all_it_has_and_draws_nothing() -> None:
    train, _ = sample(listed([0, 0, 1, 1, 1, 1, 1]), None, 3, 7)
    assert positions(train)[:2] == [0, 1]
    assert positions(train)[2:] == [2 + i for i in random.Random(7).sample(range(5), 3)]


def test_without_a_validation_list_its_sample_is_empty() -> None:
    _, val = sample(by_class((3, 3)), None, 1, 1)
    assert len(val) == 0


def test_nothing_to_sample_gives_nothing() -> None:
    train, val = sample(listed([]), listed([]), 1, 1)
    assert len(train) == len(val) == 0


@pytest.mark.parametrize("shots", [0, -1])
def test_less_than_one_shot_is_refused(shots: int) -> None:
    with pytest.raises(ConfigError, match=f"at least 1, not {shots}"):
        sample(by_class((3,)), None, shots, 1)


@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    shots=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_matches_the_reference_protocol(labels: list[int], shots: int, seed: int) -> None:
    """The protocol as the papers' code runs it: the global generator and lists by first sight."""
    state = random.getstate()
    random.seed(seed)
    expected = []
    for k in (shots, min(shots, 4)):
        groups: dict[int, list[int]] = {}
        for index, label in enumerate(labels):
            groups.setdefault(label, []).append(index)
        expected.append(
            [i for g in groups.values() for i in (random.sample(g, k) if len(g) >= k else g)]
        )
    random.setstate(state)
    train, val = sample(listed(labels), listed(labels), shots, seed)
    assert [positions(train), positions(val)] == expected
    assert train.labels.tolist() == [labels[i] for i in expected[0]]
