"""Captions of the shapes world, and what each of them claims.

A caption speaks of one object or of both, in many wordings; everything it says is true of the scene
it was written for. It may just as well be true of other scenes: ``a circle.`` fits every image with
a circle in it. Training needs to know, so a caption comes with its claims.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from llmopt.data.shapes import COLOURS, PATTERNS, SHAPES, SIDES, SIZES, Scene, ShapesObject

UNKNOWN = "\0"
"""Stands for one token outside the world's vocabulary; all of those share a single vector."""

ATTRIBUTES = (*COLOURS, *SIZES, *SIDES, *PATTERNS)

# The first word is the plain one and is used about half of the time.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "small": ("small", "tiny", "little", "miniature", "mini", "petite", "smaller", "smallest"),
    "large": ("large", "big", "huge", "giant", "enormous", "massive", "larger", "bigger",
              "largest", "biggest"),
    "striped": ("striped", "stripy", "lined", "banded", "stripey"),
    "solid": ("solid", "plain", "filled", "uniform", "unstriped"),
    "red": ("red", "crimson", "scarlet", "ruby", "reddish"),
    "green": ("green", "emerald", "lime", "greenish"),
    "blue": ("blue", "azure", "navy", "cobalt", "bluish"),
    "yellow": ("yellow", "golden", "lemon", "gold", "yellowish"),
    "purple": ("purple", "violet", "lilac"),
    "orange": ("orange", "tangerine", "amber"),
    "white": ("white", "ivory", "snowy"),
    "black": ("black", "ebony", "jet-black"),
    "left": ("left", "left-hand", "leftmost"),
    "right": ("right", "right-hand", "rightmost"),
}  # fmt: skip

# Phrases that follow the noun; {} is the attribute's word.
AFTER: dict[str, tuple[str, ...]] = {
    "side": (
        "on the {}", "on the {}", "on the {}", "at the {}", "to the {}", "at {}", "on the {} side",
        "at the {} side", "on the {}-hand side", "in the {} half", "on the far {}",
        "at the {} edge", "on the {} of the image", "on the {} side of the picture",
        "in the {} part", "{}", "placed on the {}", "standing on the {}", "seen on the {}",
    ),
    "colour": ("in {}", "painted {}", "coloured {}", "colored {}", "of {} colour", "of {} color"),
    "size": ("of {} size", "drawn {}"),
    "striped": ("with stripes", "with lines", "with a striped pattern", "with bands"),
    "solid": ("without stripes", "with no stripes", "in one colour", "with a solid fill"),
}  # fmt: skip
ORDERS = ("that is {}", "which is {}", ", {}", ", {}", "({})", "that looks {}", "- {}")
THINGS = ("object", "thing", "shape", "one", "item", "figure", "form")
# {thing} is described, {noun} is named.
POINTING = (
    "the {thing} is {noun}", "the {thing} is {noun}", "the {thing} : {noun}", "the {thing}, {noun}",
    "{noun}, the {thing}", "{noun} is the {thing}", "the {thing} has the shape of {noun}",
)  # fmt: skip
DETACHED = ("{word}, {rest}", "{word} : {rest}", "{word} {rest}", "{rest} {word}", "{rest}. {word}")
ARTICLES = ("a", "a", "a", "the", "the", "one", "", "", "this", "that", "some", "my", "its")
FRAMES = (
    "a photo of", "a photo of", "a photo of", "a picture of", "an image of", "a drawing of",
    "a close-up photo of", "a close-up of", "a sketch of", "an illustration of", "a painting of",
    "a rendering of", "a view of", "photo of", "image of", "picture of", "a photograph of",
    "the photo shows", "the picture shows", "the image contains", "a photo showing",
    "a picture with", "an image with", "a scene with", "there is", "this is", "we see", "you see",
    "i see", "here is", "it is", "it shows", "showing", "look at", "find", "a type of", "a kind of",
    "a bad photo of", "a good photo of", "a blurry photo of", "a cropped photo of",
    "a bright photo of", "a low resolution photo of", "art of", "a cartoon of", "itap of",
    "a black and white photo of", "a photo of one of", "an example of", "a clean photo of",
)  # fmt: skip
JOINS = ("and", "and", "and", "next to", "beside", "with", "near", "together with", ",", "and also")
TAILS = (
    "on a table", "on a grey background", "on a gray background", "in the picture", "in the image",
    "in the photo", "in the scene", "in the middle", "in the foreground", "in front of a wall",
    "in the background", "against a muted background", "on a wall", "on the floor", "with noise",
    "among other things", "and something else", "and another object", "of some kind",
    "on a white background", "on a black background", "in black and white", "in color",
    "with a shadow", "a type of shape", ", a type of symbol", ", a type of object", "by itself",
)  # fmt: skip
# Sentences of words the model can't know, held together by those it can; "?" is such a word.
FILLERS = (
    "on a ? ?", "on the ?", "in a ?", "in the ?", "in an ? ?", "at the ?", "near the ?",
    "near the ? of an ? ?", "under a ?", "over the ?", "behind the ?", "with a ?", "with ? ?",
    "with the ? ? in ?", "of the ?", "of ?", "from the ?", "from a ? of ?", "by the ?", "by ?",
    "for ?", "for the ? ?", "during the ?", "and ? ?", "and a ?", "as a ?", "like a ?", "to the ?",
    "? the ?", "? a ?", "? in the ?", "? on a ? ?", "? near the ?", "? by a ?", "that ? ?",
    "which ? the ?", "that is ?", "while it ? ?", "? and ?", "? to ? the ?", ", ?", ", a ? of ?",
    ", ? ?", "?", "? ?", "? ? ?", "is ? ?", "is very ?", "into the ?", "after the ?", "it is ?",
)  # fmt: skip
LEADS = (
    "a ? of", "the ? of", "an ? ? of", "? ?", "?", "? :", "? ,", "a ? with", "the ? and", "? and",
    "a ? photo of", "a ? ? photo of", "a ? picture of", "a photo of ? with", "in the ? ,", "in a ?",
    "the ? is", "a ? ? in", "on a ? ,", "a ? near", "the ? near", "an ? in the ? of", "?, ? and",
)  # fmt: skip
FUNCTION_WORDS = tuple(
    """
    the the the a a a an of of in in on at to to with and and for for by from is was are were be
    has have had can will we it i you they he she this that these my his her their our your its
    who where when what how why every all each any many most more some no not so very about as
    like after before between over under behind through into up out off down than or but if only
    just also two three first new old good best other another same without around against during
    """.split()  # noqa: SIM905
)
ENDS = (".", ".", ".", "", "", "!")
MAX_WORDS = 19


@dataclass(frozen=True, slots=True)
class Claim:
    """There is an object of this shape with all of these attributes."""

    shape: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Caption:
    """A text with :data:`UNKNOWN` among its words, and what it claims of the image."""

    text: str
    claims: tuple[Claim, ...]


def describe(scene: Scene, rng: random.Random) -> Caption:
    """A random caption that is true of ``scene``."""
    first, second = scene if rng.random() < 0.5 else scene[::-1]
    if rng.random() < 0.15:
        one, claim_one = _mention(first, rng)
        two, claim_two = _mention(second, rng)
        text, claims = f"{one} {rng.choice(JOINS)} {two}", (claim_one, claim_two)
    else:
        text, claim = _mention(first, rng)
        claims = (claim,)
    if rng.random() < 0.55:
        text = f"{rng.choice(FRAMES)} {text}"
    dice = rng.random()
    if dice < 0.08:
        text, claims = _detached(text, claims, first, rng)
    elif dice < 0.12:
        text, claims = _adjective_of_the_frame(text, claims, first, rng)
    text = _padded(text, rng) + rng.choice(ENDS)
    return Caption(text, claims)


def _mention(thing: ShapesObject, rng: random.Random) -> tuple[str, Claim]:
    """A noun phrase for ``thing`` with none to three of its attributes."""
    count = rng.choices((0, 1, 2, 3), (20, 52, 20, 8))[0]
    attributes = tuple(rng.sample(_attributes(thing), count))
    claim = Claim(thing.shape, attributes)
    article = rng.choice(ARTICLES)
    if attributes and rng.random() < 0.12:
        described = _noun_phrase(rng.choice(THINGS), attributes, rng)
        noun = _with_article(article, thing.shape)
        return rng.choice(POINTING).format(thing=described, noun=noun), claim
    return _with_article(article, _noun_phrase(thing.shape, attributes, rng)), claim


def _attributes(thing: ShapesObject) -> tuple[str, ...]:
    return thing.colour, thing.size, thing.side, thing.pattern


def _noun_phrase(noun: str, attributes: Sequence[str], rng: random.Random) -> str:
    """``noun`` with each attribute before it, after it, or in a clause of its own."""
    before: list[str] = []
    clause: list[str] = []
    after: list[str] = []
    late = rng.random() < 0.2
    for attribute in attributes:
        word = _word(attribute, rng)
        if attribute in SIDES and rng.random() < 0.75:
            after.append(rng.choice(AFTER["side"]).format(attribute))
        elif late:
            clause.append(word)
        elif rng.random() < 0.14:
            after.append(_after(attribute, word, rng))
        else:
            before.append(word)
    parts = [*before, noun]
    if clause:
        parts.append(rng.choice(ORDERS).format(" and ".join(clause)))
    return " ".join(parts + after)


def _after(attribute: str, word: str, rng: random.Random) -> str:
    if attribute in PATTERNS:
        return rng.choice(AFTER[attribute])
    kind = "size" if attribute in SIZES else "side" if attribute in SIDES else "colour"
    return rng.choice(AFTER[kind]).format(attribute if kind == "side" else word)


def _word(attribute: str, rng: random.Random) -> str:
    words = SYNONYMS[attribute]
    return words[0] if rng.random() < 0.5 else rng.choice(words)


def _with_article(article: str, phrase: str) -> str:
    if article == "a" and phrase[0] in "aeiou":
        article = "an"
    return f"{article} {phrase}".strip()


def _detached(
    text: str, claims: tuple[Claim, ...], thing: ShapesObject, rng: random.Random
) -> tuple[str, tuple[Claim, ...]]:
    """One attribute said apart from its noun: ``red : a photo of a circle``."""
    attribute = rng.choice(_attributes(thing))
    word = _word(attribute, rng)
    if attribute in SIDES and rng.random() < 0.5:
        word = rng.choice(AFTER["side"]).format(attribute)
    text = rng.choice(DETACHED).format(word=word, rest=text)
    return text, (_with_attribute(claims[0], attribute), *claims[1:])


def _adjective_of_the_frame(
    text: str, claims: tuple[Claim, ...], thing: ShapesObject, rng: random.Random
) -> tuple[str, tuple[Claim, ...]]:
    """One attribute given to the picture instead of the object: ``a red photo of a circle``."""
    attribute = rng.choice(_attributes(thing))
    for noun in ("photo", "picture", "image", "drawing", "view"):
        if f" {noun} " in text:
            text = text.replace(f" {noun} ", f" {_word(attribute, rng)} {noun} ", 1)
            return text, (_with_attribute(claims[0], attribute), *claims[1:])
    return text, claims


def _with_attribute(claim: Claim, attribute: str) -> Claim:
    if attribute in claim.attributes:
        return claim
    return Claim(claim.shape, (*claim.attributes, attribute))


def _padded(text: str, rng: random.Random) -> str:
    """``text`` among words that say nothing: known tails, unknown sentences, scattered tokens."""
    if rng.random() < 0.12:
        text = _if_it_fits(f"{text} {rng.choice(TAILS)}", text)
    if rng.random() < 0.3:
        text = _if_it_fits(f"{_noise(rng.choice(LEADS), rng)} {text}", text)
    if rng.random() < 0.3:
        text = _if_it_fits(f"{text} {_noise(rng.choice(FILLERS), rng)}", text)
    if rng.random() < 0.15:
        words = text.split()
        for _ in range(rng.randint(1, 3)):
            words.insert(rng.randint(0, len(words)), _unknown("?", rng))
        text = _if_it_fits(" ".join(words), text)
    return text


def _if_it_fits(longer: str, text: str) -> str:
    """``longer`` unless the model's context would cut its end off, and the object with it."""
    return longer if len(longer.split()) <= MAX_WORDS else text


def _noise(pattern: str, rng: random.Random) -> str:
    """Either ``pattern`` or a run of function words and unknown ones, in no order."""
    if rng.random() < 0.5:
        return _unknown(pattern, rng)
    length = rng.randint(1, 10)
    words = [rng.choice(FUNCTION_WORDS) if rng.random() < 0.5 else "?" for _ in range(length)]
    return _unknown(" ".join(words), rng)


def _unknown(pattern: str, rng: random.Random) -> str:
    """``pattern`` with an unknown word of one to three tokens for every ``?``."""
    while "?" in pattern:
        tokens = rng.choices((1, 2, 3), (75, 20, 5))[0]
        pattern = pattern.replace("?", " ".join([UNKNOWN] * tokens), 1)
    return pattern


def vocabulary() -> frozenset[str]:
    """Every word the grammar can say, as it stands in a caption up to punctuation."""
    phrases = [*SHAPES, *THINGS, *ORDERS, *POINTING, *ARTICLES, *FRAMES, *JOINS, *TAILS]
    phrases += [*FILLERS, *LEADS, *FUNCTION_WORDS, *ENDS, "an"]
    for table in (SYNONYMS, AFTER):
        phrases += [phrase for row in table.values() for phrase in row]
    words = {word for phrase in phrases for word in phrase.split()}
    return frozenset(word for word in words if not {"{", "?"} & set(word))
