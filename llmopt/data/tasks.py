"""From a data set to what an optimizer sees, and to what measures it afterwards."""

from __future__ import annotations

from llmopt.data.base import Dataset
from llmopt.data.fewshot import sample
from llmopt.errors import DatasetError
from llmopt.task import Task, TestSet
from llmopt.templates import PLAIN, Template


def make_task(dataset: Dataset, shots: int, seed: int, start: Template | None = None) -> Task:
    """The few-shot task of ``dataset``: a sample of its train and val images, none of its test.

    Args:
        dataset: where the images come from.
        shots: training images per class, at least 1; validation gets ``min(shots, 4)``.
        seed: of the sample.
        start: the template to start from; ``a photo of a {}.`` by default.

    Raises:
        ConfigError: ``shots`` is below 1.
        DatasetError: the data set has no images to train on.
    """
    train, val = sample(dataset.split("train"), dataset.split("val"), shots, seed)
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
        provenance=dataset.provenance,
        handcrafted=dataset.handcrafted,
    )


def open_test(dataset: Dataset) -> TestSet:
    """The test images of ``dataset``; for evaluation, after the search.

    Raises:
        DatasetError: it has none.
    """
    test = dataset.split("test")
    if not len(test):
        raise DatasetError(f"dataset '{dataset.name}' has no test images to measure a run on")
    return TestSet(test.images, test.labels)
