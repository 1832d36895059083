"""From a data set to what an optimizer sees, and to what measures it afterwards."""

from __future__ import annotations

from dataclasses import replace

from llmopt.data.base import Dataset
from llmopt.data.fewshot import sample
from llmopt.data.loading import readable
from llmopt.data.views import HalfDataset
from llmopt.errors import DatasetError
from llmopt.task import FewShot, Labelled, Task, TestSet
from llmopt.template import PLAIN, Template


def make_task(
    dataset: Dataset,
    shots: int,
    seed: int,
    start: Template | None = None,
    *,
    skip_unreadable: bool = False,
) -> Task:
    """The few-shot task of ``dataset``: a sample of its train and val images, none of its test.

    Args:
        dataset: where the images come from.
        shots: training images per class, at least 1; validation gets ``min(shots, 4)``.
        seed: of the sample.
        start: the template to start from; ``a photo of a {}.`` by default.
        skip_unreadable: leave damaged images out of the sample, and say so in its provenance;
            otherwise they are refused when they are opened.

    Raises:
        ConfigError: ``shots`` is below 1.
        DatasetError: the data set has no images to train on.
    """
    whole = dataset.whole if isinstance(dataset, HalfDataset) else dataset
    train, val = sample(whole.split("train"), whole.split("val"), shots, seed)
    if isinstance(dataset, HalfDataset):
        train, val = _few(dataset.cut(train)), _few(dataset.cut(val))
    provenance = dataset.provenance
    left_out: tuple[str, ...] = ()
    if skip_unreadable:
        (good_train, bad_train), (good_val, bad_val) = readable(train), readable(val)
        train, val, left_out = _few(good_train), _few(good_val), bad_train + bad_val
        if left_out:
            provenance += f"; {len(left_out)} unreadable images left out: {', '.join(left_out)}"
    if not len(train):
        raise DatasetError(
            f"dataset '{dataset.name}' has no images to train on; search on another one and carry "
            f"the result over with 'llmopt evaluate RUN --dataset {dataset.name}'"
        )
    return Task(
        dataset=dataset.name,
        classnames=dataset.classnames,
        train=train,
        val=val,
        shots=shots,
        seed=seed,
        start=start or Template(PLAIN),
        split_sha256=dataset.split_sha256,
        provenance=provenance,
        handcrafted=dataset.handcrafted,
        left_out=len(left_out),
    )


def fewer(task: Task, shots: int, seed: int) -> Task:
    """A task with a sample of its images, at most ``shots`` a class for training.

    Raises:
        ConfigError: ``shots`` is below 1.
    """
    if shots >= task.shots:
        return task
    train, val = sample(task.train, task.val, shots, seed)
    return replace(task, train=train, val=val, shots=shots)


def open_test(dataset: Dataset, *, skip_unreadable: bool = False) -> TestSet:
    """The test images of ``dataset``; for evaluation, after the search.

    Args:
        dataset: whose images.
        skip_unreadable: leave damaged images out; how many, ``dataset.split("test")`` tells.

    Raises:
        DatasetError: it has none.
    """
    test = dataset.split("test")
    if not len(test):
        raise DatasetError(f"dataset '{dataset.name}' has no test images to measure a run on")
    if skip_unreadable:
        test, _ = readable(test)
    return TestSet(test.images, test.labels)


def _few(images: Labelled) -> FewShot:
    return FewShot(images.images, images.labels)
