"""Other names for the classes that are confused most.

A new name changes one column of the scores, so it costs one text encoding where a template costs K,
and each class can be tried by itself. A name is accepted by the likelihood of the images it can
touch: those of its class and of the classes it is confused with.
"""

from __future__ import annotations

import re
from collections import Counter
from string import Template as Wording
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmopt.errors import BudgetExhausted, ContentRefused, ContextOverflow, TemplateError
from llmopt.language.reasoning import strip_reasoning
from llmopt.resources import read_prompt
from llmopt.search.base import Search
from llmopt.stats import log_likelihoods, settled
from llmopt.task import Labelled
from llmopt.template import SLOT, Template, clean, display_name

if TYPE_CHECKING:
    from llmopt.task import FloatArray

PROPOSED = 6
_ITEM = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+(\S.*?)\s*$", re.MULTILINE)
_MAX_WORDS = 6


def find_aliases(
    search: Search, template: Template, classes: int, counts: Counter[str]
) -> list[str]:
    """Class names, those of the most confused classes replaced where that helps.

    Args:
        search: task, black box and chat model.
        template: what the names are filled into.
        classes: how many classes are looked at.
        counts: ``aliases_proposed`` and ``aliases_accepted`` are added to.

    Returns:
        K names, in label order.
    """
    task = search.task
    names = [display_name(name) for name in task.classnames]
    images = Labelled(
        task.train.images + task.val.images, np.concatenate([task.train.labels, task.val.labels])
    )
    try:
        logits = _scores(search, images, template, names)
        for turn, (label, confusers) in enumerate(_most_confused(logits, images, classes)):
            proposed = _ask(search, template, names, label, confusers, turn)
            counts["aliases_proposed"] += len(proposed)
            best = _best(search, images, template, names, label, confusers, logits, proposed)
            if best is not None:
                names[label] = best
                logits = _scores(search, images, template, names)
                counts["aliases_accepted"] += 1
    except BudgetExhausted:
        pass
    return names


def _scores(search: Search, images: Labelled, template: Template, names: list[str]) -> FloatArray:
    (scores,) = search.box.score_templates(images, [template], names)
    return np.asarray(scores)


def _most_confused(
    logits: FloatArray, images: Labelled, classes: int
) -> list[tuple[int, list[int]]]:
    """Labels with the least likelihood that make mistakes, and what each is taken for."""
    predicted = logits.argmax(axis=1)
    likelihoods = log_likelihoods(logits, images.labels)
    wrong = predicted != images.labels
    labels = np.unique(images.labels[wrong])
    means = {int(k): float(likelihoods[images.labels == k].mean()) for k in labels}
    return [
        (k, [int(p) for p in np.unique(predicted[wrong & (images.labels == k)])])
        for k in sorted(means, key=lambda k: means[k])[:classes]
    ]


def _ask(
    search: Search,
    template: Template,
    names: list[str],
    label: int,
    confusers: list[int],
    turn: int,
) -> list[str]:
    from langchain_core.messages import HumanMessage

    assert search.chat is not None  # the engine sees to it
    text = Wording(read_prompt("meta/aliases.txt")).safe_substitute(
        sentence=template.fill(names[label]),
        name=names[label],
        confusers=", ".join(f'"{names[k]}"' for k in confusers),
        count=str(PROPOSED),
    )
    try:
        reply = search.chat.ask([HumanMessage(text)], stream="aliases", turn=turn)
    except (ContentRefused, ContextOverflow):
        return []
    taken = {name.lower() for name in names}
    found: dict[str, str] = {}
    for item in _ITEM.findall(strip_reasoning(reply.text)):
        name = clean(item).strip("\"'`*“”.")
        if name and SLOT not in name and len(name.split()) <= _MAX_WORDS:
            found.setdefault(name.lower(), name)
    return [name for lower, name in found.items() if lower not in taken][:PROPOSED]


def _best(
    search: Search,
    images: Labelled,
    template: Template,
    names: list[str],
    label: int,
    confusers: list[int],
    logits: FloatArray,
    proposed: list[str],
) -> str | None:
    """The alias with the largest convincing paired gain on the images it can touch."""
    touched = np.isin(images.labels, [label, *confusers])
    before = log_likelihoods(logits, images.labels)[touched]
    best: tuple[float, str] | None = None
    for alias in proposed:
        changed = [*names[:label], alias, *names[label + 1 :]]
        try:
            search.box.check(template, [alias])
        except TemplateError:
            continue
        after = log_likelihoods(_scores(search, images, template, changed), images.labels)[touched]
        gain = _lower_bound(after - before)
        if gain > 0 and (best is None or gain > best[0]):
            best = gain, alias
    return best[1] if best else None


def _lower_bound(differences: npt.NDArray[np.float64]) -> float:
    if len(differences) < 2:
        return -1.0
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(settled(differences.mean() - error))
