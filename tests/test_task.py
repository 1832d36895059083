from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes import make_task, pictures
from reach import reachable

from llmopt.data.registry import open_dataset
from llmopt.data.tasks import make_task as task_of
from llmopt.data.tasks import open_test
from llmopt.task import FewShot, Labelled, TestSet


def test_images_and_labels_go_together() -> None:
    images = pictures("train", 2)
    assert [label for _, label in images] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    with pytest.raises(ValueError, match="3 images but 2 labels"):
        Labelled(images.images[:3], images.labels[:2])


def test_subset_keeps_the_order_asked_for() -> None:
    images = pictures("train", 2)
    chosen = images.subset([7, 0])
    assert [image.name for image in chosen.images] == ["train/0/0007.png", "train/0/0000.png"]
    assert chosen.labels.tolist() == [3, 0]
    assert len(images.subset(np.array([], dtype=np.int64))) == 0


def test_digest_is_of_content_and_order_not_of_labels() -> None:
    images = pictures("train", 2)
    again = Labelled(pictures("train", 2).images, images.labels[::-1].copy())
    assert again.digest == images.digest
    assert images.subset(range(9, -1, -1)).digest != images.digest
    assert images.subset(range(9)).digest != images.digest
    assert pictures("val", 2).digest != images.digest


def test_labelled_images_are_train_and_val_together() -> None:
    task = make_task(shots=2, val=1)
    assert task.labelled_images == 15
    assert make_task(shots=2, val=0).labelled_images == 10


@pytest.mark.parametrize("name", ["shapes-small", "folder:{}"])
def test_a_task_leads_to_no_test_image(name: str, tmp_path: Path) -> None:
    from fakes import write_folder

    dataset = open_dataset(name.format(write_folder(tmp_path)), tmp_path)
    task = task_of(dataset, shots=2, seed=1)
    held = {image.key() for image in open_test(dataset).images}
    found = reachable(task)
    assert any(isinstance(thing, FewShot) for thing in found)
    assert not any(isinstance(thing, TestSet) for thing in found)
    assert not any(thing is dataset for thing in found)
    keys = {thing.key() for thing in found if hasattr(type(thing), "load")}
    assert len(keys) == task.labelled_images
    assert not keys & held
