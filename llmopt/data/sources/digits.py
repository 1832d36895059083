"""``digits``: scikit-learn's handwritten digits, real images that come with the library.

1,797 grey images of 8×8 pixels (UCI's test set of pen digits).
"""

from __future__ import annotations

import numpy as np

from llmopt._optional import require
from llmopt.data.base import ListedDataset
from llmopt.data.own_splits import THREE_WAYS, split_three_ways
from llmopt.images import PixelImage
from llmopt.task import Labelled
from llmopt.template import Template

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def open_digits(name: str = "digits") -> ListedDataset:
    """The ten digits, split 50/20/30.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    bunch = require("sklearn.datasets", "sklearn", "dataset 'digits'").load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    images = tuple(PixelImage(f"digits/{i:04d}", picture) for i, picture in enumerate(pixels))
    return ListedDataset(
        name=name,
        keys=tuple(str(digit) for digit in range(10)),
        classnames=NAMES,
        parts=split_three_ways(Labelled(images, bunch.target.astype(np.int64))),
        provenance=THREE_WAYS,
        handcrafted=(Template('a photo of the number: "{}".'),),
    )
