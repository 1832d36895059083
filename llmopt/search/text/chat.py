"""Hill climbing with a chat model (Liu et al., CVPR 2024), in two profiles.

``conversation`` (default): several restarts, each a conversation. Every turn shows the best and the
worst templates with their scores, what the last proposals did, and the most confused classes; the
reply's templates are scored and join the archive. Candidates rank by the mean log-likelihood of the
true class on the training images, because with few images accuracy cannot tell them apart. The
final choice is among few finalists and the start, on training and validation images together
(:mod:`llmopt.search.text.selection`).

``released``: what the authors' code does: one restart, a pool of 80, three best and three worst
templates without scores in a single turn, one new template a call, ten iterations, up to 15 tries
for a usable reply, ranking by training accuracy (older templates first among equals there; here
the better likelihood goes first, or ties would never be broken).

Counts as queries: K text encodings and N * K pairs per new template; every call to the chat model,
usable or not.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from llmopt.errors import BudgetExhausted, ConfigError, ContentRefused, ContextOverflow
from llmopt.resources import read_lines, read_prompt
from llmopt.search.base import Bounds, Optimizer, Outcome, Search
from llmopt.search.text.aliases import PROPOSED, find_aliases
from llmopt.search.text.archive import FITNESS, Archive, Scored, evaluate
from llmopt.search.text.conversation import Conversation, Lists, Picture, rephrase, single_turn
from llmopt.search.text.replies import MAX_CHARS, ParsedReply, parse_reply
from llmopt.search.text.selection import FINALISTS, as_good, choose, second_look
from llmopt.sentences import Sentence
from llmopt.spend.events import Progress
from llmopt.task import Task
from llmopt.template import Template
from llmopt.vision.base import Access

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

POLISH = 24  # templates that taking out phrases may cost
LISTS = ("good", "good+bad", "good+random")


@dataclass(frozen=True)
class ChatSettings:
    """Settings of ``chat``.

    Attributes:
        profile: ``conversation`` or ``released``.
        restarts: conversations, each with a fresh pool.
        iterations: turns of each.
        pool: templates a conversation starts from, the user's start among them.
        proposals: templates asked for in a turn.
        k: length of each list shown.
        lists: ``good``, ``good+bad`` or ``good+random``.
        conversational: send the history along; without it every turn stands alone.
        scores: show scores beside the templates.
        confusions: how many confused pairs of classes are named; 0 for none.
        fitness: ``likelihood`` or ``accuracy``.
        tries: replies without a usable template before a conversation gives up.
        finalists: candidates of the final choice, the start not counted.
        ensemble: combine up to this many finalists; 1 is a single template.
        polish: at the end, take phrases out of the best template as long as it does not suffer.
        aliases: at the end, ask for other names of up to this many confused classes, and use
            those that help.
        images: images the best template gets wrong that are shown in each turn, for models that
            can see; 0 for none.
        parallel: conversations held at the same time; the result does not depend on it.
    """

    profile: str = "conversation"
    restarts: int = 2
    iterations: int = 10
    pool: int = 12
    proposals: int = 8
    k: int = 6
    lists: str = "good+bad"
    conversational: bool = True
    scores: bool = True
    confusions: int = 5
    fitness: str = "likelihood"
    tries: int = 3
    finalists: int = FINALISTS
    ensemble: int = 1
    polish: bool = True
    aliases: int = 0
    images: int = 0
    parallel: int = 1

    def __post_init__(self) -> None:
        for name in (
            "restarts", "pool", "proposals", "k", "tries", "finalists", "ensemble", "parallel",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"setting {name}={getattr(self, name)} must be 1 or more")
        for name in ("iterations", "confusions", "aliases", "images"):
            if getattr(self, name) < 0:
                raise ConfigError(f"setting {name}={getattr(self, name)} must be 0 or more")
        for name, known in (("lists", LISTS), ("fitness", FITNESS)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"setting {name}={getattr(self, name)!r} must be one of: {', '.join(known)}"
                )


@dataclass
class _Climb:
    """What one conversation came to."""

    archive: Archive
    counts: Counter[str] = field(default_factory=Counter)
    stop_reason: str = "iterations"


class Chat(Optimizer[ChatSettings]):
    """Hill climbing with a chat model."""

    name = "chat"
    access = Access.LABELS
    needs_chat = True
    Settings = ChatSettings
    PROFILES: ClassVar = {
        "conversation": {},
        "released": {
            "restarts": 1,
            "iterations": 10,
            "pool": 80,
            "proposals": 1,
            "k": 3,
            "conversational": False,
            "scores": False,
            "confusions": 0,
            "fitness": "accuracy",
            "tries": 15,
            "polish": False,
        },
    }
    ONLY: ClassVar = dict.fromkeys(
        ("conversational", "scores", "confusions", "images"), frozenset({"conversation"})
    )

    def bounds(self, task: Task) -> Bounds:
        """Upper bounds: every proposal new, every conversation at its full length."""
        s = self.settings
        templates = s.restarts * (s.pool + s.iterations * s.proposals) + s.polish * POLISH
        images = len(task.train) + len(task.val)
        classes = len(task.classnames)
        return Bounds(
            image_encodings=images,
            text_encodings=templates * classes
            + s.aliases * PROPOSED
            + second_look(task, min(s.finalists + 1, templates)),
            pairs_scored=templates * classes * images,
            llm_calls=s.restarts * s.iterations * (s.tries if s.profile == "released" else 1)
            + s.aliases,
        )

    def talk(self, task: Task) -> tuple[int, int]:
        """Turns whose history is sent along, and bytes of the longest turn."""
        s = self.settings
        wording = len(read_prompt("meta/system.txt")) + len(read_prompt("meta/next.txt"))
        names = sum(len(name.encode()) + 2 for name in task.classnames)
        listed = 2 * s.k + 4 * s.proposals + 10
        turns = s.iterations if s.conversational else 1
        return turns, wording + 4 * names + listed * (MAX_CHARS + 40) + 50_000 * s.images

    def run(self, search: Search) -> Outcome:
        """Hold the conversations, then choose."""
        restarts = range(self.settings.restarts)
        if self.settings.parallel == 1:
            climbs = [self._climb(search, restart) for restart in restarts]
        else:
            with ThreadPoolExecutor(self.settings.parallel) as pool:
                climbs = list(pool.map(lambda restart: self._climb(search, restart), restarts))
        found = _ranked(one for climb in climbs for one in climb.archive.ranked())
        if self.settings.polish and found:
            found = polish(search, found, self.settings.fitness)
        choice = choose(
            search, found, finalists=self.settings.finalists, ensemble=self.settings.ensemble
        )
        predictor = choice.predictor
        counts = sum((climb.counts for climb in climbs), Counter())
        if self.settings.aliases:
            template = predictor.templates[0]
            names = find_aliases(search, template, self.settings.aliases, counts)
            predictor = dataclasses.replace(predictor, classnames=tuple(names))
        reasons = [climb.stop_reason for climb in climbs if climb.stop_reason != "iterations"]
        return Outcome(
            predictor,
            stop_reason=reasons[0] if reasons else "iterations",
            fallback=choice.fallback,
            templates=choice.templates,
            summary=dict(counts),
        )

    def _climb(self, search: Search, restart: int) -> _Climb:
        """One conversation: pool, then turn after turn."""
        s, task = self.settings, search.task
        stream = f"restart-{restart + 1}"
        archive = Archive(search, stream, s.fitness)
        climb = _Climb(archive)
        rng = search.rng("chat", restart)
        talk = Conversation(task.classnames, scores=s.scores, memory=s.conversational)
        try:
            archive.score(archive.fresh([task.start, *draw_pool(s.pool - 1, rng)]))
            results: list[Scored] = []
            notes: list[str] = []
            fruitless = 0
            for iteration in range(s.iterations):
                incumbent = archive.best()
                self._report(search, climb, restart, iteration)
                while True:
                    messages = self._messages(archive, talk, results, notes, task, rng)
                    parsed = self._ask(search, talk, messages, stream, iteration, climb.counts)
                    new = archive.fresh(parsed.templates)[: 4 * s.proposals]
                    tally(climb.counts, parsed, new)
                    results = archive.score(new)
                    notes = _notes(parsed, new, results, incumbent, task)
                    fruitless = 0 if new else fruitless + 1
                    # The released code asks again until a reply is usable.
                    if new or s.profile != "released" or fruitless >= s.tries:
                        break
                if fruitless >= s.tries:
                    climb.stop_reason = f"{fruitless} replies in a row without a new template"
                    break
        except BudgetExhausted as spent:
            climb.stop_reason = (
                "interrupted" if spent.currency == "interrupted" else f"budget: {spent.currency}"
            )
        except ContextOverflow:
            climb.stop_reason = "the model takes no conversation of this length"
        self._report(search, climb, restart, s.iterations)
        return climb

    def _messages(
        self,
        archive: Archive,
        talk: Conversation,
        results: Sequence[Scored],
        notes: Sequence[str],
        task: Task,
        rng: np.random.Generator,
    ) -> list[BaseMessage]:
        s = self.settings
        lists = _lists(archive, s.k, s.lists, rng)
        if s.profile == "released":
            return single_turn(lists.good, lists.others, s.proposals)
        pairs = _confusions(lists.good[0], task, s.confusions)
        pictures = _mistakes(lists.good[0], task, s.images)
        return talk.turn(lists, s.proposals, results, notes, pairs, pictures)

    def _ask(
        self,
        search: Search,
        talk: Conversation,
        messages: list[BaseMessage],
        stream: str,
        turn: int,
        counts: Counter[str],
    ) -> ParsedReply:
        """One call: compact the conversation if it grew too long, rephrase once if refused."""
        assert search.chat is not None  # the engine sees to it
        refused = False
        while True:
            try:
                reply = search.chat.ask(messages, stream=stream, turn=turn)
            except ContextOverflow:
                counts["compactions"] += 1
                if not talk.compact():
                    raise
                messages = [messages[0], *messages[-(1 + refused + 2 * len(talk)) :]]
                continue
            except ContentRefused:
                counts["refusals"] += 1
                if refused:
                    return parse_reply("")
                refused = True
                messages = [*messages, rephrase(self.settings.proposals)]
                continue
            counts["calls"] += 1
            talk.heard(reply.text)
            return parse_reply(reply.text, search.task.classnames, self._check(search))

    def _check(self, search: Search):  # type: ignore[no-untyped-def]
        return lambda template: search.box.check(template, search.task.classnames)

    def _report(self, search: Search, climb: _Climb, restart: int, iteration: int) -> None:
        if not len(climb.archive):
            return
        best = climb.archive.best()
        search.on_progress(
            Progress(
                step=restart * self.settings.iterations + iteration,
                steps=self.settings.restarts * self.settings.iterations,
                best=best.template.text,
                train_accuracy=best.accuracy,
                val_accuracy=_validation_accuracy(search, best.template),
                score=best.fitness,
                note=f"conversation {restart + 1} of {self.settings.restarts}",
            )
        )


def draw_pool(size: int, rng: np.random.Generator) -> list[Template]:
    """Caption-like templates, deliberately uninformative, as the paper starts from."""
    captions = read_lines("templates/captions.txt")
    picks = rng.choice(len(captions), size=min(size, len(captions)), replace=False)
    return [Template(captions[i]) for i in picks]


def polish(search: Search, found: list[Scored], fitness: str) -> list[Scored]:
    """Take phrases out of the best template as long as it does not suffer.

    A shorter template says what mattered, and is less likely to owe its score to chance. Phrases
    are left out one by one; then the least useful ones together, and the shortest template that is
    as good (:func:`~llmopt.search.text.selection.as_good`) is taken. Twice, because phrases that
    seemed useful beside others may not be so alone.
    """
    archive = Archive(search, "polish", fitness)
    best = reference = found[0]
    start = next((one for one in found if one.template == search.task.start), reference)
    try:
        for _ in range(2):
            sentence = Sentence.parse(best.template.text)
            single = {name: _template(s) for name, s in sentence.shorter().items()}
            archive.score(archive.fresh(single.values())[: POLISH - len(archive)])
            known = {name: one for name, t in single.items() if (one := archive.find(t))}
            nested, reduced = [], sentence
            for name in sorted(known, key=lambda name: known[name].fitness, reverse=True):
                reduced = reduced.shorter().get(name, reduced)
                nested.append(_template(reduced))
            archive.score(archive.fresh(nested)[: POLISH - len(archive)])
            fine = [
                one
                for one in archive.ranked()
                if as_good(one.likelihoods, reference.likelihoods, start.likelihoods)
            ]
            if not fine:
                break
            best = min(fine, key=lambda one: len(one.template.text.split()))
    except BudgetExhausted:
        pass
    # The shortest goes first: it is a finalist whatever its rank.
    return [best, *(one for one in _ranked([*found, *archive.ranked()]) if one is not best)]


def _template(sentence: Sentence) -> Template:
    return Template(str(sentence))


def _ranked(scored: Iterable[Scored]) -> list[Scored]:
    """Each template once, best first."""
    first: dict[str, Scored] = {}
    for one in scored:
        first.setdefault(one.template.normal, one)
    return sorted(first.values(), key=lambda one: (one.fitness, one.logprob), reverse=True)


def tally(counts: Counter[str], parsed: ParsedReply, new: Sequence[Template]) -> None:
    """Count what became of a reply's templates."""
    counts["proposals"] += len(parsed.templates) + len(parsed.rejected)
    counts["scored"] += len(new)
    counts["duplicates"] += len(parsed.templates) - len(new)
    for rejection in parsed.rejected:
        counts["duplicates" if rejection.reason == "duplicate" else rejection.reason] += 1


def _lists(archive: Archive, k: int, kind: str, rng: np.random.Generator) -> Lists:
    """The lists of a turn; they never overlap, however small the archive."""
    ranked = archive.ranked()
    k = max(1, min(k, len(ranked) // 2))
    good, rest = ranked[:k], ranked[k:]
    if kind == "good" or not rest:
        return Lists(good)
    if kind == "good+random":
        picks = rng.choice(len(rest), size=min(k, len(rest)), replace=False)
        return Lists(good, [rest[i] for i in picks], "Other templates, in no order:")
    return Lists(good, rest[: -k - 1 : -1])


def _confusions(best: Scored, task: Task, limit: int) -> list[str]:
    """The most frequent mistakes of the best template on the training images."""
    pairs: Counter[tuple[int, int]] = Counter()
    for true, predicted in zip(task.train.labels.tolist(), best.predicted.tolist(), strict=True):
        if true != predicted:
            pairs[true, predicted] += 1
    names = [name.replace("_", " ") for name in task.classnames]
    return [
        f"{names[true]} is taken for {names[predicted]} ({count} image{'s' * (count > 1)})"
        for (true, predicted), count in pairs.most_common(limit)
    ]


def _mistakes(best: Scored, task: Task, limit: int) -> list[Picture]:
    """Training images the best template gets wrong, the least likely first."""
    wrong = np.flatnonzero(~best.correct)
    worst = wrong[np.argsort(best.likelihoods[wrong], kind="stable")][:limit]
    names = [name.replace("_", " ") for name in task.classnames]
    return [
        Picture(
            task.train.images[i].load(),
            f"{names[task.train.labels[i]]}, taken for {names[best.predicted[i]]}",
        )
        for i in worst
    ]


def _notes(
    parsed: ParsedReply,
    new: Sequence[Template],
    results: Sequence[Scored],
    incumbent: Scored,
    task: Task,
) -> list[str]:
    """What the model should know of its last reply beside the scores."""
    notes = [f"{rejection.text}: {rejection.message}" for rejection in parsed.rejected[:5]]
    if known := [t.text for t in parsed.templates if t not in new][:5]:
        notes.append(f"tried before: {'; '.join(known)}")
    if results:
        best = max(results, key=lambda scored: scored.fitness)
        gained = _classes(best.correct & ~incumbent.correct, task)
        lost = _classes(incumbent.correct & ~best.correct, task)
        if gained or lost:
            notes.append(
                f"{best.template.text} against the best before it: "
                f"wins {gained or 'none'}; loses {lost or 'none'}"
            )
    return notes


def _classes(images: np.ndarray[tuple[int], np.dtype[np.bool_]], task: Task, limit: int = 6) -> str:
    names = dict.fromkeys(task.classnames[k].replace("_", " ") for k in task.train.labels[images])
    return ", ".join(list(names)[:limit])


def _validation_accuracy(search: Search, template: Template) -> float | None:
    """For people to look at; free where features are at hand, so only there."""
    task = search.task
    if search.box.access < Access.FEATURES or not len(task.val):
        return None
    try:
        logits = search.box.score_templates(task.val, [template], task.classnames)[0]
    except BudgetExhausted:
        return None
    return evaluate(template, logits, task.val).accuracy
