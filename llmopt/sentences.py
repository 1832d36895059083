"""Templates taken apart into phrases, the phrases there are, and words that name classes.

The built-in rewriter writes with these, the ``random`` control draws from them, ``chat`` probes
with them, and ``polish`` takes templates apart with them. Nothing here reads scores.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache

from llmopt.resources import read_lines
from llmopt.template import SLOT, Template

_ARTICLE = re.compile(r"^(?:(?P<frame>.*) )?(?P<article>a|an|the|one)(?: (?P<before>.*))?$", re.I)
_FRAME = re.compile(r"^an? .+ (?:of|with|doing|holding|wearing)$")
PLAIN_FRAME = "a photo of"
_WORD = re.compile(r"[^\W_]+")


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

    def with_phrase(self, phrase: str) -> Sentence:
        """With a phrase of the bank of probes, such as ``small {}`` or ``{}, a type of pet``."""
        left, _, right = (side.strip() for side in phrase.partition(SLOT))
        article = self.article or "a"
        if right.startswith(","):
            tail = ", ".join(filter(None, (self.tail, right.removeprefix(",").strip())))
            return replace(self, tail=tail)
        if right:
            return replace(self, after=f"{self.after} {right}".strip())
        if _FRAME.search(left):
            return replace(self, frame=left, article=article)
        return replace(self, before=(*self.before, left), article=article)

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
    return _sections("builtin/vocabulary.txt")


@cache
def probe_bank() -> dict[str, tuple[str, ...]]:
    """Short probes by family, the most general family first; ``{}`` stands for the class name."""
    return _sections("templates/probes.txt")


def _sections(name: str) -> dict[str, tuple[str, ...]]:
    """The lines of a file below ``[section]`` headings."""
    sections: dict[str, list[str]] = {}
    for row in read_lines(name):
        if row.startswith("[") and row.endswith("]"):
            sections[row[1:-1]] = []
        else:
            list(sections.values())[-1].append(row)
    return {heading: tuple(rows) for heading, rows in sections.items()}


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


def names_class(
    template: Template, classnames: Sequence[str], synonyms: bool = False
) -> str | None:
    """The first class name that stands in the template as whole words, or None.

    Such a template says the answer for one class and is wrong for all others. Singular and plural
    are alike: ``two dogs`` names ``dog``.

    Args:
        template: what is looked at.
        classnames: names that must not stand in it.
        synonyms: nor may other common words for the same thing, such as ``puppy``.
    """
    index, lengths = _named(tuple(classnames), synonyms)
    words = _words(template.text).split()
    spans = [words[end - n : end] for n in lengths for end in range(n, len(words) + 1)]
    found = {
        index[key]
        for *before, last in spans
        for form in _numbers(last)
        if (key := (*before, form)) in index
    }
    return next((name for name in classnames if name in found), None)


def mentioned(text: str, names: Sequence[str]) -> list[str]:
    """The names that stand in a text, in either number, as they come; the longer of two in a place.

    What is denied is not meant: ``not a circle`` mentions nothing.
    """
    index, lengths = _named(tuple(names), False)
    words, found, place = _words(text).split(), [], 0
    while place < len(words):
        for n in sorted(lengths, reverse=True):
            *before, last = words[place : place + n] or [""]
            keys = [(*before, form) for form in _numbers(last)] if place + n <= len(words) else []
            if name := next((index[key] for key in keys if key in index), None):
                if not _DENIED & set(words[max(0, place - 2) : place]):
                    found.append(name)
                place += n
                break
        else:
            place += 1
    return list(dict.fromkeys(found))


def meant(word: str, names: Sequence[str]) -> str | None:
    """The one name that a word is another common word for; None for none or several."""
    forms = _numbers(" ".join(_words(word).split()))
    others = {other for form in forms for other in _synonyms().get(form, ())}
    found = [name for name in names if " ".join(_words(name).split()) in others]
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=8)
def _named(
    classnames: tuple[str, ...], synonyms: bool
) -> tuple[dict[tuple[str, ...], str], frozenset[int]]:
    """Class names by their words, the last one in either number; and how many words they have."""
    index: dict[tuple[str, ...], str] = {}
    for name in classnames:
        said = {" ".join(_words(name).split())}
        if synonyms:
            said |= {other for form in _numbers(min(said)) for other in _synonyms().get(form, ())}
        for words in (one.split() for one in sorted(said) if one):
            for form in _numbers(words[-1]):
                index.setdefault((*words[:-1], form), name)
    return index, frozenset(map(len, index))


_DENIED = frozenset({"not", "no", "nor", "neither", "without", "isn", "t"})
_ENDINGS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"))


def _numbers(word: str) -> frozenset[str]:
    """A word, and what it may be the plural of."""
    ones = {
        word.removesuffix(ending) + instead
        for ending, instead in _ENDINGS
        if word.endswith(ending) and not word.endswith(("ss", "us", "is")) and len(word) > 3
    }
    return frozenset({word} | ones)


@cache
def _synonyms() -> dict[str, tuple[str, ...]]:
    """Other words for the same thing, by word."""
    groups = [tuple(part.strip() for part in row.split(",")) for row in
              read_lines("classnames/synonyms.txt")]  # fmt: skip
    return {word: group for group in groups for word in group}


def _words(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.lower()))} "
