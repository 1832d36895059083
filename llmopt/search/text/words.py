"""What is known of words: by how much each changes the score, and how sure that is.

Every template that was scored says something of the words in it. The change of the log-likelihood
against the start is taken, image by image, as the sum of the effects of a template's words, so a
word's effect has a mean over the images and a paired standard error. A word that was tried alone
has the effect it had there; what is left goes to the others, to as few as explain it (group lasso):
most words do nothing, and one that ruins a template leaves its company as it was. Means are
shrunk towards each other before a word is said to help or to hurt
(:func:`llmopt.stats.posterior`), as the best of many is lucky.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache

import numpy as np
import numpy.typing as npt

from llmopt.search.text.archive import Scored
from llmopt.sentences import probe_bank
from llmopt.stats import posterior, settled
from llmopt.template import SLOT, Template

_PENALTY = 0.02  # nats; a word seen once, in company, is taken to do so much less than it seems
_STEPS = 12  # of the lasso; more change nothing that is told
_SURE = 2.0  # standard deviations from nothing
_LEAST = 0.03  # nats; less is no difference to speak of
_TIED = 4  # words with the very same scores that are no accident
_WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
_STOP = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "here", "in", "is", "it"}
    | {"of", "on", "that", "the", "there", "this", "to", "was", "with"}
)


@dataclass(frozen=True)
class Word:
    """A word or phrase, and what it does.

    Attributes:
        text: as in the bank of probes (``small {}``), or a word alone.
        change: in mean log-likelihood, nats, against the same sentence without it.
        error: paired standard error of that.
        accuracy: of the template that differs from the start in it alone; None if none was tried.
        tried: templates that have it.
        effects: (N,) change on each image.
        beside: words that were in the very same templates: which of them did it is not known.
    """

    text: str
    change: float
    error: float
    accuracy: float | None
    tried: int
    effects: npt.NDArray[np.float64] = field(repr=False, compare=False)
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """The word table.

    Attributes:
        helped: the most helpful first.
        hurt: the most harmful first.
        opposite: those of ``hurt`` with which alone hardly an image is right: what they say is
            wrong, so the opposite may be true.
        unsure: words whose effect, if they have one, is not beyond its error.
        unknown: words with the very same scores, which the model may not know.
        dropped: words of templates that were clearly not among the best on a few images.
    """

    helped: tuple[Word, ...] = ()
    hurt: tuple[Word, ...] = ()
    opposite: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    def all(self) -> frozenset[str]:
        """Every word tried."""
        return frozenset([w.text for w in (*self.helped, *self.hurt)]).union(
            self.unsure, self.unknown, self.dropped
        )


def word_table(
    scored: Sequence[Scored], start: Scored, classes: int, dropped: Iterable[Template] = ()
) -> Words:
    """What all scored templates say of their words.

    Args:
        scored: T templates on the same N images, the start among them or not.
        start: what changes are measured from.
        classes: K, of the task; fewer than one image in K right is below chance.
        dropped: templates that were scored on a few images only.
    """
    rows = [one for one in scored if one is not start]
    had = units(start.template.text)
    found = [units(one.template.text) for one in rows]
    texts = sorted(frozenset[str]().union(*found) - had)
    left = tuple(sorted(frozenset[str]().union(*(units(t.text) for t in dropped)) - had - {*texts}))
    if not texts:
        return Words(dropped=left)
    place = {text: n for n, text in enumerate([*texts, *sorted(had)])}
    x = np.zeros((len(rows), len(place)))
    for row, present in zip(x, found, strict=True):
        row[[place[text] for text in present]] = 1
        row[[place[text] for text in had]] -= 1
    y = np.stack([one.likelihoods for one in rows]) - start.likelihoods
    effects = _effects(x, y)
    images = y.shape[1]
    changes = effects.mean(axis=1)
    errors = effects.std(axis=1, ddof=1) / np.sqrt(images) if images > 1 else np.abs(changes)
    means, spreads = (settled(values) for values in posterior(changes, errors))

    together: dict[bytes, list[str]] = defaultdict(list)
    for text in texts:
        together[x[:, place[text]].tobytes()].append(text)
    shortest: dict[str, Scored] = {}
    alone: dict[str, Scored] = {}
    tried: dict[str, int] = defaultdict(int)
    for one, present in zip(rows, found, strict=True):
        if len(present ^ had) == 1:
            alone |= dict.fromkeys(present - had, one)
        for text in present:
            tried[text] += 1
            if text not in shortest or one.template.length < shortest[text].template.length:
                shortest[text] = one

    def word(text: str) -> Word:
        n = place[text]
        change, error = (round(float(value), 2) + 0.0 for value in (changes[n], errors[n]))
        accuracy = alone[text].accuracy if text in alone else None
        beside = tuple(one for one in together[x[:, n].tobytes()] if one != text)
        return Word(text, change, error, accuracy, tried[text], settled(effects[n]), beside)

    unknown = _tied(texts, shortest, start)
    told = [text for text in texts if text not in unknown]
    sure = {t: abs(means[place[t]]) > max(_SURE * spreads[place[t]], _LEAST) for t in told}
    by_mean = sorted(told, key=lambda text: (-means[place[text]], text))
    helped = tuple(word(t) for t in by_mean if sure[t] and means[place[t]] > 0)
    hurt = tuple(word(t) for t in reversed(by_mean) if sure[t] and means[place[t]] < 0)
    low = max(1 / classes, start.accuracy / 4)
    return Words(
        helped,
        hurt,
        tuple(one.text for one in hurt if one.accuracy is not None and one.accuracy <= low),
        tuple(text for text in told if not sure[text]),
        unknown,
        left,
    )


def _effects(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(W, N) what each word does to each image.

    Args:
        x: (T, W) words that a template has and the start has not, 1; the other way round, -1.
        y: (T, N) changes against the start.
    """
    alone = np.abs(x).sum(axis=1) == 1
    times = np.abs(x[alone]).sum(axis=0)
    effects: npt.NDArray[np.float64] = x[alone].T @ y[alone] / np.maximum(times, 1)[:, None]
    left, rest = y[~alone] - x[~alone] @ effects, x[~alone] * (times == 0)
    return effects + _lasso(rest, left)


def _lasso(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(W, N) effects that explain y (T, N) by few words: least squares, reweighted.

    Each step is a ridge regression in which a word is free to do about as much, over the images, as
    it did in the step before.
    """
    size = np.ones(x.shape[1])
    for _ in range(_STEPS):
        spread = x * size
        effects = spread.T @ np.linalg.solve(spread @ x.T + _PENALTY * np.eye(len(x)), y)
        size = np.sqrt((effects**2).mean(axis=1))
    return effects


def _tied(texts: Sequence[str], shortest: dict[str, Scored], start: Scored) -> tuple[str, ...]:
    """Words whose shortest templates score alike on every image, in the largest such group.

    A template that is the shortest of several words says nothing of one of them.
    """
    groups: dict[bytes, list[str]] = defaultdict(list)
    shared = Counter(shortest[text].template for text in texts)
    for text in texts:
        if shared[shortest[text].template] > 1:
            continue
        change = (shortest[text].likelihoods - start.likelihoods).round(2) + 0.0
        groups[change.tobytes()].append(text)
    largest = max(groups.values(), key=len, default=[])
    return tuple(largest) if len(largest) >= _TIED else ()


@lru_cache(maxsize=20_000)
def units(text: str) -> frozenset[str]:
    """The words of a template: known phrases as the bank of probes has them, others alone."""
    return frozenset(_units(text.lower()))


def _units(text: str) -> Iterator[str]:
    for side, rest in zip(("left", "right"), text.split(SLOT, 1), strict=True):
        rest = f" {' '.join(_WORD.findall(rest))} "
        for words, phrase in _phrases()[side]:
            if words in rest:
                rest = rest.replace(words, " ")
                yield phrase
        yield from (word for word in rest.split() if word not in _STOP)


@cache
def _phrases() -> dict[str, list[tuple[str, str]]]:
    """What each phrase of the bank looks like on its side of the slot, the longest first."""
    sides: dict[str, list[tuple[str, str]]] = {"left": [], "right": []}
    for family in probe_bank().values():
        for phrase in family:
            left, right = phrase.split(SLOT, 1)
            side, words = ("left", left) if left else ("right", right)
            sides[side].append((f" {' '.join(_WORD.findall(words))} ", phrase))
    return {side: sorted(found, key=lambda one: -len(one[0])) for side, found in sides.items()}
