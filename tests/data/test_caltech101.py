"""Against the real Caltech-101, where LLMOPT_DATA has it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmopt.data.check import check_dataset
from llmopt.data.registry import open_dataset
from llmopt.data.tasks import make_task, open_test
from llmopt.resources import read_prompt


def test_is_the_published_split(real_data: Path) -> None:
    dataset = open_dataset("caltech101", real_data)
    sizes = [len(dataset.split(which)) for which in ("train", "val", "test")]
    assert sizes == [4128, 1649, 2465]
    assert len(dataset.classnames) == 100
    assert dataset.classnames[:4] == ("face", "leopard", "motorbike", "accordion")
    assert "as published" in dataset.provenance
    assert list(dataset.classnames) == json.loads(read_prompt("classnames/caltech101.json"))
    assert len(open_test(dataset)) == 2465


def test_is_complete_and_sound(real_data: Path) -> None:
    report = check_dataset("caltech101", real_data)
    assert report.problems == ()
    assert report.notes == ()
    assert report.images == 8242


def test_one_shot_picks(real_data: Path) -> None:
    dataset = open_dataset("caltech101", real_data)
    task = make_task(dataset, shots=1, seed=1)
    train = [image.name for image in dataset.split("train").images]
    val = [image.name for image in dataset.split("val").images]
    assert [train.index(i.name) for i in task.train.images[:5]] == [34, 290, 709, 719, 875]
    assert [val.index(i.name) for i in task.val.images[:5]] == [1, 99, 265, 295, 357]


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_sample_opens(real_data: Path, shots: int, seed: int) -> None:
    dataset = open_dataset("caltech101", real_data)
    task = make_task(dataset, shots, seed)
    available = np.bincount(dataset.split("train").labels)
    assert np.bincount(task.train.labels).tolist() == np.minimum(available, shots).tolist()
    assert np.bincount(task.val.labels).tolist() == [min(shots, 4)] * 100
    assert len({image.key() for image in task.train.images}) == len(task.train)
    assert task.train.images[0].load().mode == "RGB"
