"""The built-in rewriter: word statistics behind a chat interface.

It is no language model. Like one, it sees nothing but the messages: it reads the listed templates
and scores, estimates which words and phrases help, and writes new templates by inserting,
replacing, deleting and recombining phrases with a vocabulary of its own
(``prompts/builtin/vocabulary.txt``). It makes llmopt work without key or network, and it is the
control that a language model has to beat.

The estimate is a Bayesian linear model of the score over the phrases of a template, so the effect
of a phrase is its mean difference shrunk towards nothing by how seldom it was seen. Most proposals
come from Thompson sampling: draw one set of effects from the posterior, write the template it likes
best. What was never tried has wide effects and gets its turn; what helps is kept.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate, chain
from typing import Any, ClassVar

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from llmopt.sentences import Sentence, phrase_features, vocabulary
from llmopt.stats import settled
from llmopt.template import PLAIN, SLOT

NAME = "builtin"

_SCORED = re.compile(r"^- (?P<text>.*\{\}.*) \(score (?P<score>-?\d+\.\d+), accuracy [\d.]+%.*\)$")
_LISTED = re.compile(r"^- (?P<text>.*\{\}.*)$")
_WORD = re.compile(r"^\* (?P<phrase>[^:;]*\{\}[^:;]*): (?P<change>[+-]\d+\.\d+) ± ")
_IDLE = re.compile(r"^\* (?P<place>opening|before \{\}|after \{\}|after a comma): (?P<words>.+)$")
_PLACES = {
    "opening": "$ {}", "before {}": "$ {}", "after {}": "{} $", "after a comma": "{}, $",
}  # fmt: skip
_COUNT = re.compile(r"\b[Ww]rite (\d+)\b")

_PRIOR = 1.0  # standard deviation of a phrase's effect, in standard deviations of the score
_NOISE = 1.0  # of what phrases do not explain
_EDITS = 100  # variants looked at for each edited proposal
_KINDS = tuple(accumulate((0.65, 0.15, 0.2)))  # of proposals: composed, edited, exploiting
_MAX_BEFORE, _MAX_WORDS = 4, 15


def open_builtin(model: str = "", *, seed: int = 0, **others: Any) -> BuiltinRewriter:
    """The rewriter, as ``--llm builtin`` names it."""
    return BuiltinRewriter(seed=seed)


class BuiltinRewriter(BaseChatModel):
    """A chat model that rewrites templates by word statistics.

    Attributes:
        seed: the same messages and seed give the same reply, the first time they are asked; asked
            again, another, as of a model that samples.
    """

    llmopt_local: ClassVar[bool] = True
    llmopt_knows: ClassVar[bool] = False
    seed: int = 0

    @property
    def _llm_type(self) -> str:
        return "llmopt-builtin"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": NAME, "seed": self.seed}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        texts = [str(message.text) for message in messages]
        told = (run_manager.metadata if run_manager else None) or {}
        again = [str(told["llmopt_sample"])] if told.get("llmopt_sample") else []
        digest = hashlib.sha256("\0".join([str(self.seed), *texts, *again]).encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        count = int(found[-1]) if (found := _COUNT.findall(texts[-1])) else 1
        reply = "\n".join(f"- {text}" for text in propose(read_scores(texts), count, rng))
        # Words stand in for tokens: there is no tokenizer, and no bill.
        words_in = sum(len(text.split()) for text in texts)
        message = AIMessage(
            reply,
            usage_metadata={
                "input_tokens": words_in,
                "output_tokens": len(reply.split()),
                "total_tokens": words_in + len(reply.split()),
            },
            response_metadata={"model_name": NAME, "finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def read_scores(texts: Sequence[str]) -> dict[str, float]:
    """Score by template from all messages. In lists without scores, being listed first is good.

    A word in a table of words stands for the first template of the message with that word in it.
    """
    scores: dict[str, float] = {}
    listed: dict[str, float] = {}
    start: tuple[str, float] | None = None
    for text in texts:
        value, in_list = 1.0, False
        for raw in text.splitlines():
            row = raw.strip()
            if match := _SCORED.match(row):
                scores[match["text"]] = float(match["score"])
                start = start or (match["text"], float(match["score"]))
            elif start and (match := _WORD.match(row)):
                _add(scores, *start, match["phrase"], float(match["change"]))
            elif start and (match := _IDLE.match(row)):
                for words in match["words"].split("; "):
                    _add(scores, *start, _PLACES[match["place"]].replace("$", words), 0.0)
            elif match := _LISTED.match(row):
                listed[match["text"]] = value
                in_list = True
            elif in_list and row:
                value, in_list = -1.0, False
    return scores or listed


def _add(scores: dict[str, float], start: str, score: float, phrase: str, change: float) -> None:
    """What a word does to the start, as the score of a template; one that was seen stays."""
    if SLOT in phrase:
        scores.setdefault(str(Sentence.parse(start).with_phrase(phrase)), score + change)


def propose(scores: dict[str, float], count: int, rng: np.random.Generator) -> list[str]:
    """Write ``count`` new templates: most composed anew to explore, the rest edits of the best."""
    if not scores:
        scores = {PLAIN: 0.0}
    model = _Effects(scores)
    ranked = sorted(scores, key=lambda text: -scores[text])
    parents = [Sentence.parse(text) for text in [*ranked[:6], PLAIN]]
    seen = {text.lower() for text in scores}
    proposals: list[str] = []
    for _ in range(count):
        kind = ("compose", "edit", "exploit")[bisect(_KINDS, rng.random())]
        # Exploiting takes the estimates at their word; the others explore.
        effects = model.mean() if kind == "exploit" else model.sample(rng)
        if kind == "compose":
            drafts = [str(_compose(effects, rng)) for _ in range(4)]
        else:
            drafts = [str(_edit(parents, rng)) for _ in range(_EDITS)]
        fresh = [d for d in dict.fromkeys(drafts) if d.lower() not in seen and _usable(d)]
        if fresh:
            chosen = max(fresh, key=lambda text: effects(Sentence.parse(text).features()))
            seen.add(chosen.lower())
            proposals.append(chosen)
    return proposals


def _compose(effects: _Drawn, rng: np.random.Generator) -> Sentence:
    """The sentence this draw of effects likes best, with some parts left out by chance."""
    count = int(rng.integers(3, _MAX_BEFORE + 1))
    before = effects.ranked("before")[:count]
    parts = {
        part: effects.ranked(part)[0]
        for part, chance in (("frame", 0.3), ("after", 0.6), ("tail", 0.2))
        if rng.random() < chance
    }
    return Sentence(
        frame=parts.get("frame", "a photo of"),
        article="a",
        before=tuple(before[i] for i in rng.permutation(count)),
        after=parts.get("after", ""),
        tail=parts.get("tail", ""),
    )


class _Effects:
    """Bayesian linear regression of the score on phrases, in its dual form.

    Effects are rounded: phrases that were only seen together are equally good on every machine.
    """

    def __init__(self, scores: dict[str, float]) -> None:
        self._rows = [Sentence.parse(text).features() for text in scores]
        values = np.array(list(scores.values()))
        spread = values.std()
        self._y = (values - values.mean()) / (spread if spread > 0 else 1.0)
        names = sorted(frozenset().union(*self._rows))
        self._column = {name: i for i, name in enumerate(names)}
        self._x = np.zeros((len(self._rows), len(names)))
        for i, row in enumerate(self._rows):
            self._x[i, [self._column[name] for name in row]] = 1
        gram = _PRIOR**2 * self._x @ self._x.T + _NOISE**2 * np.eye(len(self._rows))
        self._solve = np.linalg.inv(gram)

    def mean(self) -> _Drawn:
        """The posterior mean; phrases never seen have no effect."""
        weights = _PRIOR**2 * self._x.T @ (self._solve @ self._y)
        return _Drawn(self._column, settled(weights), None)

    def sample(self, rng: np.random.Generator) -> _Drawn:
        """One draw from the posterior (Matheron's rule); unseen phrases come from the prior."""
        prior = rng.normal(0, _PRIOR, len(self._column))
        noise = rng.normal(0, _NOISE, len(self._y))
        residual = self._y - self._x @ prior - noise
        weights = prior + _PRIOR**2 * self._x.T @ (self._solve @ residual)
        return _Drawn(self._column, settled(weights), rng)


class _Drawn:
    """Effects of phrases; calling it with features gives their sum.

    What it has said it says again: a phrase never seen gets its effect when first asked for.
    """

    def __init__(
        self, column: dict[str, int], weights: Any, rng: np.random.Generator | None
    ) -> None:
        self._weights: dict[str, float] = dict(zip(column, weights.tolist(), strict=True))
        self._rng = rng
        self._ranked: dict[str, list[str]] = {}

    def __call__(self, features: Iterable[str]) -> float:
        names = sorted(features)
        self._meet(names)
        return sum(map(self._weights.__getitem__, names))

    def ranked(self, part: str) -> list[str]:
        """The vocabulary's phrases for a part of a sentence, the best first."""
        if part not in self._ranked:
            phrases = _names(part)
            self._meet(dict.fromkeys(chain.from_iterable(phrases.values())))
            effect = self._weights.__getitem__
            self._ranked[part] = sorted(phrases, key=lambda p: -sum(map(effect, phrases[p])))
        return self._ranked[part]

    def _meet(self, names: Iterable[str]) -> None:
        """Give each name that has none an effect."""
        if new := [name for name in names if name not in self._weights]:
            drawn = self._rng.normal(0, _PRIOR, len(new)) if self._rng else np.zeros(len(new))
            self._weights.update(zip(new, drawn.tolist(), strict=True))


@cache
def _names(part: str) -> dict[str, list[str]]:
    """The names of each of the vocabulary's phrases for a part of a sentence."""
    return {phrase: sorted(phrase_features(part, phrase)) for phrase in vocabulary()[part]}


def _edit(parents: Sequence[Sentence], rng: np.random.Generator) -> Sentence:
    """A variant of a good template after one to three changes."""
    sentence = parents[min(int(rng.exponential(2.0)), len(parents) - 1)]
    for _ in range(int(rng.integers(1, 4))):
        sentence = _EDIT_KINDS[bisect(_EDIT_ODDS, rng.random())](sentence, parents, rng)
    return sentence


def _insert(sentence: Sentence, parents: Sequence[Sentence], rng: np.random.Generator) -> Sentence:
    if len(sentence.before) >= _MAX_BEFORE:
        return _replace(sentence, parents, rng)
    at = int(rng.integers(len(sentence.before) + 1))
    before = (*sentence.before[:at], _draw("before", rng), *sentence.before[at:])
    return replace(sentence, before=before, article=sentence.article or "a")


def _replace(sentence: Sentence, parents: Sequence[Sentence], rng: np.random.Generator) -> Sentence:
    if not sentence.before:
        return replace(sentence, before=(_draw("before", rng),), article=sentence.article or "a")
    at = int(rng.integers(len(sentence.before)))
    before = (*sentence.before[:at], _draw("before", rng), *sentence.before[at + 1 :])
    return replace(sentence, before=before)


def _delete(sentence: Sentence, parents: Sequence[Sentence], rng: np.random.Generator) -> Sentence:
    present = [part for part in ("frame", "before", "after", "tail") if getattr(sentence, part)]
    if not present:
        return sentence
    part = present[int(rng.integers(len(present)))]
    if part != "before":
        cleared: dict[str, Any] = {part: ""}
        return replace(sentence, **cleared)
    at = int(rng.integers(len(sentence.before)))
    return replace(sentence, before=sentence.before[:at] + sentence.before[at + 1 :])


def _place(sentence: Sentence, parents: Sequence[Sentence], rng: np.random.Generator) -> Sentence:
    return replace(sentence, after=_draw("after", rng))


def _reframe(sentence: Sentence, parents: Sequence[Sentence], rng: np.random.Generator) -> Sentence:
    return replace(sentence, frame=_draw("frame", rng), article=sentence.article or "a")


def _end(sentence: Sentence, parents: Sequence[Sentence], rng: np.random.Generator) -> Sentence:
    return replace(sentence, tail=_draw("tail", rng))


def _recombine(
    sentence: Sentence, parents: Sequence[Sentence], rng: np.random.Generator
) -> Sentence:
    other = parents[int(rng.integers(len(parents)))]
    return replace(sentence, after=other.after, tail=other.tail)


_EDIT_KINDS = (_insert, _replace, _delete, _place, _reframe, _end, _recombine)
_EDIT_ODDS = tuple(accumulate((0.27, 0.2, 0.2, 0.13, 0.08, 0.05, 0.07)))


def _draw(section: str, rng: np.random.Generator) -> str:
    phrases = vocabulary()[section]
    return phrases[int(rng.integers(len(phrases)))]


def _usable(text: str) -> bool:
    return len(text.split()) <= _MAX_WORDS
