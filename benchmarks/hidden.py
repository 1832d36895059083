"""Tasks whose answer no single probe says: a word outside the bank, or two properties at once.

Unknown words: the box is that of the shapes tasks, but deaf to every word of the concept that the
bank of probes has; only rarer synonyms reach it. Two properties: in half of the images both objects
have the first, in the other half both have the second, and the label is the shape of the one that
has both.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from llmopt.data.shapes import (
    COLOURS,
    PATTERNS,
    SHAPES,
    SIZES,
    ShapesObject,
    draw_scene,
    random_scene,
)
from llmopt.task import Task
from llmopt.vision.base import BlackBox, BoxInfo

SYNONYMS = {
    "small": ("little", "miniature", "mini", "petite"),
    "large": ("huge", "giant", "massive", "enormous"),
    "red": ("crimson", "scarlet", "ruby"),
    "yellow": ("golden", "lemon"),
    "striped": ("lined", "banded", "stripy"),
}
"""By concept: the words that the deaf box still hears."""
_DEAF = {
    "small": "small tiny smaller smallest",
    "large": "large big larger bigger largest biggest",
    "red": "red reddish",
    "yellow": "yellow gold yellowish",
    "striped": "striped stripes stripey lines bands",
}
PAIRS = (
    ("small", "red"), ("large", "green"), ("striped", "blue"), ("solid", "red"), ("striped", "red"),
)  # fmt: skip
_VALUES = {"size": SIZES, "colour": COLOURS, "pattern": PATTERNS}


class Remembering(BlackBox):
    """A box that keeps text features from run to run: all tasks share their class names.

    Args:
        box: what is asked.
        deaf: words it takes for one it does not know.
    """

    def __init__(self, box: BlackBox, deaf: str = "") -> None:
        self._box = box
        self._deaf = re.compile(rf"\b(?:{'|'.join(deaf.split())})\b", re.I) if deaf else None
        self._texts: dict[Hashable, Any] = {}

    @property
    def info(self) -> BoxInfo:
        return self._box.info

    def normal_forms(self, prompts: Sequence[str]) -> Sequence[Hashable]:
        return self._box.normal_forms(prompts)

    def token_excess(self, prompt: str) -> int:
        return self._box.token_excess(prompt)

    def image_features(self, images: Any) -> Any:
        return self._box.image_features(images)

    def text_features(self, prompts: Sequence[str]) -> Any:
        forms = self._box.normal_forms(prompts)
        new = {f: p for f, p in zip(forms, prompts, strict=True) if f not in self._texts}
        if new:
            heard = [self._deaf.sub("qqq", p) if self._deaf else p for p in new.values()]
            self._texts.update(zip(new, self._box.text_features(heard), strict=True))
        return np.stack([self._texts[form] for form in forms])


def deaf_box(box: BlackBox, concept: str) -> Remembering:
    """The box of the task whose concept it knows by rare words only."""
    return Remembering(box, _DEAF[concept])


def names_hidden(template: str, words: Sequence[str]) -> bool:
    """Whether a template has one of the words."""
    return bool(set(re.findall(r"[a-z]+(?:-[a-z]+)*", template.lower())) & set(words))


def pair_task(pair: tuple[str, str], seed: int, shots: int, tests: int = 240) -> Task:
    """A task whose concept is two properties."""
    images = [_picture(pair, n, seed) for n in range(2 * shots * len(SHAPES))]
    labels = [SHAPES[n % len(SHAPES)] for n in range(len(images))]
    test = [_picture(pair, n, 0, "test") for n in range(tests)]
    half = len(images) // 2
    return Task.from_images(
        images[:half],
        labels[:half],
        SHAPES,
        val=(images[half:], labels[half:]),
        test=(test, [SHAPES[n % len(SHAPES)] for n in range(tests)]),
        name=f"{pair[0]}-{pair[1]}",
    )


def _picture(pair: tuple[str, str], number: int, seed: int, split: str = "few") -> Any:
    """One picture: the target has both properties, the other object one of them."""
    place = (7, PAIRS.index(pair), seed, number, int(split == "test"))
    rng = np.random.default_rng(place)
    target, other = random_scene(rng, SHAPES[number % len(SHAPES)], pair[1])
    target = _with(target, pair[0], rng)
    # Class after class, so that each class has images of both kinds.
    shared = pair[(number // len(SHAPES)) % 2]
    lacking = pair[1 - (number // len(SHAPES)) % 2]
    other = _without(_with(other, shared, rng), lacking, rng)
    return draw_scene((target, other), place)


def _kind(word: str) -> str:
    return next(kind for kind, values in _VALUES.items() if word in values)


def _with(thing: ShapesObject, word: str, rng: np.random.Generator) -> ShapesObject:
    values = {kind: getattr(thing, kind) for kind in ("shape", "colour", "size", "side", "pattern")}
    return ShapesObject(**{**values, _kind(word): word})


def _without(thing: ShapesObject, word: str, rng: np.random.Generator) -> ShapesObject:
    if not thing.has(word):
        return thing
    others = [value for value in _VALUES[_kind(word)] if value != word]
    return _with(thing, others[int(rng.integers(len(others)))], rng)
