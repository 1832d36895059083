"""Data sets whose downloads are not yet the folders of images that everyone works with."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

from llmopt.data.archives import unpack
from llmopt.errors import DatasetError


def export_svhn(file: Path, into: Path) -> None:
    """Write the digits of an SVHN ``.mat`` as the split expects them: ``<digit>/<number>.jpg``.

    Numbers count the file's images from 1; the digit 0 is stored as 10. JPEG with Pillow's usual
    settings, as the split's authors did it.
    """
    import scipy.io  # slow to import

    content = scipy.io.loadmat(str(file))
    for digit in range(10):
        (into / str(digit)).mkdir(parents=True, exist_ok=True)
    pixels = np.moveaxis(content["X"], -1, 0)
    for number, (picture, label) in enumerate(zip(pixels, content["y"].ravel(), strict=True), 1):
        path = into / str(int(label) % 10) / f"{number:05d}.jpg"
        PillowImage.fromarray(picture).save(path)


def export_imagenet_val(file: Path, devkit: Path, into: Path) -> None:
    """Sort ImageNet's validation images into folders named by WordNet id.

    Args:
        file: ``ILSVRC2012_img_val.tar``, all images in one folder.
        devkit: ``ILSVRC2012_devkit_t12.tar.gz``, which knows their classes.
        into: the folder of class folders.

    Raises:
        DatasetError: the two do not fit together.
    """
    classes = _validation_classes(devkit)
    unpack(file, into)
    for number, wordnet_id in enumerate(classes, start=1):
        image = into / f"ILSVRC2012_val_{number:08d}.JPEG"
        if not image.exists():
            raise DatasetError(f"{file} has no {image.name}: it is another archive")
        folder = into / wordnet_id
        folder.mkdir(exist_ok=True)
        image.rename(folder / image.name)


def _validation_classes(devkit: Path) -> list[str]:
    """WordNet ids of the validation images, in their order."""
    import scipy.io  # slow to import

    folder = "ILSVRC2012_devkit_t12/data"
    truth = f"{folder}/ILSVRC2012_validation_ground_truth.txt"
    with tempfile.TemporaryDirectory() as place:
        if unpack(devkit, Path(place), [truth, f"{folder}/meta.mat"]) != 2:
            raise DatasetError(f"{devkit} has no {truth} or no meta.mat: it is another archive")
        synsets = scipy.io.loadmat(f"{place}/{folder}/meta.mat", squeeze_me=True)["synsets"]
        numbers = Path(place, truth).read_text(encoding="ascii").split()
    ids = dict(zip(synsets["ILSVRC2012_ID"].tolist(), synsets["WNID"].tolist(), strict=True))
    return [str(ids[int(number)]) for number in numbers]
