"""Templates taken apart into phrases, and the vocabulary phrases are drawn from.

The built-in rewriter writes with these, the ``random`` control draws from them, and ``polish``
takes templates apart with them. Nothing here reads scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from llmopt.resources import read_prompt
from llmopt.template import SLOT

_ARTICLE = re.compile(r"^(?:(?P<frame>.*) )?(?P<article>a|an|the|one)(?: (?P<before>.*))?$", re.I)
PLAIN_FRAME = "a photo of"


@dataclass(frozen=True)
class Sentence:
    """A template taken apart: ``frame article before {} after, tail.``

    What does not fit the pattern ends up in ``frame`` and ``after``, so nothing is lost but the
    final full stop, and every sentence reads as a template again.
    """

    frame: str
    article: str
    before: tuple[str, ...]
    after: str
    tail: str

    @classmethod
    def parse(cls, text: str) -> Sentence:
        """Take a template apart."""
        left, _, right = text.strip().removesuffix(".").partition(SLOT)
        after, _, tail = right.strip().partition(", ")
        match = _ARTICLE.match(left.strip())
        if match is None:
            return cls(left.strip(), "", (), after, tail)
        before = tuple(_split((match["before"] or "").split()))
        return cls(match["frame"] or "", match["article"], before, after, tail)

    def __str__(self) -> str:
        article = self.article
        if article.lower() in ("a", "an"):
            first = self.before[0] if self.before else ""
            article = "an" if first[:1].lower() in tuple("aeiou") and first else "a"
        words = " ".join(w for w in (self.frame, article, *self.before, SLOT, self.after) if w)
        return f"{words}, {self.tail}." if self.tail else f"{words}."

    def features(self) -> frozenset[str]:
        """Names of its phrases, and of the words in them."""
        phrases = [("frame", self.frame), ("after", self.after), ("tail", self.tail)]
        phrases += [("before", phrase) for phrase in self.before]
        return frozenset().union(*(phrase_features(part, text) for part, text in phrases if text))

    def shorter(self) -> dict[str, Sentence]:
        """What is left without each phrase, by the name of the phrase."""
        without: dict[str, Sentence] = {}
        if self.frame not in ("", PLAIN_FRAME):
            plain = replace(self, frame=PLAIN_FRAME, article=self.article or "a")
            without[f"frame {self.frame}"] = plain
        for index, phrase in enumerate(self.before):
            kept = self.before[:index] + self.before[index + 1 :]
            without[f"before {phrase}"] = replace(self, before=kept)
        if self.after:
            without[f"after {self.after}"] = replace(self, after="")
        if self.tail:
            without[f"tail {self.tail}"] = replace(self, tail="")
        return without

    def __len__(self) -> int:
        """Words, the slot counted."""
        return len(str(self).split())


@cache
def phrase_features(part: str, phrase: str) -> frozenset[str]:
    """Names of one phrase: itself in its place, and its words wherever they stand.

    So what was learned of a word in one place serves in another; a frame's words are left out.
    """
    words = () if part == "frame" else phrase.split()
    return frozenset([f"{part} {phrase}", *(f"word {word}" for word in words)])


@cache
def vocabulary() -> dict[str, tuple[str, ...]]:
    """The phrases by part: ``before``, ``after``, ``frame``, ``tail``."""
    sections: dict[str, list[str]] = {}
    for raw in read_prompt("builtin/vocabulary.txt").splitlines():
        row = raw.strip()
        if row.startswith("[") and row.endswith("]"):
            sections[row[1:-1]] = []
        elif row and not row.startswith("#"):
            list(sections.values())[-1].append(row)
    return {name: tuple(phrases) for name, phrases in sections.items()}


def _split(words: list[str]) -> Iterator[str]:
    """Known phrases, the longest first, and single words."""
    known = _known()
    while words:
        for length in range(len(words), 0, -1):
            phrase = " ".join(words[:length])
            if length == 1 or phrase in known:
                yield phrase
                words = words[length:]
                break


@cache
def _known() -> frozenset[str]:
    return frozenset(vocabulary()["before"])
