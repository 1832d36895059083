"""Hill climbing with a chat model as published (Liu et al., "Language Models as Black-Box
Optimizers for Vision-Language Models", CVPR 2024).

Access: ``labels``. The objective F is the accuracy on the training images::

    for each restart:                      # exploration
        pool = m captions drawn at random, each scored by F
        for each reset:                    # forgets all found since the restart
            templates = pool
            for each iteration:            # exploitation
                show the k best and the k worst templates
                the reply's new template is scored by F and joins them
    the result is the proposal of the highest F, the earliest of equals

Only what the language model proposed can be the result, never a caption or the start. A proposal
met before uses up its iteration; a reply with a line that is no template is asked for again.

``profile=released`` is the authors' code: one restart, no resets, messages that stand alone.
``profile=paper`` is the algorithm of the paper, in conversation: after the lists, each turn tells
the accuracy of the last proposal and whether it rose or fell.

============== ============ =========== ===========================================================
setting        ``released`` ``paper``   source of the paper's value
============== ============ =========== ===========================================================
restarts       1            20          recalled, not verified
resets         1            50          recalled, not verified
iterations     10           10          recalled, not verified
pool m         80           100         recalled, not verified
k              3            15          public reviews of an earlier version; its figure shows 3
conversational no           yes         abstract and figure
============== ============ =========== ===========================================================

The paper's pool is a million captions of LAION-COCO, which are not ours to ship: ``pool_file``
takes any such file, and the built-in captions stand in for it. The first restart draws what
``random.seed(SEED); random.sample(lines, m)`` draws, as the authors' code does.

Different here: of a reply no more templates are taken than were asked for; one too long for the
model is asked for again, and a restart without a usable reply ends, where their code breaks off.

Counts as queries: K text encodings and N * K pairs per new template; every call to the chat model,
usable or not. The paper counts neither.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Ge

from llmopt.data.text import read_lines as lines_of_file
from llmopt.errors import (
    BudgetExhausted,
    ConfigError,
    ContentRefused,
    ContextOverflow,
    TemplateError,
)
from llmopt.predictor import single
from llmopt.resources import read_lines, read_prompt
from llmopt.search.base import Optimizer, Outcome, Search, TemplateResult
from llmopt.search.text.archive import Archive, Scored
from llmopt.search.text.chat import Chat
from llmopt.search.text.published_messages import LONGEST, feedback, opening, read_proposals
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.spend.events import Progress
from llmopt.task import Task
from llmopt.template import Template
from llmopt.vision.base import Access, BlackBox

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

_SHOWN = 8  # proposals in the result
_TOO_LONG = "the model takes no conversation of this length"


@dataclass(frozen=True)
class ReleasedSettings(Settings):
    """Settings of ``chat`` with ``profile=released``; the defaults are those of the authors' code.

    Attributes:
        restarts: pools drawn.
        resets: climbs from each pool.
        iterations: proposals asked for in each climb, one after the other.
        pool: m, templates a pool begins with.
        pool_file: captions to draw from, one template a line; empty is the built-in list.
        start_in_pool: the user's start takes the place of one caption.
        proposals: templates asked for at once.
        k: length of each list shown.
        lists: ``good``, ``good+bad`` or ``good+random``.
        conversational: send the history along, with the accuracy of each proposal; without it every
            message stands alone and shows the lists anew.
        tries: replies without a usable template before a restart ends.
        parallel: restarts at the same time; the result does not depend on it.
    """

    restarts: Annotated[int, Ge(1)] = 1
    resets: Annotated[int, Ge(1)] = 1
    iterations: Annotated[int, Ge(0)] = 10
    pool: Annotated[int, Ge(1)] = 80
    pool_file: str = ""
    start_in_pool: bool = False
    proposals: Annotated[int, Ge(1)] = 1
    k: Annotated[int, Ge(1)] = 3
    lists: Literal["good", "good+bad", "good+random"] = "good+bad"
    conversational: bool = False
    tries: Annotated[int, Ge(1)] = 15
    parallel: Annotated[int, Ge(1)] = 1


@dataclass(frozen=True)
class PaperSettings(ReleasedSettings):
    """Settings of ``chat`` with ``profile=paper``: the paper's values, most of them unverified."""

    restarts: Annotated[int, Ge(1)] = 20
    resets: Annotated[int, Ge(1)] = 50
    pool: Annotated[int, Ge(1)] = 100
    k: Annotated[int, Ge(1)] = 15
    conversational: bool = True


@dataclass
class Restart:
    """What one restart came to.

    Attributes:
        found: the language model's own templates, in the order of proposal.
        counts: proposals, duplicates, calls …
        stop_reason: ``iterations``, or what ended it before.
    """

    found: list[Scored] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    stop_reason: str = "iterations"


class Unusable(Exception):
    """No reply of so many could be used."""


class ChatReleased(Optimizer[ReleasedSettings]):
    """Hill climbing with a chat model, as released."""

    name = Chat.name
    form = "released"
    FORMS = Chat.FORMS
    access = Access.LABELS
    needs_chat = True
    Settings: ClassVar[type[ReleasedSettings]] = ReleasedSettings

    def check(self, box: BlackBox, task: Task) -> None:
        """As every optimizer, and that the pool can be drawn."""
        super().check(box, task)
        self._pools(task)

    def bounds(self, task: Task) -> Spend:
        """Upper bounds: every proposal new, and every reply but the last of its tries unusable."""
        s = self.settings
        turns = s.restarts * s.resets * s.iterations
        templates = s.restarts * s.pool + turns * s.proposals
        images, classes = len(task.train), len(task.classnames)
        return Spend(
            image_encodings=images,
            text_encodings=templates * classes,
            pairs_scored=templates * classes * images,
            llm_calls=turns * s.tries,
        )

    def talk(self, task: Task) -> tuple[int, int]:
        """Turns whose history is sent along, and bytes of the longest turn."""
        s = self.settings
        wording = len(read_prompt(f"meta/published/{s.lists}.txt"))
        listed = (2 * s.k + 2 * s.proposals) * (LONGEST + 40)
        return max(1, s.iterations) if s.conversational else 1, wording + listed

    def run(self, search: Search) -> Outcome:
        """Climb from each pool as often as asked; end with the best proposal of all."""
        s, pools = self.settings, self._pools(search.task)
        if s.parallel == 1:
            done = [self._restart(search, number, pool) for number, pool in enumerate(pools)]
        else:
            with ThreadPoolExecutor(s.parallel) as threads:
                numbers = range(len(pools))
                done = list(threads.map(lambda n: self._restart(search, n, pools[n]), numbers))
        counts = sum((one.counts for one in done), Counter[str]())
        reasons = [one.stop_reason for one in done if one.stop_reason != "iterations"]
        reason = reasons[0] if reasons else "iterations"
        ranked = by_accuracy([scored for one in done for scored in one.found])
        if not ranked:
            start = single(search.task.start, search.task.classnames)
            return Outcome(start, reason, fallback=True, summary=dict(counts))
        first: dict[Template, Scored] = {}
        for one in ranked:
            first.setdefault(one.template, one)
        return Outcome(
            single(ranked[0].template, search.task.classnames),
            reason,
            templates=tuple(
                # The last bits of a matrix product may differ from process to process.
                TemplateResult(
                    one.template.text, float(not n), one.fitness, round(one.logprob, 6), None
                )
                for n, one in enumerate(list(first.values())[:_SHOWN])
            ),
            summary=dict(counts),
        )

    def _restart(self, search: Search, number: int, drawn: Sequence[Template]) -> Restart:
        """All climbs from one pool."""
        s, task = self.settings, search.task
        restart, stream = Restart(), f"restart-{number + 1}"
        try:
            archive = Archive(search, stream, "accuracy")
            pool = archive.score(archive.fresh(drawn))
            for reset in range(s.resets):
                name = stream if s.resets == 1 else f"{stream}-reset-{reset + 1}"
                first = (number * s.resets + reset) * s.iterations
                self._climb(search, restart, list(pool), name, first)
        except BudgetExhausted as spent:
            restart.stop_reason = spent.stop_reason
        except ContextOverflow:
            restart.stop_reason = _TOO_LONG
        except Unusable:
            restart.stop_reason = f"{s.tries} replies in a row without a template"
        self._report(search, restart, (number + 1) * s.resets * s.iterations, task.start)
        return restart

    def _climb(
        self, search: Search, restart: Restart, known: list[Scored], stream: str, first: int
    ) -> None:
        """Iterations from a pool of scored templates, which grows."""
        s, archive = self.settings, Archive(search, stream, "accuracy")
        rng = search.rng("chat", stream)
        messages: list[BaseMessage] = []
        last = 0.0
        for iteration in range(s.iterations):
            self._report(search, restart, first + iteration, by_accuracy(known)[0].template)
            if not (s.conversational and messages):
                good, others = lists_of(known, s.k, s.lists, rng)
                messages, last = opening(good, others, s.lists, s.proposals), good[0].fitness
            turn = iteration if s.conversational else 0
            reply, proposed = self._ask(search, restart, messages, stream, turn)
            results = []
            for template in proposed:
                one = next((one for one in known if one.template == template), None)
                restart.counts["scored" if one is None else "duplicates"] += 1
                if one is None:
                    (one,) = archive.score([template])
                    known.append(one)
                    restart.found.append(one)
                results.append(one)
            if s.conversational:
                messages = [*messages, *feedback(reply, results, last, s.proposals)]
                last = results[-1].fitness

    def _ask(
        self,
        search: Search,
        restart: Restart,
        messages: list[BaseMessage],
        stream: str,
        turn: int,
    ) -> tuple[str, list[Template]]:
        """A reply and its templates; asked for until there are any.

        Raises:
            Unusable: there were none in all tries.
        """
        assert search.chat is not None  # the engine sees to it
        counts = restart.counts
        for _ in range(self.settings.tries):
            try:
                reply = search.chat.ask(messages, stream=stream, turn=turn).text
            except ContentRefused:
                counts["refusals"] += 1
                continue
            counts["calls"] += 1
            try:
                proposed = read_proposals(reply)[: self.settings.proposals]
                for template in proposed:
                    search.box.check(template, search.task.classnames)
            except TemplateError:
                counts["proposals"] += 1
                counts["malformed"] += 1
                continue
            counts["proposals"] += len(proposed)
            return reply, proposed
        raise Unusable

    def _pools(self, task: Task) -> list[list[Template]]:
        """The captions of each restart, too long ones among them.

        Raises:
            DatasetError, ConfigError: there is no such file, or a line drawn of it is no template.
        """
        s = self.settings
        if s.pool_file:
            lines = lines_of_file(Path(s.pool_file), "setting pool_file:")
        else:
            lines = read_lines("templates/captions.txt")
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line]
        if not numbered:
            raise ConfigError(f"setting pool_file: {s.pool_file} is empty")
        dice = random.Random(task.seed)
        size = min(s.pool - s.start_in_pool, len(numbered))
        own = [task.start] if s.start_in_pool else []
        return [
            [*own, *(self._caption(*one) for one in dice.sample(numbered, size))]
            for _ in range(s.restarts)
        ]

    def _caption(self, number: int, line: str) -> Template:
        try:
            return Template(line)
        except TemplateError as error:
            where = self.settings.pool_file
            raise ConfigError(f"setting pool_file: line {number} of {where}: {error}") from error

    def _report(self, search: Search, restart: Restart, step: int, otherwise: Template) -> None:
        best = by_accuracy(restart.found)[0] if restart.found else None
        s = self.settings
        search.on_progress(
            Progress(
                step,
                s.restarts * s.resets * s.iterations,
                (best.template if best else otherwise).text,
                train_accuracy=best.fitness if best else None,
                score=best.fitness if best else None,
            )
        )


class ChatPaper(ChatReleased):
    """Hill climbing in conversation with a chat model, as the paper describes it."""

    form = "paper"
    Settings = PaperSettings


def by_accuracy(scored: Sequence[Scored]) -> list[Scored]:
    """Best first, the earlier of equals first."""
    return sorted(scored, key=lambda one: one.fitness, reverse=True)


def lists_of(
    known: Sequence[Scored], k: int, kind: str, rng: np.random.Generator
) -> tuple[list[Scored], list[Scored]]:
    """The k best, and their contrast: the k worst, k others at random, or none.

    They are shorter where there are fewer than 2 k templates, so that they never overlap. Of
    equals, the older are taken for good and the newer for bad.
    """
    ranked = by_accuracy(known)
    k = max(1, min(k, len(ranked) // 2))
    good, rest = ranked[:k], ranked[k:]
    if kind == "good" or not rest:
        return good, []
    if kind == "good+random":
        return good, [rest[i] for i in rng.choice(len(rest), size=k, replace=False)]
    return good, rest[-k:]
