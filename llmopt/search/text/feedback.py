"""What a language model is told of its last proposals beside their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from llmopt.search.text.archive import Scored
from llmopt.search.text.conversation import Picture
from llmopt.search.text.replies import ParsedReply
from llmopt.task import Task
from llmopt.template import Template


def confusions(best: Scored, task: Task, limit: int) -> list[str]:
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


def mistakes(best: Scored, task: Task, limit: int) -> list[Picture]:
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


def notes_on(
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
    if dropped := [t.text for t in new if t not in {one.template for one in results}][:5]:
        notes.append(f"clearly worse than the best on a few images: {'; '.join(dropped)}")
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
