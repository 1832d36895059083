"""The turns of all conversations of ``chat``, and what becomes of them.

Conversations are held in step: each is asked its next question, at the same time where the model is
remote; when all have answered, the templates are scored, one conversation after the other. So what
is known at the next turn, and the result, do not depend on who answers first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from llmopt.errors import BudgetExhausted, ContentRefused, ContextOverflow
from llmopt.search.base import Search
from llmopt.search.text.archive import Archive, Fitness, Scored, ranked
from llmopt.search.text.conversation import Batch, Conversation, Known, rephrase
from llmopt.search.text.feedback import confusions, rejections, sheets, wins_and_losses
from llmopt.search.text.policy import (
    DONE,
    Over,
    Purpose,
    Turn,
    gained,
    next_purpose,
    nothing_left,
)
from llmopt.search.text.probes import start_of
from llmopt.search.text.replies import ParsedReply, parse_reply
from llmopt.search.text.selection import FINALISTS
from llmopt.search.text.words import Words, word_table
from llmopt.settings import Settings
from llmopt.spend.events import Progress
from llmopt.template import Template
from llmopt.vision.base import Access

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from llmopt.language.metered import MeteredChat

_TOO_LONG = "the model takes no conversation of this length"


@dataclass(frozen=True)
class ChatSettings(Settings):
    """Settings of ``chat``.

    Attributes:
        probes: templates scored before the first question, at most; 0 for a pool instead.
        pool: without probes, captions that the search starts from, the user's start among them.
        restarts: conversations at most; a second one is held only where images are still wrong.
        iterations: turns of each, at most.
        proposals: templates asked for in a turn.
        k: lines in the list of the best templates.
        conversational: send the history along; without it every turn stands alone.
        scores: show scores beside the templates.
        confusions: how many confused pairs of classes are named; 0 for none.
        images: contact sheets of wrong images shown in each turn, one for each confused pair of
            classes, for models that can see; 0 for none.
        fitness: what candidates rank by, ``likelihood`` or ``accuracy``.
        tries: replies without a usable template before a conversation gives up.
        finalists: candidates of the final choice, the start not counted.
        ensemble: combine up to this many finalists; 1 is a single template.
        polish: at the end, take phrases out of the best template as long as it does not suffer.
        aliases: at the end, ask for other names of up to this many confused classes, and use
            those that help.
        parallel: questions in progress at the same time; 0 is one for each conversation with a
            remote model, else one. The result does not depend on it.
    """

    probes: Annotated[int, Ge(0)] = 400
    pool: Annotated[int, Ge(1)] = 12
    restarts: Annotated[int, Ge(1)] = 2
    iterations: Annotated[int, Ge(0)] = 10
    proposals: Annotated[int, Ge(1)] = 16
    k: Annotated[int, Ge(1)] = 6
    conversational: bool = True
    scores: bool = True
    confusions: Annotated[int, Ge(0)] = 5
    images: Annotated[int, Ge(0)] = 0
    fitness: Fitness = "likelihood"
    tries: Annotated[int, Ge(1)] = 3
    finalists: Annotated[int, Ge(1)] = FINALISTS
    ensemble: Annotated[int, Ge(1)] = 1
    polish: bool = True
    aliases: Annotated[int, Ge(0)] = 0
    parallel: Annotated[int, Ge(0)] = 0


@dataclass
class Talk:
    """One conversation, and what it came to.

    Attributes:
        number: from 0.
        conversation: what was said.
        known: the templates it knows: those of the opening, and its own.
        turns: held so far.
        last: what became of the last one.
        fruitless: replies in a row without a new template.
        over: why it ended; empty while it goes on.
    """

    number: int
    conversation: Conversation
    known: list[Scored]
    turns: list[Turn] = field(default_factory=list)
    last: Batch | None = None
    fruitless: int = 0
    over: str = ""

    @property
    def stream(self) -> str:
        """Of the journal."""
        return f"conversation-{self.number + 1}"

    def best(self) -> Scored:
        """The best template it knows."""
        return max(self.known, key=lambda one: one.rank)


@dataclass(frozen=True)
class Question:
    """What is asked in a turn of a conversation."""

    talk: Talk
    purpose: Purpose
    messages: list[BaseMessage]


@dataclass
class Reply:
    """What came of it.

    Attributes:
        text: None where the model declined twice.
        counts: calls, refusals and compactions.
        over: why the conversation cannot go on; empty if it can.
        spent: the cap that ended it.
    """

    text: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    over: str = ""
    spent: BudgetExhausted | None = None


@dataclass
class Climbing:
    """All conversations of a search.

    Attributes:
        search: task, black box and chat model.
        settings: of ``chat``.
        archive: what was scored; it holds the opening.
        counts: proposals, duplicates, calls …, added to.
    """

    search: Search
    settings: ChatSettings
    archive: Archive
    counts: Counter[str]

    def climb(self) -> str:
        """All conversations, turn by turn; why they ended.

        Raises:
            BudgetExhausted: a cap allows nothing more.
        """
        s, task, archive = self.settings, self.search.task, self.archive
        start, opened = start_of(archive, task), archive.ranked()
        held = s.restarts if opened[0].accuracy < 1 else 1
        talks = [
            Talk(
                n,
                Conversation(task.classnames, task.about, s.scores, s.conversational, s.k),
                opened,
            )
            for n in range(held)
        ]
        self._report(0, held)
        for iteration in range(s.iterations):
            if nothing_left(archive.best()):
                return DONE.reason
            words = word_table(
                archive.ranked(), start, len(task.classnames), archive.dropped.values()
            )
            going = [talk for talk in talks if not talk.over]
            found = [self._question(talk, start, words) for talk in going]
            asked = [question for question in found if question is not None]
            if not asked:
                break
            for question, reply in zip(asked, self._ask_all(asked, iteration), strict=True):
                self._hear(question, reply)
            self._report((iteration + 1) * held, held)
        over = [talk.over for talk in talks if talk.over]
        return over[0] if len(over) == len(talks) else "iterations"

    def _question(self, talk: Talk, start: Scored, words: Words) -> Question | None:
        """What to ask next in a conversation; None where it is over."""
        s, task = self.settings, self.search.task
        best = talk.best()
        purpose = next_purpose(best, words, talk.turns, talk.number)
        if isinstance(purpose, Over):
            talk.over = purpose.reason
            return None
        known = Known(
            start,
            ranked(talk.known),
            words,
            confusions(best, task, s.confusions),
            sheets(best, task, s.images),
            talk.number,
        )
        messages = talk.conversation.turn(purpose, s.proposals, known, talk.last)
        return Question(talk, purpose, messages)

    def _ask_all(self, asked: Sequence[Question], turn: int) -> list[Reply]:
        """The replies to all questions of a turn, in order."""
        chat = self.search.chat
        assert chat is not None  # the engine sees to it
        most = self.settings.parallel or (len(asked) if chat.remote else 1)
        if most == 1 or len(asked) == 1:
            return [self._ask(chat, one, turn) for one in asked]
        with ThreadPoolExecutor(most) as pool:
            return list(pool.map(lambda one: self._ask(chat, one, turn), asked))

    def _ask(self, chat: MeteredChat, question: Question, turn: int) -> Reply:
        """One question; asked once more in other words where it is declined."""
        talk, reply = question.talk, Reply()
        messages = question.messages
        again: list[BaseMessage] = []
        while True:
            try:
                told = chat.ask([*messages, *again], stream=talk.stream, turn=turn)
            except ContextOverflow:
                reply.counts["compactions"] += 1
                shorter = talk.conversation.compact()
                if shorter is None:
                    reply.over = _TOO_LONG
                    return reply
                messages = shorter
            except ContentRefused:
                reply.counts["refusals"] += 1
                if again:
                    return reply
                again = [rephrase(self.settings.proposals)]
            except BudgetExhausted as spent:
                reply.spent = spent
                return reply
            else:
                reply.counts["calls"] += 1
                reply.text = told.text
                return reply

    def _hear(self, question: Question, reply: Reply) -> None:
        """Score what a reply proposes, and keep what is to be said of it.

        Raises:
            BudgetExhausted: nothing more can be scored, or the run is interrupted.
        """
        s, talk, task, box = self.settings, question.talk, self.search.task, self.search.box
        self.counts.update(reply.counts)
        talk.over = reply.over
        if reply.spent is not None:
            talk.over = reply.spent.stop_reason
            if reply.spent.currency == "interrupted":
                raise reply.spent
        if talk.over:
            return
        parsed = ParsedReply()  # the model declined, and was counted
        if reply.text is not None:
            names = task.classnames
            talk.conversation.heard(reply.text)
            parsed = parse_reply(reply.text, names, lambda template: box.check(template, names))
        before, met = talk.best(), {one.template for one in talk.known}
        fresh = self.archive.fresh(parsed.templates)
        new = fresh[: s.proposals]
        count_proposals(self.counts, parsed, new, surplus=len(fresh) - len(new))
        self.archive.score(new, talk.stream)
        found = [one for t in parsed.templates if (one := self.archive.find(t)) is not None]
        results = [one for one in found if one.template not in met]
        repeated = [one.template for one in found if one.template in met]
        talk.known = [*talk.known, *results]
        talk.last = Batch(
            results,
            before,
            wins_and_losses(results, before, task),
            rejections(parsed, repeated, [one for one in new if self.archive.find(one) is None]),
        )
        if results:
            talk.fruitless = 0
            talk.turns.append(Turn(question.purpose, any(gained(before, r) for r in results)))
            return
        talk.fruitless += 1
        if talk.fruitless >= s.tries:
            talk.over = f"{talk.fruitless} replies in a row without a new template"

    def _report(self, turn: int, held: int) -> None:
        """Tell where the search stands."""
        best = self.archive.best()
        self.search.on_progress(
            Progress(
                step=turn,
                steps=held * self.settings.iterations,
                best=best.template.text,
                train_accuracy=best.accuracy,
                val_accuracy=_validation_accuracy(self.search, best.template),
                score=best.fitness,
                note=f"{held} conversation{'s' * (held > 1)}",
            )
        )


def count_proposals(
    counts: Counter[str], parsed: ParsedReply, new: Sequence[Template], surplus: int
) -> None:
    """Add up what became of the proposals of a reply."""
    counts["proposals"] += len(parsed.templates) + len(parsed.rejected)
    counts["scored"] += len(new)
    counts["surplus"] += surplus
    counts["duplicates"] += len(parsed.templates) - len(new) - surplus
    for rejection in parsed.rejected:
        counts["duplicates" if rejection.reason == "duplicate" else rejection.reason] += 1


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
