"""Hill climbing in conversation with a chat model (after Liu et al., CVPR 2024).

First come probes, for which no language model is asked (:mod:`llmopt.search.text.probes`). If they
leave anything to gain, up to ``restarts`` conversations are held turn by turn, all at once: what
comes next in each is decided from what is known (:mod:`llmopt.search.text.policy`), the model is
told (:mod:`llmopt.search.text.conversation`), its templates are scored, and what they say of words
is known to all conversations in the next turn. Each keeps its own wordings. A conversation ends
when nothing is left to gain or two turns of different purpose gained nothing. The final choice is
among few finalists, on training and validation images together: first among the start and what the
opening found, then whether anything that was asked for is convincingly better than that
(:mod:`llmopt.search.text.selection`).

Candidates rank by the mean log-likelihood of the true class on the training images, because with
few images accuracy cannot tell them apart. The published forms are
:mod:`llmopt.search.text.chat_published`.

Counts as queries: K text encodings and N * K pairs per new template; every call to the chat model,
usable or not.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence, Set
from functools import partial
from typing import ClassVar

import numpy as np

from llmopt.errors import BudgetExhausted
from llmopt.resources import read_lines, read_prompt
from llmopt.search.base import LANGUAGE_MODEL, Optimizer, Outcome, Search
from llmopt.search.text.aliases import PROPOSED, find_aliases
from llmopt.search.text.archive import Archive, Scored, front
from llmopt.search.text.climbing import ChatSettings, Climbing
from llmopt.search.text.polishing import POLISH, polish
from llmopt.search.text.probes import probe
from llmopt.search.text.replies import MAX_CHARS
from llmopt.search.text.selection import choose, second_look
from llmopt.sentences import names_class, probe_bank
from llmopt.spend.currency import Spend
from llmopt.task import Task
from llmopt.template import Template
from llmopt.vision.base import Access

_WORDINGS = (
    "system", "first", "next", "images", "rephrase",
    "turns/explore", "turns/deepen", "turns/combine", "turns/simplify", "turns/angles",
)  # fmt: skip


class Chat(Optimizer[ChatSettings]):
    """Hill climbing in conversation with a chat model."""

    name = "chat"
    form = "conversation"
    FORMS: ClassVar = {
        "conversation": "llmopt.search.text.chat:Chat",
        "released": "llmopt.search.text.chat_published:ChatReleased",
        "paper": "llmopt.search.text.chat_published:ChatPaper",
    }
    access = Access.LABELS
    needs_chat = True
    Settings = ChatSettings

    # --- what it can cost --------------------------------------------------------------------

    def bounds(self, task: Task) -> Spend:
        """Upper bounds: every proposal new, every conversation at its full length."""
        s = self.settings
        opening = s.probes or s.pool
        templates = opening + s.restarts * s.iterations * s.proposals + s.polish * POLISH
        images, classes = len(task.train) + len(task.val), len(task.classnames)
        return Spend(
            image_encodings=images,
            text_encodings=templates * classes
            # On training and validation images: the names as they are, each other one, the choice.
            + (2 * classes * (2 + s.aliases * PROPOSED) if s.aliases else 0)
            # The choice, and what it would have been without a conversation.
            + second_look(task, min(2 * s.finalists + 1, templates)),
            pairs_scored=templates * classes * images,
            llm_calls=s.restarts * s.iterations + s.aliases,
        )

    def ensemble(self, task: Task) -> int:
        """As many as the setting allows."""
        return self.settings.ensemble

    def compared(self, task: Task) -> int:
        """What was best before the conversation, where one may be held."""
        return self.settings.ensemble if self.settings.iterations else 0

    def talk(self, task: Task) -> tuple[int, int]:
        """Turns whose history is sent along, and bytes of the longest turn."""
        s = self.settings
        wording = sum(len(read_prompt(f"meta/{name}.txt").encode()) for name in _WORDINGS)
        names = sum(len(name.encode()) + 2 for name in task.classnames)
        bank = sum(len(p.encode()) + 48 for family in probe_bank().values() for p in family)
        listed = s.k + 4 * s.proposals + 10
        longest = wording + len(task.about.encode()) + 4 * names + bank
        longest += listed * (MAX_CHARS + 80) + 50_000 * s.images
        return s.iterations if s.conversational else 1, longest

    # --- the search --------------------------------------------------------------------------

    def run(self, search: Search) -> Outcome:
        """Probe, converse, choose."""
        s = self.settings
        archive = Archive(search, "opening", s.fitness, best=max(s.k, s.finalists))
        counts: Counter[str] = Counter()
        opened: list[Scored] = []
        try:
            try:
                self._open(search, archive)
            finally:
                opened = archive.ranked()
            reason = Climbing(search, s, archive, counts).climb()
        except BudgetExhausted as spent:
            reason = spent.stop_reason
        counts["dropped_early"] = len(archive.dropped)
        return self._choose(search, archive.ranked(), opened, counts, reason)

    def _open(self, search: Search, archive: Archive) -> None:
        """Score what is known to be worth it before anything is asked."""
        s, task = self.settings, search.task
        if s.probes:
            probe(search, archive, s.probes)
        else:
            pool = draw_pool(s.pool - 1, task.classnames, search.rng("chat", "pool"))
            archive.score(archive.fresh([task.start, *pool]))

    def _choose(
        self,
        search: Search,
        found: list[Scored],
        opened: list[Scored],
        counts: Counter[str],
        reason: str,
    ) -> Outcome:
        """The end: fewer words, the choice, other names.

        What the language model brought replaces what was known before it was asked only where that
        convinces.
        """
        s = self.settings
        choosing = partial(choose, search, finalists=s.finalists, ensemble=s.ensemble)
        early = {one.template for one in opened}
        sources = {one.template: self._source(one.template, early, search.task) for one in found}
        shortened = sources[found[0].template] if found else ""
        going = not search.ledger.stopped  # what is left is done when it goes on
        if s.polish and found and going:
            found = polish(search, found, s.fitness)
        asked = counts["calls"] + counts["refusals"]
        choice = choosing(opened if asked else found)
        before = choice.predictor if asked else None
        if before and (told := [one for one in found if one.template not in early]):
            later = choosing(told, known=before.templates[0])
            if later.fallback:
                choice, found = choice.beside(later), opened
            else:
                choice = later.beside(choice)
        predictor = choice.predictor
        source = sources.get(predictor.templates[0], shortened)
        if s.aliases and going:
            names = find_aliases(search, predictor.templates[0], s.aliases, counts)
            predictor = dataclasses.replace(predictor, classnames=tuple(names))
        return Outcome(
            predictor,
            stop_reason=reason,
            fallback=choice.fallback,
            templates=choice.templates,
            summary={**({"probes": len(opened)} if s.probes else {}), **+counts},
            why=choice.why,
            source=source,
            before=before,
            front=front(found),
        )

    def _source(self, template: Template, early: Set[Template], task: Task) -> str:
        """Where a scored template comes from; ``early`` are those scored before asking."""
        if template == task.start:
            return "the start"
        if template in task.handcrafted:
            return "the hand-crafted templates"
        if template in early:
            return "llmopt's own probes" if self.settings.probes else "llmopt's own pool"
        return LANGUAGE_MODEL


def draw_pool(size: int, classnames: Sequence[str], rng: np.random.Generator) -> list[Template]:
    """Caption-like templates, deliberately uninformative, that name no class."""
    captions = [Template(text) for text in read_lines("templates/captions.txt")]
    fitting = [one for one in captions if names_class(one, classnames, synonyms=True) is None]
    picks = rng.choice(len(fitting), size=min(size, len(fitting)), replace=False)
    return [fitting[i] for i in picks]
