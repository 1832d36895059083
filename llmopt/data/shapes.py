"""The shapes world: procedural images with a known right answer.

Every image shows two objects that differ in shape, colour, size, side and pattern. A task hides a
concept: in ``shapes-small`` the label is the shape of the small object, in ``shapes-red`` that of
the red one. Exactly one object fits, so the plain template ``a photo of a {}.`` is ambiguous by
construction and the right one (``a small {}.``) is known.

An image is a pure function of its scene and its seed: nothing is stored on disk, and two machines
draw the same pixels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from llmopt.errors import DatasetError

WORLD_VERSION: Final = 1
"""Part of every seed and key: raise it when a change alters any pixel or any scene."""

IMAGE_SIZE: Final = 48

SHAPES: Final = (
    "circle", "square", "triangle", "star", "cross", "ring",
    "heart", "arrow", "crescent", "hexagon", "diamond", "bar",
)  # fmt: skip
COLOURS: Final = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
SIZES: Final = ("small", "large")
SIDES: Final = ("left", "right")
PATTERNS: Final = ("striped", "solid")

TASK_COLOURS: Final = ("red", "green", "blue", "yellow")
TASKS: Final = tuple(f"shapes-{c}" for c in (*SIZES, *SIDES, *TASK_COLOURS, *PATTERNS))

IMAGES_PER_CLASS: Final = {"train": 32, "val": 16}
TEST_IMAGES: Final = 1000
_SPLITS: Final = ("train", "val", "test")

# ---------------------------------------------------------------------------------------- scenes


@dataclass(frozen=True, slots=True)
class ShapesObject:
    """One object of a scene; every field is a word of the world's vocabulary."""

    shape: str
    colour: str
    size: str
    side: str
    pattern: str

    def has(self, attribute: str) -> bool:
        """Whether ``attribute`` (a colour, size, side or pattern) describes this object."""
        return attribute in (self.colour, self.size, self.side, self.pattern)


Scene = tuple[ShapesObject, ShapesObject]


def random_scene(
    rng: np.random.Generator, shape: str | None = None, concept: str | None = None
) -> Scene:
    """Two objects that differ in everything; the first has ``shape`` and ``concept``, if given."""
    shapes = _two(rng, SHAPES, shape)
    colours = _two(rng, COLOURS, concept if concept in COLOURS else None)
    sizes = _two(rng, SIZES, concept if concept in SIZES else None)
    sides = _two(rng, SIDES, concept if concept in SIDES else None)
    patterns = _two(rng, PATTERNS, concept if concept in PATTERNS else None)
    first, second = (
        ShapesObject(shapes[i], colours[i], sizes[i], sides[i], patterns[i]) for i in range(2)
    )
    return first, second


def _two(rng: np.random.Generator, words: Sequence[str], first: str | None) -> tuple[str, str]:
    """Two different words of ``words``, the first of them fixed or drawn."""
    one = int(rng.integers(len(words))) if first is None else words.index(first)
    other = int(rng.integers(len(words) - 1))
    return words[one], words[other + (other >= one)]


# --------------------------------------------------------------------------------------- drawing

_SUPERSAMPLE: Final = 4
_PATCH: Final = 36
"""Side of the square an object is drawn in, in pixels; holds the largest object at any angle."""

# Half extents in pixels, and where the object's centre may lie. A small object is never within
# reach of a large one, and both stay inside the frame up to a pixel of their outline.
_RADIUS: Final = {"small": (6.6, 7.6), "large": (11.5, 13.0)}
_CENTRE_X: Final = {"small": (9.0, 11.5), "large": (13.5, 15.0)}  # from the object's own side
_CENTRE_Y: Final = {"small": (10.0, 38.0), "large": (15.0, 33.0)}

_RGB: Final = {
    "red": (214, 30, 34),
    "green": (24, 152, 56),
    "blue": (36, 70, 218),
    "yellow": (248, 220, 36),
    "purple": (142, 44, 176),
    "orange": (250, 132, 18),
    "white": (248, 248, 248),
    "black": (18, 18, 20),
}
# The stripes' second tone: towards white for dark colours, towards black for light ones, so that
# stripes show on every colour and the first tone still names it.
_STRIPE_TOWARDS: Final = {
    "red": 255, "green": 255, "blue": 255, "purple": 255, "black": 255,
    "yellow": 0, "orange": 0, "white": 0,
}  # fmt: skip
_STRIPE_MIX: Final = 0.66
_STRIPE_PERIOD: Final = {"small": 4.2, "large": 6.0}  # pixels
_RIM: Final = 0.8  # pixels


def draw_scene(scene: Scene, seed: Sequence[int]) -> Image.Image:
    """The 48×48 RGB picture of ``scene``; ``seed`` decides place, angle, tint, backdrop, noise."""
    rng = np.random.default_rng(seed)
    canvas = _background(rng)
    for thing in scene:
        _paint(canvas, thing, rng)
    noise = rng.normal(0.0, rng.uniform(2.0, 6.0), canvas.shape)
    pixels = np.clip(canvas + noise, 0.0, 255.0).round().astype(np.uint8)
    return Image.fromarray(pixels)


def _background(rng: np.random.Generator) -> NDArray[np.float64]:
    """A muted backdrop: grey with a faint tint, a linear gradient and soft blotches."""
    tone = rng.uniform(105.0, 165.0) + rng.uniform(-14.0, 14.0, 3)
    axis = np.linspace(-1.0, 1.0, IMAGE_SIZE)
    angle = rng.uniform(0.0, 2.0 * math.pi)
    ramp = math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None]
    blotches = Image.fromarray(rng.uniform(-1.0, 1.0, (5, 5)).astype(np.float32))
    soft = np.asarray(blotches.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))
    shade = rng.uniform(0.0, 16.0) * ramp + rng.uniform(4.0, 14.0) * soft
    return np.asarray(tone + shade[:, :, None], dtype=np.float64)


def _paint(canvas: NDArray[np.float64], thing: ShapesObject, rng: np.random.Generator) -> None:
    """Blend one object into ``canvas`` (48, 48, 3), in place."""
    radius = rng.uniform(*_RADIUS[thing.size])
    x = rng.uniform(*_CENTRE_X[thing.size])
    x = x if thing.side == "left" else IMAGE_SIZE - x
    y = rng.uniform(*_CENTRE_Y[thing.size])
    # Small enough a turn that a square stays a square beside the diamond.
    angle = rng.uniform(-0.26, 0.26)
    left, top = math.floor(x) - _PATCH // 2, math.floor(y) - _PATCH // 2
    scale = radius * _SUPERSAMPLE
    centre = np.array([x - left, y - top]) * _SUPERSAMPLE
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outlines = [outline @ turn * scale + centre for outline in _OUTLINES[thing.shape]]
    alpha = _shrink(_mask(outlines))[:, :, None]
    first = np.clip(np.array(_RGB[thing.colour]) + rng.uniform(-12.0, 12.0, 3), 0.0, 255.0)
    paint = np.broadcast_to(first, (_PATCH, _PATCH, 3))
    stripe_angle, phase = rng.uniform(0.0, math.pi), rng.uniform(0.0, 1.0)
    if thing.pattern == "striped":
        second = first + _STRIPE_MIX * (_STRIPE_TOWARDS[thing.colour] - first)
        stripes = _stripes(stripe_angle, phase, _STRIPE_PERIOD[thing.size])
        # The rim stays in the first tone: stripes that run out of the shape would tear it up.
        stripes *= _shrink(_mask(outlines, rim=_RIM))
        paint = paint + stripes[:, :, None] * (second - first)

    rows = slice(max(top, 0), min(top + _PATCH, IMAGE_SIZE))
    columns = slice(max(left, 0), min(left + _PATCH, IMAGE_SIZE))
    inner = (
        slice(rows.start - top, rows.stop - top),
        slice(columns.start - left, columns.stop - left),
    )
    under = canvas[rows, columns]
    under += alpha[inner] * (paint[inner] - under)


def _stripes(angle: float, phase: float, period: float) -> NDArray[np.float64]:
    """(patch, patch) share of the second tone in [0, 1]; soft edges instead of supersampling."""
    axis = np.arange(_PATCH) / period
    wave = np.sin(
        2.0 * math.pi * (phase + math.cos(angle) * axis[None, :] + math.sin(angle) * axis[:, None])
    )
    return np.clip(0.5 + 1.2 * wave, 0.0, 1.0)


def _shrink(mask: Image.Image) -> NDArray[np.float64]:
    """Coverage in [0, 1] of every pixel of a supersampled mask."""
    return np.asarray(mask.reduce(_SUPERSAMPLE), dtype=np.float64) / 255.0


def _mask(outlines: Sequence[NDArray[np.float64]], rim: float = 0.0) -> Image.Image:
    """Supersampled silhouette, less ``rim`` pixels: one outline filled, a second one cut out."""
    side = _PATCH * _SUPERSAMPLE
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    for outline, fill in zip(outlines, (255, 0), strict=False):
        points = outline.ravel().tolist()
        draw.polygon(points, fill=fill)
        if rim:
            closed = points + points[:4]  # one edge twice, so that every corner is joined
            draw.line(closed, fill=0, width=round(2 * rim * _SUPERSAMPLE), joint="curve")
    return mask


# Outlines in units of the object's radius, y downwards; a second outline is a hole. Their extents
# are chosen so that all shapes of one size look about equally big.


def _regular(corners: int, radius: float, start: float = -0.25) -> NDArray[np.float64]:
    """A regular polygon; ``start`` is the first corner's angle in turns."""
    angles = 2.0 * math.pi * (np.arange(corners) / corners + start)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _points(*points: tuple[float, float]) -> NDArray[np.float64]:
    return np.array(points, dtype=np.float64)


def _star() -> NDArray[np.float64]:
    spikes = _regular(10, 1.0)
    spikes[::2] *= 1.16
    spikes[1::2] *= 0.48
    return spikes + _points((0.0, 0.08))


def _heart() -> NDArray[np.float64]:
    t = np.linspace(0.0, 2.0 * math.pi, 40, endpoint=False)
    x = 16.0 * np.sin(t) ** 3
    y = -(13.0 * np.cos(t) - 5.0 * np.cos(2 * t) - 2.0 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2.5], axis=1) / 15.2


def _crescent() -> NDArray[np.float64]:
    outer = 2.0 * math.pi * np.linspace(0.12, 0.88, 32)
    horn_x, horn_y = math.cos(outer[0]), math.sin(outer[0])
    bite = _points((horn_x - 0.42, 0.0))
    bite_radius = math.hypot(0.42, horn_y)
    start = math.atan2(horn_y, 0.42)
    inner = np.linspace(2.0 * math.pi - start, start, 24)
    rim = 1.08 * np.stack([np.cos(outer), np.sin(outer)], axis=1)
    hollow = 1.08 * (bite + bite_radius * np.stack([np.cos(inner), np.sin(inner)], axis=1))
    return np.concatenate([rim, hollow]) + _points((0.15, 0.0))


def _cross() -> NDArray[np.float64]:
    a, b = 0.33, 1.02
    return _points(
        (-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a),
        (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a),
    )  # fmt: skip


def _arrow() -> NDArray[np.float64]:
    return _points(
        (0.0, -1.1), (0.95, -0.05), (0.34, -0.05), (0.34, 1.05),
        (-0.34, 1.05), (-0.34, -0.05), (-0.95, -0.05),
    )  # fmt: skip


_OUTLINES: Final[dict[str, tuple[NDArray[np.float64], ...]]] = {
    "circle": (_regular(48, 0.98),),
    "square": (_regular(4, 1.24, start=0.125),),
    "triangle": (_points((0.0, -1.02), (1.08, 0.86), (-1.08, 0.86)),),
    "star": (_star(),),
    "cross": (_cross(),),
    "ring": (_regular(48, 1.04), _regular(48, 0.52)),
    "heart": (_heart(),),
    "arrow": (_arrow(),),
    "crescent": (_crescent(),),
    "hexagon": (_regular(6, 1.06, start=0.0),),
    "diamond": (_points((0.0, -1.15), (0.74, 0.0), (0.0, 1.15), (-0.74, 0.0)),),
    "bar": (_points((-1.08, -0.36), (1.08, -0.36), (1.08, 0.36), (-1.08, 0.36)),),
}

# ----------------------------------------------------------------------------- images and tasks


@dataclass(frozen=True)
class ShapesImage:
    """One image of the world: a scene and the seed it is drawn from."""

    seed: tuple[int, ...]
    scene: Scene
    name: str = field(compare=False)
    """For people, e.g. ``shapes-small/test/00017``."""

    def key(self) -> str:
        """Content key: the scene and the seed decide every pixel, so nothing needs drawing."""
        content = (WORLD_VERSION, self.seed, self.scene)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def load(self) -> Image.Image:
        """The RGB picture, 48×48."""
        return draw_scene(self.scene, self.seed)


def planted_template(task: str) -> str:
    """The template that names the concept ``task`` hides, e.g. ``a small {}.``"""
    concept = _concept(task)
    if concept in SIDES:
        return f"a {{}} on the {concept}."
    article = "an" if concept[0] in "aeiou" else "a"
    return f"{article} {concept} {{}}."


def _concept(task: str) -> str:
    if task not in TASKS:
        raise DatasetError(f"unknown shapes task '{task}'; expected one of {', '.join(TASKS)}")
    return task.removeprefix("shapes-")


class ShapesDataset:
    """One of the ten tasks, with the splits of an ordinary data set.

    ``train`` is the pool that few-shot sampling draws from. Classes are balanced in every split and
    the splits are disjoint by seed.
    """

    classnames: tuple[str, ...] = SHAPES
    template = "a photo of a {}."

    def __init__(self, name: str) -> None:
        self.concept = _concept(name)
        self.name = name

    def split(self, name: str) -> tuple[list[ShapesImage], NDArray[np.int64]]:
        """Images of ``train``, ``val`` or ``test`` and their (N,) int64 labels."""
        if name not in _SPLITS:
            raise DatasetError(f"unknown split '{name}'; expected one of {', '.join(_SPLITS)}")
        count = TEST_IMAGES if name == "test" else IMAGES_PER_CLASS[name] * len(SHAPES)
        images = [self._image(name, index) for index in range(count)]
        return images, np.arange(count, dtype=np.int64) % len(SHAPES)

    def split_sha256(self) -> str:
        """One digest over all images and labels of the three splits."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for name in _SPLITS:
            images, labels = self.split(name)
            for image, label in zip(images, labels.tolist(), strict=True):
                digest.update(f"{name} {image.key()} {label}\n".encode())
        return digest.hexdigest()

    def _image(self, split: str, index: int) -> ShapesImage:
        seed = (WORLD_VERSION, 1 + TASKS.index(self.name), _SPLITS.index(split), index)
        # The trailing 1 keeps the scene's random stream apart from the drawing's.
        rng = np.random.default_rng((*seed, 1))
        scene = random_scene(rng, SHAPES[index % len(SHAPES)], self.concept)
        return ShapesImage(seed, scene, f"{self.name}/{split}/{index:05d}")


def pool_image(index: int) -> ShapesImage:
    """Image ``index`` of an endless pool that no task draws from (for training models)."""
    seed = (WORLD_VERSION, 0, 0, index)
    return ShapesImage(seed, random_scene(np.random.default_rng((*seed, 1))), f"pool/{index:07d}")
