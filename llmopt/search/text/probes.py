"""The first stage of ``chat``: short probes, before a language model is asked anything.

One phrase at a time of a bank of a few hundred (``prompts/templates/probes.txt``) is put into the
start and scored on the training images. That costs no call, and little else: the prompts share
their beginnings. The phrases that did best are tried in the plainest sentence too. Where images are
still wrong, phrases that do best on those are tried beside the best one: the answer may be two
properties. The start and the hand-crafted templates take part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llmopt.search.base import Search
from llmopt.search.text.archive import Archive, Scored
from llmopt.search.text.words import Words, units, word_table
from llmopt.sentences import Sentence, names_class, probe_bank
from llmopt.task import Task
from llmopt.template import PLAIN, Template

BEST = 12  # phrases that are tried in plainer sentences
_PLAINER = (PLAIN, "a {}.")
_SHARE = 0.5  # of what a cap on queries leaves that the probes may take


def probe(search: Search, archive: Archive, most: int) -> None:
    """Score the start, the hand-crafted templates and the probes.

    Args:
        search: task and black box.
        archive: what is scored goes there.
        most: templates in all. A cap on queries leaves fewer, so that the conversation has its
            share; the least general families are left out then.

    Raises:
        BudgetExhausted: not even the start is paid for, or the run is interrupted.
    """
    task = search.task
    room = search.ledger.room("queries") / len(task.classnames) * _SHARE
    most = max(1, int(min(room, most)))
    archive.score(archive.fresh([task.start]))
    later = (len(_PLAINER) + 1) * BEST
    for family in families(search):
        left = most - len(archive) - later
        archive.score(archive.fresh(family)[: max(0, left)])
    table = word_table(
        archive.ranked(), start_of(archive, task), len(task.classnames), archive.dropped.values()
    )
    archive.score(archive.fresh(in_plainer_sentences(table))[: most - len(archive)])
    archive.score(archive.fresh(beside_the_best(archive.ranked()))[: most - len(archive)])


def families(search: Search) -> Iterator[list[Template]]:
    """The hand-crafted templates, and the probes of each family in the start's sentence.

    None of them names a class.
    """
    task = search.task
    sentence = Sentence.parse(task.start.text)
    bank = [
        [Template(str(sentence.with_phrase(phrase))) for phrase in phrases]
        for phrases in probe_bank().values()
    ]
    for templates in ([*task.handcrafted], *bank):
        yield [t for t in templates if names_class(t, task.classnames, synonyms=True) is None]


def in_plainer_sentences(table: Words) -> list[Template]:
    """The most helpful phrases in the plain sentences."""
    best = [word.text for word in table.helped if "{}" in word.text][:BEST]
    return [
        Template(str(Sentence.parse(plain).with_phrase(phrase)))
        for plain in _PLAINER
        for phrase in best
    ]


def beside_the_best(scored: Sequence[Scored]) -> list[Template]:
    """The best template with one more phrase, of those that do best on the images it gets wrong.

    Such a phrase may be no help by itself: it can be as wrong of the other images as it is right of
    these. Templates are ranked best first.
    """
    best = scored[0]
    sentence, wrong = Sentence.parse(best.template.text), ~best.correct
    if not wrong.any():
        return []
    others = sorted(scored, key=lambda one: -one.likelihoods[wrong].mean())
    phrases = (phrase for one in others for phrase in sorted(units(one.template.text)))
    had = units(best.template.text)
    more = dict.fromkeys(p for p in phrases if "{}" in p and p not in had)
    return [Template(str(sentence.with_phrase(phrase))) for phrase in list(more)[:BEST]]


def start_of(archive: Archive, task: Task) -> Scored:
    """The start, as the archive has it."""
    found = archive.find(task.start)
    assert found is not None  # it is scored first
    return found
