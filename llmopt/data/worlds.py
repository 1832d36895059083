"""Harder worlds of the same pictures as the shapes tasks (:mod:`llmopt.data.shapes`).

Each asks for what no single word in the template gives: names, several words, words that differ
by class, or doubt about the labels. A class is what its object has; the other object of a picture
is of a class with the same words, and never has all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from llmopt.data.base import SPLITS, ListedDataset, Which
from llmopt.data.shapes import (
    COLOURS,
    IMAGES_PER_CLASS,
    PATTERNS,
    SHAPES,
    SIDES,
    SIZES,
    TASKS,
    TEST_IMAGES,
    WORLD_VERSION,
    Scene,
    ShapesImage,
    ShapesObject,
    random_scene,
)
from llmopt.task import Labelled
from llmopt.template import PLAIN, Template

_VALUES: Final = {"colour": COLOURS, "size": SIZES, "side": SIDES, "pattern": PATTERNS}


@dataclass(frozen=True)
class World:
    """A data set drawn from the generator.

    Attributes:
        about: what the label is, for people and language models.
        classes: K, each the shape of its object and the words that point at it.
        names: K.
        shares: the other object has one of two words.
        others: colours that it is drawn from; all where there are none.
        noise: share of training and validation labels that are wrong.
        absent: places of classes that no test image has.
    """

    about: str
    classes: tuple[tuple[str, ...], ...]
    names: tuple[str, ...] = SHAPES
    shares: bool = False
    others: tuple[str, ...] = ()
    noise: float = 0.0
    absent: tuple[int, ...] = ()

    def scene(self, rng: np.random.Generator, label: int) -> Scene:
        """Two objects, the first of them of a class."""
        shape, *words = self.classes[label]
        target, other = random_scene(rng, shape)
        for word in words:
            target = replace(target, **{_kind(word): word})
        rivals = [first for first, *rest in self.classes if rest == words and first != shape]
        other = replace(other, shape=rivals[rng.integers(len(rivals))])
        if self.others:
            other = replace(other, colour=self.others[rng.integers(len(self.others))])
        shared = words[rng.integers(2)] if self.shares else ""
        return target, _unlike(other, target, shared, rng)


def _kind(word: str) -> str:
    return next(kind for kind, values in _VALUES.items() if word in values)


def _unlike(
    thing: ShapesObject, other: ShapesObject, shared: str, rng: np.random.Generator
) -> ShapesObject:
    """The thing, changed where it has what the other one has, but for the word they share."""
    for kind, values in _VALUES.items():
        had = getattr(other, kind)
        left = [value for value in values if value != had]
        if had == shared:
            thing = replace(thing, **{kind: had})
        elif getattr(thing, kind) == had:
            thing = replace(thing, **{kind: left[rng.integers(len(left))]})
    return thing


_ONE = "drawings of two simple shapes each; the label is the shape of one of them"
_SMALL = tuple((shape, "small") for shape in SHAPES)

WORLDS: Final[Mapping[str, World]] = MappingProxyType(
    {
        "shapes-codes": World(
            f"{_ONE}, under a code", _SMALL, tuple(f"class_{k:02d}" for k in range(len(SHAPES)))
        ),
        "shapes-both": World(_ONE, tuple((s, "solid", "red") for s in SHAPES), shares=True),
        "shapes-mixed": World(
            f"{_ONE}, which one depends on the shape",
            tuple((s, "red" if k % 2 else "small") for k, s in enumerate(SHAPES)),
        ),
        "shapes-traps": World(
            _ONE, tuple((s, "red") for s in SHAPES), others=("orange", "white", "black")
        ),
        "shapes-96": World(
            "drawings of two simple shapes each; the label is colour and shape of one of them",
            tuple((s, "small", c) for c in COLOURS for s in SHAPES),
            tuple(f"{c} {s}" for c in COLOURS for s in SHAPES),
        ),
        "shapes-noise": World(_ONE, _SMALL, noise=0.1),
        "shapes-gap": World(_ONE, _SMALL, absent=(len(SHAPES) - 1,)),
    }
)
"""By name: codes for names; two properties at once; words that differ by class; a near word that
helps, but for where the other object has it; colour and shape; wrong labels; a class missing from
the test images."""


def open_world(name: str) -> ListedDataset:
    """One of :data:`WORLDS`, with as many pictures as a shapes task; the same everywhere."""
    world, place = WORLDS[name], len(TASKS) + 1 + list(WORLDS).index(name)
    parts: dict[Which, Labelled] = {}
    for number, which in enumerate(SPLITS):
        tested = which == "test"
        kept = [k for k in range(len(world.names)) if not (tested and k in world.absent)]
        count = TEST_IMAGES if tested else IMAGES_PER_CLASS[which] * len(kept)
        labels = np.array([kept[i % len(kept)] for i in range(count)], dtype=np.int64)
        images = []
        for index, label in enumerate(labels.tolist()):
            seed = (WORLD_VERSION, place, number, index)
            scene = world.scene(np.random.default_rng((*seed, 1)), label)
            images.append(ShapesImage(seed, scene, f"{name}/{which}/{index:05d}"))
        if world.noise and not tested:
            rng = np.random.default_rng((WORLD_VERSION, place, number))
            wrong = rng.choice(count, round(world.noise * count), replace=False)
            labels[wrong] += rng.integers(1, len(kept), len(wrong))
            labels %= len(kept)
        parts[which] = Labelled(tuple(images), labels)
    return ListedDataset(
        name=name,
        keys=tuple(" ".join(one) for one in world.classes),
        classnames=world.names,
        parts=parts,
        provenance="generated by llmopt; train, val and test are disjoint by seed",
        handcrafted=(Template(PLAIN),),
    )
