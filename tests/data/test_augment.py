from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from PIL import Image as Pillow

from llmopt.data.augment import Augmentation, View, with_views
from llmopt.images import Image
from llmopt.task import Labelled


@dataclass(frozen=True)
class Gradient:
    """A picture whose red is its column and whose green is its row."""

    content: str = "gradient"
    size: tuple[int, int] = (64, 48)
    name: str = field(default="gradient.png")

    def key(self) -> str:
        return self.content

    def load(self) -> Pillow.Image:
        width, height = self.size
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[..., 0] = np.linspace(0, 255, width)[None]
        pixels[..., 1] = np.linspace(0, 255, height)[:, None]
        return Pillow.fromarray(pixels)


def pixels(image: Image) -> np.ndarray:
    return np.asarray(image.load(), dtype=np.int64)


def test_a_view_is_a_square_crop_of_the_same_picture() -> None:
    view = View(Gradient(), seed=1, number=1)
    assert isinstance(view, Image)
    seen = pixels(view)
    assert seen.shape[0] == seen.shape[1]
    assert (np.diff(seen[..., 0].mean(axis=0)) >= 0).all()
    assert (np.diff(seen[..., 1].mean(axis=1)) >= 0).all()
    width, height = np.ptp(seen[..., 0]) / 255, np.ptp(seen[..., 1]) / 255
    assert 0.4 < width * height <= 1.0
    assert view.name == "gradient.png (view 1)"


def test_views_depend_on_content_seed_and_number_only() -> None:
    view = View(Gradient(), 1, 1)
    same = View(Gradient(name="copy.png"), 1, 1)
    assert view.key() == same.key()
    np.testing.assert_array_equal(pixels(view), pixels(same))
    others = [
        View(Gradient(), 2, 1),
        View(Gradient(), 1, 2),
        View(Gradient("other"), 1, 1),
        View(Gradient(), 1, 1, Augmentation(scale=(0.08, 1.0))),
    ]
    assert len({view.key(), Gradient().key(), *(v.key() for v in others)}) == 6
    assert all(
        pixels(v).shape != pixels(view).shape or not np.array_equal(pixels(v), pixels(view))
        for v in others
    )


def test_views_are_not_mirrored_unless_asked_for() -> None:
    def mirrored(view: View) -> bool:
        red = pixels(view)[..., 0].mean(axis=0)
        return bool(red[0] > red[-1])

    assert not any(mirrored(View(Gradient(), 0, n)) for n in range(20))
    flips = [mirrored(View(Gradient(), 0, n, Augmentation(flip=True))) for n in range(60)]
    assert 15 < sum(flips) < 45


@pytest.mark.parametrize("size", [(1, 1), (200, 3), (3, 200), (17, 16)])
def test_pictures_of_any_shape_have_views(size: tuple[int, int]) -> None:
    for number in range(5):
        width, height = View(Gradient(size=size), 0, number).load().size
        assert width == height >= 1


def test_crops_cover_the_areas_asked_for() -> None:
    how = Augmentation(scale=(0.5, 1.0))
    areas = []
    for number in range(200):
        seen = pixels(View(Gradient(size=(300, 300)), 0, number, how))
        areas.append(np.ptp(seen[..., 0]) * np.ptp(seen[..., 1]) / 255**2)
    assert 0.45 < min(areas) < 0.55
    assert 0.9 < max(areas) <= 1.0
    assert np.mean(areas) == pytest.approx(0.72, abs=0.05)


def test_each_image_is_followed_by_its_views() -> None:
    images = Labelled((Gradient("a"), Gradient("b")), np.array([1, 0]))
    seen = with_views(images, 2, seed=7)
    assert seen.labels.tolist() == [1, 1, 1, 0, 0, 0]
    assert [image.name for image in seen.images[:3]] == [
        "gradient.png", "gradient.png (view 1)", "gradient.png (view 2)",
    ]  # fmt: skip
    assert seen.images[3] is images.images[1]
    assert len({image.key() for image in seen.images}) == 6
    assert with_views(images, 2, seed=7).digest == seen.digest
    assert with_views(images, 0, seed=7).digest == images.digest
