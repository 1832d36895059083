"""Hill climbing with a chat model: all of ``chat`` but what is said.

Several restarts, each a climb of its own: a pool of templates, then turn after turn in which the
model sees some of what was scored and proposes more. The final choice is among few finalists and
the start, on training and validation images together (:mod:`llmopt.search.text.selection`).

Counts as queries: K text encodings and N * K pairs per new template; every call to the chat model,
usable or not.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar

import numpy as np
from annotated_types import Ge

from llmopt.errors import BudgetExhausted, ContentRefused, ContextOverflow
from llmopt.resources import read_lines, read_prompt
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.text.aliases import PROPOSED, find_aliases
from llmopt.search.text.archive import Archive, Fitness, Scored
from llmopt.search.text.conversation import Lists, rephrase
from llmopt.search.text.polishing import POLISH, distinct, polish
from llmopt.search.text.replies import MAX_CHARS, ParsedReply, parse_reply
from llmopt.search.text.selection import FINALISTS, choose, second_look
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.spend.events import Progress
from llmopt.task import Task
from llmopt.template import Template
from llmopt.vision.base import Access

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


@dataclass(frozen=True)
class ClimbSettings(Settings):
    """Settings of a climb.

    Attributes:
        restarts: climbs, each with a fresh pool.
        iterations: turns of each.
        pool: templates a climb starts from, the user's start among them.
        proposals: templates asked for in a turn.
        k: length of each list shown.
        lists: ``good``, ``good+bad`` or ``good+random``.
        fitness: what candidates rank by, ``likelihood`` or ``accuracy``.
        tries: replies without a usable template before a climb gives up.
        finalists: candidates of the final choice, the start not counted.
        ensemble: combine up to this many finalists; 1 is a single template.
        polish: at the end, take phrases out of the best template as long as it does not suffer.
        aliases: at the end, ask for other names of up to this many confused classes, and use
            those that help.
        parallel: climbs at the same time; the result does not depend on it.
    """

    restarts: Annotated[int, Ge(1)] = 2
    iterations: Annotated[int, Ge(0)] = 10
    pool: Annotated[int, Ge(1)] = 12
    proposals: Annotated[int, Ge(1)] = 8
    k: Annotated[int, Ge(1)] = 6
    lists: Literal["good", "good+bad", "good+random"] = "good+bad"
    fitness: Fitness = "likelihood"
    tries: Annotated[int, Ge(1)] = 3
    finalists: Annotated[int, Ge(1)] = FINALISTS
    ensemble: Annotated[int, Ge(1)] = 1
    polish: bool = True
    aliases: Annotated[int, Ge(0)] = 0
    parallel: Annotated[int, Ge(1)] = 1


@dataclass
class Climb:
    """One climb, and what it came to.

    Attributes:
        restart: its number, from 0.
        stream: of the journal.
        archive: what it has scored.
        rng: for its draws.
        counts: proposals, duplicates, calls …
        stop_reason: ``iterations``, or what ended it before.
    """

    restart: int
    stream: str
    archive: Archive
    rng: np.random.Generator
    counts: Counter[str] = field(default_factory=Counter)
    stop_reason: str = "iterations"

    def take(self, parsed: ParsedReply, most: int) -> list[Template]:
        """The new templates of a reply, at most so many; all of its proposals are counted."""
        new = self.archive.fresh(parsed.templates)[:most]
        self.counts["proposals"] += len(parsed.templates) + len(parsed.rejected)
        self.counts["scored"] += len(new)
        self.counts["duplicates"] += len(parsed.templates) - len(new)
        for rejection in parsed.rejected:
            reason = rejection.reason
            self.counts["duplicates" if reason == "duplicate" else reason] += 1
        return new

    def give_up(self, replies: int) -> None:
        """Stop: so many replies in a row held no new template."""
        self.stop_reason = f"{replies} replies in a row without a new template"


C = TypeVar("C", bound=ClimbSettings)


class Climbing(Optimizer[C]):
    """Hill climbing with a chat model; :meth:`converse` says what happens in a climb."""

    name = "chat"
    FORMS: ClassVar = {
        "conversation": "llmopt.search.text.chat:Chat",
        "released": "llmopt.search.text.chat_published:ChatReleased",
        "paper": "llmopt.search.text.chat_published:ChatPaper",
    }
    access = Access.LABELS
    needs_chat = True

    @abstractmethod
    def converse(self, search: Search, climb: Climb) -> None:
        """All turns of one climb, whose pool is scored.

        Raises:
            BudgetExhausted, ContextOverflow: the climb ends here.
        """

    def bounds(self, task: Task) -> Spend:
        """Upper bounds: every proposal new, every climb at its full length."""
        s = self.settings
        templates = s.restarts * (s.pool + s.iterations * s.proposals) + s.polish * POLISH
        images = len(task.train) + len(task.val)
        classes = len(task.classnames)
        return Spend(
            image_encodings=images,
            text_encodings=templates * classes
            # On training and validation images: the names as they are, each other one, the choice.
            + (2 * classes * (2 + s.aliases * PROPOSED) if s.aliases else 0)
            + second_look(task, min(s.finalists + 1, templates)),
            pairs_scored=templates * classes * images,
            llm_calls=s.restarts * s.iterations + s.aliases,
        )

    def ensemble(self, task: Task) -> int:
        """As many as the setting allows."""
        return self.settings.ensemble

    def talk(self, task: Task) -> tuple[int, int]:
        """Turns whose history is sent along, and bytes of the longest turn."""
        wording = len(read_prompt("meta/system.txt")) + len(read_prompt("meta/next.txt"))
        names = sum(len(name.encode()) + 2 for name in task.classnames)
        listed = 2 * self.settings.k + 4 * self.settings.proposals + 10
        return 1, wording + 4 * names + listed * (MAX_CHARS + 40)

    def run(self, search: Search) -> Outcome:
        """Climb, then choose."""
        s = self.settings
        restarts = range(s.restarts)
        if s.parallel == 1:
            climbs = [self._climb(search, restart) for restart in restarts]
        else:
            with ThreadPoolExecutor(s.parallel) as pool:
                climbs = list(pool.map(lambda restart: self._climb(search, restart), restarts))
        found = distinct(one for climb in climbs for one in climb.archive.ranked())
        if s.polish and found:
            found = polish(search, found, s.fitness)
        choice = choose(search, found, finalists=s.finalists, ensemble=s.ensemble)
        predictor = choice.predictor
        counts = sum((climb.counts for climb in climbs), Counter())
        if s.aliases:
            names = find_aliases(search, predictor.templates[0], s.aliases, counts)
            predictor = dataclasses.replace(predictor, classnames=tuple(names))
        reasons = [climb.stop_reason for climb in climbs if climb.stop_reason != "iterations"]
        return Outcome(
            predictor,
            stop_reason=reasons[0] if reasons else "iterations",
            fallback=choice.fallback,
            templates=choice.templates,
            summary=dict(counts),
        )

    def _climb(self, search: Search, restart: int) -> Climb:
        """One climb: pool, then turn after turn."""
        s = self.settings
        stream = f"restart-{restart + 1}"
        archive = Archive(search, stream, s.fitness, best=max(s.k, s.finalists))
        climb = Climb(restart, stream, archive, search.rng("chat", restart))
        try:
            archive.score(archive.fresh([search.task.start, *draw_pool(s.pool - 1, climb.rng)]))
            self.converse(search, climb)
        except BudgetExhausted as spent:
            climb.stop_reason = spent.stop_reason
        except ContextOverflow:
            climb.stop_reason = "the model takes no conversation of this length"
        climb.counts["dropped_early"] = len(archive.dropped)
        self.report(search, climb, s.iterations)
        return climb

    def shown(self, climb: Climb) -> Lists:
        """The lists of a turn."""
        return lists_of(climb.archive, self.settings.k, self.settings.lists, climb.rng)

    def ask(
        self,
        search: Search,
        climb: Climb,
        messages: list[BaseMessage],
        turn: int,
        shorten: Callable[[], list[BaseMessage] | None] = lambda: None,
    ) -> str | None:
        """One question; asked once more in other words where it is declined.

        Args:
            search: its chat model is asked.
            climb: whose counts are added to.
            messages: the conversation.
            turn: its number.
            shorten: the conversation with less of its history, where it grew too long; None where
                nothing can be left out.

        Returns:
            the reply; None where the model declined twice.

        Raises:
            ContextOverflow: it is too long, and nothing can be left out.
        """
        assert search.chat is not None  # the engine sees to it
        again: list[BaseMessage] = []
        while True:
            try:
                reply = search.chat.ask([*messages, *again], stream=climb.stream, turn=turn)
            except ContextOverflow:
                climb.counts["compactions"] += 1
                shorter = shorten()
                if shorter is None:
                    raise
                messages = shorter
            except ContentRefused:
                climb.counts["refusals"] += 1
                if again:
                    return None
                again = [rephrase(self.settings.proposals)]
            else:
                climb.counts["calls"] += 1
                return reply.text

    def parse(self, search: Search, reply: str | None) -> ParsedReply:
        """The templates of a reply that this task and black box can use."""
        if reply is None:
            return ParsedReply()  # the model declined, and was counted
        names = search.task.classnames
        return parse_reply(reply, names, lambda template: search.box.check(template, names))

    def report(self, search: Search, climb: Climb, iteration: int) -> None:
        """Tell where a climb stands."""
        if not len(climb.archive):
            return
        best = climb.archive.best()
        search.on_progress(
            Progress(
                step=climb.restart * self.settings.iterations + iteration,
                steps=self.settings.restarts * self.settings.iterations,
                best=best.template.text,
                train_accuracy=best.accuracy,
                val_accuracy=_validation_accuracy(search, best.template),
                score=best.fitness,
                note=f"conversation {climb.restart + 1} of {self.settings.restarts}",
            )
        )


def draw_pool(size: int, rng: np.random.Generator) -> list[Template]:
    """Caption-like templates, deliberately uninformative, as the paper starts from."""
    captions = read_lines("templates/captions.txt")
    picks = rng.choice(len(captions), size=min(size, len(captions)), replace=False)
    return [Template(captions[i]) for i in picks]


def lists_of(archive: Archive, k: int, kind: str, rng: np.random.Generator) -> Lists:
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


def _validation_accuracy(search: Search, template: Template) -> float | None:
    """For people to look at; free where features are at hand, so only there."""
    task = search.task
    if search.box.access < Access.FEATURES or not len(task.val):
        return None
    try:
        logits = search.box.score_templates(task.val, [template], task.classnames)[0]
    except BudgetExhausted:
        return None
    return Scored.of(template, logits, task.val).accuracy
