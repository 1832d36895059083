"""The end of a climb: the best template with fewer words, if it does as well."""

from __future__ import annotations

from collections.abc import Iterable

from llmopt.errors import BudgetExhausted
from llmopt.search.base import Search
from llmopt.search.text.archive import Archive, Fitness, Scored, ranked
from llmopt.search.text.selection import as_good
from llmopt.sentences import Sentence
from llmopt.template import Template

POLISH = 24  # templates that taking out phrases may cost


def polish(search: Search, found: list[Scored], fitness: Fitness) -> list[Scored]:
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
            best = min(fine, key=lambda one: one.template.length[0])
    except BudgetExhausted:
        pass
    # The shortest goes first: it is a finalist whatever its rank.
    return [best, *(one for one in distinct([*found, *archive.ranked()]) if one is not best)]


def _template(sentence: Sentence) -> Template:
    return Template(str(sentence))


def distinct(scored: Iterable[Scored]) -> list[Scored]:
    """Each template once, best first."""
    first: dict[str, Scored] = {}
    for one in scored:
        first.setdefault(one.template.normal, one)
    return ranked(first.values())
