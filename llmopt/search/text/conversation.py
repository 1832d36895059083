"""What is said to the language model, turn by turn.

The wording lives in ``prompts/meta/``; this module fills it in and keeps the history within
bounds. Scored templates are always written one a line as ``- TEXT (score -0.51, accuracy 58.3%)``,
and words that were tried as ``* WORD: +0.31 ± 0.04``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from string import Template as Wording
from typing import TYPE_CHECKING, Any

import numpy as np

from llmopt.resources import read_lines, read_prompt
from llmopt.search.text.archive import Scored
from llmopt.search.text.policy import Purpose, separate
from llmopt.search.text.selection import is_better
from llmopt.search.text.words import Word, Words
from llmopt.template import SLOT

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

CLASSES_SHOWN = 40
WORDS_SHOWN = 12  # of those that helped, and of those that hurt
REPLY_CHARS = 4000  # of a reply that is sent along later; a useful one is shorter


@dataclass(frozen=True)
class Picture:
    """An image to show to a model that can see, with what is to be said of it."""

    jpeg: bytes
    caption: str


@dataclass(frozen=True)
class Batch:
    """What became of a turn's proposals.

    Attributes:
        results: those that were scored.
        before: the best template before them.
        notes: what the best of them wins and loses.
        rejected: those that could not be used, with reasons.
    """

    results: Sequence[Scored] = ()
    before: Scored | None = None
    notes: Sequence[str] = ()
    rejected: Sequence[str] = ()


@dataclass(frozen=True)
class Known:
    """What a turn tells of what is known.

    Attributes:
        start: the user's template.
        best: templates known in this conversation, best first.
        words: the word table.
        confusions: pairs of classes that several images confuse.
        pictures: for models that see.
        number: of the conversation; each begins to look elsewhere.
    """

    start: Scored
    best: Sequence[Scored]
    words: Words
    confusions: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    number: int = 0


@dataclass
class Conversation:
    """One conversation with the model.

    Attributes:
        classnames: of the task.
        about: what the pictures are, in their owner's words; may be empty.
        scores: whether scores are shown.
        memory: whether earlier turns are sent along; without it each turn stands alone.
        shown: the most templates, or groups of them, in the list of the best.
        max_turns: how many earlier turns are sent at most; older ones are forgotten.
    """

    classnames: Sequence[str]
    about: str = ""
    scores: bool = True
    memory: bool = True
    shown: int = 6
    max_turns: int = 20
    _history: list[tuple[BaseMessage, BaseMessage]] = field(default_factory=list)
    _asked: BaseMessage | None = None
    _told: frozenset[tuple[str, str]] = frozenset()

    def __len__(self) -> int:
        """Turns remembered."""
        return len(self._history)

    def turn(
        self, purpose: Purpose, count: int, known: Known, last: Batch | None = None
    ) -> list[BaseMessage]:
        """The messages of the next turn.

        Args:
            purpose: what it is for.
            count: how many templates are asked for.
            known: what is told.
            last: what became of the turn before, where there was one.
        """
        from langchain_core.messages import HumanMessage

        first = not self._history
        if first:
            self._told = frozenset()
        fill = {
            "about": self.about and f"What the images are, in their owner's words: {self.about}\n",
            "classes": enumerate_names(self.classnames),
            "images": str(len(known.start.likelihoods)),
            "start": self._line(known.start) if self.scores else f'"{known.start.template.text}"',
            "confusions": _paragraph("The classes it confuses most:", known.confusions),
            "words": "\n".join(self._words(known.words)),
            "good": "\n".join(self._best(known)),
            "results": "\n".join(self._results(last or Batch())),
            "rejected": _paragraph("Without a score:", last.rejected if last else ()),
            "purpose": purpose_of(purpose, count, known),
        }
        text = Wording(read_prompt(f"meta/{'first' if first else 'next'}.txt"))
        asked = _squeeze(text.safe_substitute(fill))
        pictures = known.pictures
        self._asked = HumanMessage(_with_pictures(asked, pictures) if pictures else asked)
        return self._messages(self._asked)

    def heard(self, reply: str) -> None:
        """Remember what the model answered."""
        from langchain_core.messages import AIMessage

        if self._asked is not None and self.memory:
            self._history.append((self._asked, AIMessage(reply[:REPLY_CHARS])))
            del self._history[: -self.max_turns]
        self._asked = None

    def compact(self) -> list[BaseMessage] | None:
        """The messages of this turn with the older half of the history forgotten.

        None if there is nothing left to forget.
        """
        if not self._history or self._asked is None:
            return None
        self._history = self._history[(len(self._history) + 1) // 2 :]
        self._told = frozenset()  # what was told of words is told again
        return self._messages(self._asked)

    def _messages(self, asked: BaseMessage) -> list[BaseMessage]:
        from langchain_core.messages import SystemMessage

        history = [message for pair in self._history for message in pair]
        return [SystemMessage(read_prompt("meta/system.txt")), *history, asked]

    # --- parts of a message ------------------------------------------------------------------

    def _line(self, scored: Scored, more: str = "") -> str:
        """A template as a list item, with its scores or without."""
        if not self.scores:
            return f"- {scored.template.text}"
        return line(scored, more)

    def _best(self, known: Known) -> Iterator[str]:
        """The templates better than the start, best first, one line for all that score alike."""
        better = [o for o in known.best if is_better(o.likelihoods, known.start.likelihoods)]
        if not better:
            yield "No template is better than the start beyond noise.\n"
            return
        groups: dict[tuple[float, float], list[Scored]] = {}
        for one in better:
            groups.setdefault((one.score, one.accuracy), []).append(one)
        yield "The best so far, one line for each score:"
        for group in list(groups.values())[: self.shown]:
            more = len(group) - 1
            like_it = f"and {more} more wording{'s' * (more > 1)} like it"
            yield self._line(group[0], like_it if more else "")
        yield ""

    def _results(self, last: Batch) -> Iterator[str]:
        """The last proposals, best first, each with its change against the best before."""
        if not last.results or last.before is None:
            yield "None of your last templates could be used."
            return
        ranked = sorted(last.results, key=lambda one: one.rank, reverse=True)
        yield (
            "Your last templates, best first, each with its change against the best before them, "
            f'"{last.before.template.text}":'
        )
        changes = [change_of(one, last.before) for one in ranked]
        yield from (self._line(one, c) for one, c in zip(ranked, changes, strict=True))
        if len(ranked) > 1 and len({one.score for one in ranked}) == 1:
            yield "All of them tie: the words in which they differ change nothing."
        yield from last.notes
        yield ""

    def _words(self, words: Words) -> Iterator[str]:
        """The word table; in later turns what is new in it."""
        groups = {
            "helped": words.helped[:WORDS_SHOWN],
            "hurt": [w for w in words.hurt if w.text not in words.opposite][:WORDS_SHOWN],
            "opposite": [w for w in words.hurt if w.text in words.opposite][:WORDS_SHOWN],
        }
        shown = {word.text for group in groups.values() for word in group}
        rest = {
            "helped less": [word.text for word in words.helped if word.text not in shown],
            "hurt less": [word.text for word in words.hurt if word.text not in shown],
            "unsure": words.unsure,
            "unknown": words.unknown,
            "dropped": words.dropped,
        }
        now = {(kind, word.text) for kind, group in groups.items() for word in group}
        now |= {(kind, text) for kind, texts in rest.items() for text in texts}
        for kind, group in groups.items():
            new = [word for word in group if (kind, word.text) not in self._told]
            if new:
                yield _TITLES[kind]
                yield from (self._word(word) for word in new)
        for kind, texts in rest.items():
            fresh = [text for text in texts if (kind, text) not in self._told]
            if fresh:
                yield _TITLES[kind]
                yield from by_place(fresh)
        if not words.helped and not self._told:
            yield "No word helped beyond its noise."
        yield ""
        self._told = frozenset(now)

    def _word(self, word: Word) -> str:
        if not self.scores:
            return f"* {word.text}"
        alone = "" if word.accuracy is None else f", accuracy {100 * word.accuracy:.1f}%"
        others = f", always beside {', '.join(word.beside)}" if word.beside else ""
        return f"* {word.text}: {word.change:+.2f} ± {word.error:.2f}{alone}{others}"


_PLACES = ("opening", "before {}", "after {}", "after a comma", "anywhere")

_TITLES = {
    "helped": "Words that helped, each with its change in score against the start:",
    "hurt": "Words that hurt:",
    "opposite": "Words with which hardly an image is right, so the opposite of them may be true:",
    "helped less": "Words that helped less:",
    "hurt less": "Words that hurt less:",
    "unsure": "Words whose effect, if they have one, these images can't tell from noise:",
    "unknown": "Words with the very same scores, each of them, so the model may not know them:",
    "dropped": "Words clearly not among the best on a few images:",
}


def purpose_of(purpose: Purpose, count: int, known: Known) -> str:
    """What the turn is for, in words."""
    properties = ", ".join(f'"{text}"' for text in separate(known.best[0], known.words)[:4])
    angles = read_lines("meta/turns/angles.txt")
    wording = Wording(read_prompt(f"meta/turns/{purpose}.txt"))
    return wording.safe_substitute(
        count=str(count),
        best=known.best[0].template.text,
        properties=properties,
        angle=angles[known.number % len(angles)],
    ).strip()


def by_place(phrases: Iterable[str]) -> list[str]:
    """Words and phrases by their place in the sentence, one line each."""
    places: dict[str, list[str]] = {place: [] for place in _PLACES}
    for phrase in phrases:
        left, _, right = (side.strip() for side in phrase.partition(SLOT))
        if right.startswith(","):
            places["after a comma"].append(right.removeprefix(",").strip())
        elif right:
            places["after {}"].append(right)
        elif SLOT not in phrase:
            places["anywhere"].append(left)
        else:
            places["opening" if " " in left else "before {}"].append(left)
    return [f"* {place}: {'; '.join(found)}" for place, found in places.items() if found]


def change_of(scored: Scored, before: Scored) -> str:
    """By how much the score differs from that of another template, and whether that is noise."""
    gains = scored.likelihoods - before.likelihoods
    mean = float(gains.mean())
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else abs(mean)
    mean, error = round(mean, 2) + 0.0, round(error, 2)
    return f"{mean:+.2f}, within noise" if abs(mean) <= error else f"{mean:+.2f} ± {error:.2f}"


def rephrase(count: int) -> BaseMessage:
    """What is added once when the model declines."""
    from langchain_core.messages import HumanMessage

    return HumanMessage(Wording(read_prompt("meta/rephrase.txt")).safe_substitute(count=str(count)))


def line(scored: Scored, more: str = "") -> str:
    """A template as a list item, with its scores and what else is to be said of it."""
    score = f"{scored.score:.2f}" if scored.score <= -0.1 else f"{scored.score}"
    parts = [f"score {score}", f"accuracy {100 * scored.accuracy:.1f}%"]
    return f"- {scored.template.text} ({', '.join([*parts, *filter(None, [more])])})"


def enumerate_names(names: Sequence[str], limit: int = CLASSES_SHOWN) -> str:
    """Class names as a list for reading, cut when there are many."""
    shown = ", ".join(name.replace("_", " ") for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _with_pictures(text: str, pictures: Iterable[Picture]) -> list[str | dict[Any, Any]]:
    """A message that shows pictures."""
    pictures = list(pictures)
    captions = "\n".join(f"{n}. {picture.caption}" for n, picture in enumerate(pictures, 1))
    note = Wording(read_prompt("meta/images.txt")).safe_substitute(captions=captions)
    parts: list[str | dict[Any, Any]] = [{"type": "text", "text": f"{text}\n\n{note.strip()}"}]
    for picture in pictures:
        data = base64.b64encode(picture.jpeg).decode("ascii")
        url = {"url": f"data:image/jpeg;base64,{data}"}
        parts.append({"type": "image_url", "image_url": url})
    return parts


def _paragraph(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"* {text}" for text in lines), ""]) if lines else ""


def _squeeze(text: str) -> str:
    """No run of blank lines where a part stayed empty."""
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip()
