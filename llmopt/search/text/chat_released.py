"""Hill climbing with a chat model as the authors' code does it (Liu et al., CVPR 2024).

One restart, a pool of 80, three best and three worst templates without scores in a single message,
one new template a call, ten iterations, up to 15 tries for a usable reply, ranking by training
accuracy. Theirs puts older templates first among equals; here the better likelihood goes first, or
ties would never be broken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from llmopt.search.base import Search
from llmopt.search.text.archive import Fitness
from llmopt.search.text.climbing import Climb, Climbing, ClimbSettings
from llmopt.search.text.conversation import single_turn


@dataclass(frozen=True)
class ReleasedSettings(ClimbSettings):
    """Settings of the released ``chat``: :class:`ClimbSettings` with the authors' values."""

    restarts: Annotated[int, Ge(1)] = 1
    pool: Annotated[int, Ge(1)] = 80
    proposals: Annotated[int, Ge(1)] = 1
    k: Annotated[int, Ge(1)] = 3
    fitness: Fitness = "accuracy"
    tries: Annotated[int, Ge(1)] = 15
    polish: bool = False


class ReleasedChat(Climbing[ReleasedSettings]):
    """Hill climbing with a chat model that sees one message at a time."""

    form = "released"
    races = False
    Settings = ReleasedSettings

    @property
    def calls_per_turn(self) -> int:
        """A turn is asked again until a reply is usable."""
        return self.settings.tries

    def converse(self, search: Search, climb: Climb) -> None:
        """Messages that stand alone, each asked until a reply is usable."""
        s = self.settings
        for iteration in range(s.iterations):
            self.report(search, climb, iteration)
            for _ in range(s.tries):
                lists = self.shown(climb)
                messages = single_turn(lists.good, lists.others, s.proposals)
                reply = self.ask(search, climb, messages, iteration)
                new = climb.take(self.parse(search, reply), 4 * s.proposals)
                if new:
                    climb.archive.score(new)
                    break
            else:
                climb.give_up(s.tries)
                return
