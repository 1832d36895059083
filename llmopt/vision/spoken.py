"""Answers in words: what a box of level ``labels`` says of an image, and which class that is.

A box may answer with places among its prompts, or in words: a text for each image, or several, the
best first. Words are outside data. They are checked and brought to one form here: an answer that
is a prompt or a class name, whatever its case, hyphens and underscores, is that class; any other
word stays what it is.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llmopt.task import FloatArray
from llmopt.template import clean
from llmopt.vision.answers import places

Said = npt.NDArray[np.str_]
"""(N, RANKS) answers, the best first: :func:`of_class` or a plain word; empty where none is."""

RANKS: Final = 5
"""So many answers to an image are looked at."""

LONGEST: Final = 100
"""Characters of a word, at most; what is longer is cut."""

_FORM: Final = np.dtype(f"<U{LONGEST}")


def plain(answer: str) -> str:
    """A word as it is compared: ``Night_Stand.`` is ``night stand``."""
    text = answer[: 8 * LONGEST].replace("_", " ").replace("-", " ")
    return clean(text).strip(" .\"'").casefold()[:LONGEST]


def of_class(k: int) -> str:
    """Class k as an answer; no word is written so."""
    return f"\x01{k}"


def meanings(prompts: Sequence[str], classnames: Sequence[str]) -> dict[str, int]:
    """The class that a plain word means: that of a prompt, or of a name; the first of equals."""
    pairs = [*enumerate(prompts), *enumerate(classnames)]
    return {plain(text): k for k, text in reversed(pairs)}


def said(answer: Any, images: int, prompts: Sequence[int], meant: Mapping[str, int]) -> Said:
    """The answers to so many images.

    Args:
        answer: places among the prompts, texts, or lists of texts (None: nothing was said); or
            what :func:`packed` made of it.
        images: N.
        prompts: the class of each prompt that was sent.
        meant: :func:`meanings`.

    Raises:
        ValueError: it is none of these, or for another number of images.
    """
    if isinstance(answer, np.ndarray) and answer.shape == (images, RANKS * LONGEST):
        return _unpacked(answer)
    found = np.zeros((images, RANKS), dtype=_FORM)
    if not _in_words(answer):
        found[:, 0] = [of_class(prompts[n]) for n in places(answer, images, len(prompts))]
        return found
    if len(answer) != images:
        raise ValueError(f"must give answers to {images} images, not {len(answer)}")
    for row, told in zip(found, answer, strict=True):
        texts = () if told is None else (told,) if isinstance(told, str) else told
        listed = isinstance(texts, Sequence | np.ndarray)
        if not listed or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"must give texts as answers, not {reprlib.repr(told)}")
        words = [plain(text) for text in texts]
        each = dict.fromkeys(of_class(meant[w]) if w in meant else w for w in words if w)
        row[: len(each)] = list(each)[:RANKS]
    return found


def first(answers: Said) -> npt.NDArray[np.int64]:
    """(N,) the first class that each image is said to be of.

    Raises:
        ValueError: of one, none is named.
    """
    found = np.zeros(len(answers), dtype=np.int64)
    for n, words in enumerate(answers):
        named = [int(word[1:]) for word in words if word.startswith("\x01")]
        if not named:
            raise ValueError(
                f"must name one of the prompts for image {n + 1}, not {str(words[0])!r}"
            )
        found[n] = named[0]
    return found


def packed(answers: Said) -> npt.NDArray[np.uint32]:
    """(N, RANKS * LONGEST) code points, as files hold them; :func:`said` reads them."""
    return np.ascontiguousarray(answers).view(np.uint32).reshape(len(answers), -1)


def weights(answers: Said, columns: Mapping[str, int], width: int) -> FloatArray:
    """(N, width) 1 for the first answer of an image, 1/2 for the second ...; 0 for what is unsaid.

    Args:
        answers: of N images.
        columns: place of each answer among ``width``; others are passed over.
        width: of the result.
    """
    found = np.zeros((len(answers), width), dtype=np.float32)
    for row, words in zip(found, answers, strict=True):
        for rank, word in enumerate(words):
            if word in columns:
                row[columns[word]] = 1 / (rank + 1)
    return found


def _unpacked(answer: npt.NDArray[Any]) -> Said:
    points = np.ascontiguousarray(answer, dtype=np.uint32)
    if points.size and points.max() > 0x10FFFF:
        raise ValueError("must give texts as answers, not numbers")
    return points.view(_FORM)


def _in_words(answer: Any) -> bool:
    """Whether it is a list with a text in it, or with a list of them, or with nothing said."""
    return isinstance(answer, list | tuple) and any(
        one is None
        or isinstance(one, str)
        or (isinstance(one, list | tuple) and (not one or isinstance(one[0], str)))
        for one in answer
    )
