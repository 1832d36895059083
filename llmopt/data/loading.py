"""Decoding on all cores: Pillow lets other threads run while it decodes, so threads suffice."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from llmopt.data.shapes import ShapesImage
from llmopt.errors import DatasetError
from llmopt.images import Image
from llmopt.task import IntArray, Labelled

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(
    work: Callable[[T], R], items: Iterable[T], workers: int | None = None, ahead: int | None = None
) -> Iterator[R]:
    """``work(item)`` for each item, in order, on ``workers`` threads (all cores by default).

    At most ``ahead`` results wait to be taken (four a worker by default), so that memory stays
    bounded however many items there are. The first error is raised where its result would be, and
    nothing more is started.
    """
    workers = workers or cores()
    ahead = max(ahead or 4 * workers, 1)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="llmopt-load") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def load_batches(
    images: Sequence[Image],
    load: Callable[[Image], T],
    stack: Callable[[list[T]], R],
    batch_size: int,
    workers: int | None = None,
) -> Iterator[tuple[IntArray, R]]:
    """Loaded and stacked images, in order.

    Later ones are being loaded meanwhile, but for images of the shapes world, which Python draws:
    threads would only get into each other's way.

    Args:
        images: N images.
        load: from an image to what is stacked, such as its pixels.
        stack: of a batch, not empty.
        batch_size: images a batch; the last may be smaller. One batch is loaded ahead.
        workers: threads; by default all cores, or none for the shapes world.

    Yields:
        (B,) int64 positions in ``images``, and what they were stacked to.

    Raises:
        DatasetError: an image is missing or damaged; it is named.
    """
    if workers is None and all(isinstance(image, ShapesImage) for image in images):
        loaded: Iterable[T] = map(load, images)
    else:
        loaded = in_threads(load, images, workers, ahead=batch_size)
    batch: list[T] = []
    done = 0
    for one in loaded:
        batch.append(one)
        if len(batch) == batch_size or done + len(batch) == len(images):
            yield np.arange(done, done + len(batch), dtype=np.int64), stack(batch)
            done += len(batch)
            batch = []


def readable(images: Labelled, workers: int | None = None) -> tuple[Labelled, tuple[str, ...]]:
    """The images that can be decoded, and the names of those that cannot. Decodes all of them."""

    def try_to_load(image: Image) -> bool:
        try:
            image.load()
        except DatasetError:
            return False
        return True

    good = np.fromiter(in_threads(try_to_load, images.images, workers), dtype=bool)
    left_out = tuple(images.images[i].name for i in np.flatnonzero(~good))
    return images.subset(np.flatnonzero(good)), left_out
