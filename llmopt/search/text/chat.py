"""Hill climbing in conversation with a chat model (after Liu et al., CVPR 2024).

Several restarts, each a conversation. Every turn shows the best and the worst templates with their
scores, what the last proposals did, and the most confused classes; the reply's templates are scored
and join the archive. Candidates rank by the mean log-likelihood of the true class on the training
images, because with few images accuracy cannot tell them apart.

The published forms are :mod:`llmopt.search.text.chat_published`; what a climb is made of, and what
it counts, is :mod:`llmopt.search.text.climbing`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from llmopt.search.base import Search
from llmopt.search.text.archive import Scored
from llmopt.search.text.climbing import Climb, Climbing, ClimbSettings
from llmopt.search.text.conversation import Conversation
from llmopt.search.text.feedback import confusions, mistakes, notes_on
from llmopt.task import Task


@dataclass(frozen=True)
class ChatSettings(ClimbSettings):
    """Settings of ``chat``, besides those of :class:`ClimbSettings`.

    Attributes:
        conversational: send the history along; without it every turn stands alone.
        scores: show scores beside the templates.
        confusions: how many confused pairs of classes are named; 0 for none.
        images: images the best template gets wrong that are shown in each turn, for models that
            can see; 0 for none.
    """

    conversational: bool = True
    scores: bool = True
    confusions: Annotated[int, Ge(0)] = 5
    images: Annotated[int, Ge(0)] = 0


class Chat(Climbing[ChatSettings]):
    """Hill climbing in conversation with a chat model."""

    form = "conversation"
    Settings = ChatSettings

    def talk(self, task: Task) -> tuple[int, int]:
        """Turns whose history is sent along, and bytes of the longest turn."""
        s = self.settings
        turns, longest = super().talk(task)
        return s.iterations if s.conversational else turns, longest + 50_000 * s.images

    def converse(self, search: Search, climb: Climb) -> None:
        """One conversation, turn after turn."""
        s, task = self.settings, search.task
        talk = Conversation(task.classnames, scores=s.scores, memory=s.conversational)
        results: list[Scored] = []
        notes: list[str] = []
        fruitless = 0
        for iteration in range(s.iterations):
            incumbent = climb.archive.best()
            self.report(search, climb, iteration)
            lists = self.shown(climb)
            pairs = confusions(lists.good[0], task, s.confusions)
            pictures = mistakes(lists.good[0], task, s.images)
            messages = talk.turn(lists, s.proposals, results, notes, pairs, pictures)
            reply = self.ask(search, climb, messages, iteration, talk.compact)
            if reply is not None:
                talk.heard(reply)
            parsed = self.parse(search, reply)
            new = climb.take(parsed, 4 * s.proposals)
            results = climb.archive.score(new)
            notes = notes_on(parsed, new, results, incumbent, task)
            fruitless = 0 if new else fruitless + 1
            if fruitless >= s.tries:
                climb.give_up(fruitless)
                return
