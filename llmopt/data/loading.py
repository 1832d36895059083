"""Decoding on all cores: Pillow lets other threads run while it decodes, so threads suffice."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from llmopt.data.shapes import ShapesImage
from llmopt.errors import DatasetError
from llmopt.images import Image
from llmopt.task import IntArray, Labelled

if TYPE_CHECKING:
    import torch
    from PIL import Image as PillowImage

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
    transform: Callable[[PillowImage.Image], torch.Tensor],
    batch_size: int,
    workers: int | None = None,
    pin: bool = False,
) -> Iterator[tuple[IntArray, torch.Tensor]]:
    """Decoded, transformed and stacked images, in order.

    Later ones are being decoded meanwhile, but for images of the shapes world, which Python draws:
    threads would only get into each other's way. Pillow decodes for every device: what decodes on a
    GPU rounds otherwise, and a picture is to have the same features everywhere.

    Args:
        images: N images.
        transform: from an RGB picture to a tensor, the same shape for all.
        batch_size: images a batch; the last may be smaller. One batch is decoded ahead.
        workers: threads; by default all cores, or none for the shapes world.
        pin: stack them in page-locked memory, from which a GPU fetches them by itself.

    Yields:
        (B,) int64 positions in ``images``, and their (B, …) tensors.

    Raises:
        DatasetError: an image is missing or damaged; it is named.
    """

    def load(image: Image) -> torch.Tensor:
        return transform(image.load())

    if workers is None and all(isinstance(image, ShapesImage) for image in images):
        loaded: Iterable[torch.Tensor] = map(load, images)
    else:
        loaded = in_threads(load, images, workers, ahead=batch_size)
    batch: list[Any] = []
    done = 0
    for tensor in loaded:
        batch.append(tensor)
        if len(batch) == batch_size or done + len(batch) == len(images):
            yield np.arange(done, done + len(batch), dtype=np.int64), _stacked(batch, pin)
            done += len(batch)
            batch = []


def _stacked(tensors: list[torch.Tensor], pin: bool) -> torch.Tensor:
    import torch

    if not pin:
        return torch.stack(tensors)
    first = tensors[0]
    out = torch.empty(len(tensors), *first.shape, dtype=first.dtype, pin_memory=True)
    return torch.stack(tensors, out=out)


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
