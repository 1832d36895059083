"""``--dataset patches:N``: N patches of each colour to train on, N to validate, 2 N to test."""

from __future__ import annotations

import numpy as np

from llmopt.data.base import ListedDataset, Which
from llmopt.errors import DatasetError
from llmopt.images import PixelImage
from llmopt.task import Labelled
from llmopt.template import Template

COLOURS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}
PARTS: dict[Which, int] = {"train": 1, "val": 1, "test": 2}


def open_patches(name: str, count: str) -> ListedDataset:
    """Noisy patches of three colours, the same for the same ``count``."""
    if not count.isdigit() or int(count) < 1:
        raise DatasetError(f"dataset '{name}': a number of patches follows the colon")
    rng = np.random.default_rng(0)
    parts = {}
    for which, times in PARTS.items():
        each = times * int(count)
        images, labels = [], np.repeat(np.arange(len(COLOURS)), each)
        for i, colour in enumerate(np.repeat(list(COLOURS.values()), each, axis=0)):
            pixels = np.clip(rng.normal(colour, 50.0, (8, 8, 3)), 0, 255).astype(np.uint8)
            images.append(PixelImage(f"{name}/{which}/{i:04d}", pixels))
        parts[which] = Labelled(tuple(images), labels)
    names = tuple(COLOURS)
    return ListedDataset(name, names, names, parts, "generated", (Template("a {} patch."),))
