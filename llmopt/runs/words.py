"""What each word of a template is worth: the template without it, on the few shots.

A word is left out, and the rest is scored on the run's training and validation images. What the
true classes lose in likelihood is what the word was worth. The images are those the template was
chosen on, so the figures flatter it; among the words they can be compared. Classes are called what
the run calls them; descriptions and heads stand apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmopt.errors import ConfigError, TemplateError
from llmopt.predictor import single
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import compose
from llmopt.runs.load import load_predictor
from llmopt.runs.trust import refuse_untrusted
from llmopt.search.text.archive import Scored
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger
from llmopt.template import SLOT, Template
from llmopt.vision.metered import MeteredBox


@dataclass(frozen=True)
class Word:
    """A word of a template.

    Attributes:
        text: the word.
        without: the template that lacks it.
        worth: what the log-likelihood of the true class loses without it, nats an image.
        se: its standard error over the images; None for a single image.
        accuracy: what the accuracy loses, a fraction.
    """

    text: str
    without: str
    worth: float
    se: float | None
    accuracy: float


@dataclass(frozen=True)
class WordsWorth:
    """The words of a run's templates.

    Attributes:
        run: its folder.
        images: training and validation images they were scored on.
        templates: words by template, in their order; those in whose absence no template is left
            are passed over.
        apart: what else the run found, without which they were scored.
    """

    run: Path
    images: int
    templates: dict[str, tuple[Word, ...]]
    apart: tuple[str, ...] = ()


def words_worth(folder: Path, watch: Watch | None = None, trust_config: bool = False) -> WordsWorth:
    """Leave out each word of what a run found, one at a time.

    Args:
        folder: of a finished or interrupted run.
        watch: told what takes a while.
        trust_config: as in :func:`llmopt.resume`.

    Raises:
        ConfigError: the run found no text.
    """
    watch = watch or Watch()
    predictor = load_predictor(folder, watch.warn)
    found = predictor.text
    if found is None:
        raise ConfigError(f"run {folder} found no text whose words could be left out")
    config = run_folder.read_run_config(folder)
    if not trust_config:
        refuse_untrusted(config, folder / run_folder.CONFIG, chat=False)
    setup = compose(config)
    task = setup.task
    box = MeteredBox(setup.open_box(watch), Ledger())
    parts = [part for part in (task.train, task.val) if len(part)]

    def scored(template: Template) -> list[Scored]:
        predictor = single(template, found.classnames)
        return [Scored.of(template, predictor.scores(box, part), part) for part in parts]

    def words(template: Template) -> tuple[Word, ...]:
        whole = scored(template)
        shorter = [(word, rest, scored(rest)) for word, rest in _left_out(template)]
        return tuple(_word(word, rest, whole, without) for word, rest, without in shorter)

    watch.stage("leaving out words")
    images = sum(len(part) for part in parts)
    others = {"descriptions": predictor.by_class, "head": predictor.head}
    apart = tuple(name for name, there in others.items() if there is not None)
    return WordsWorth(folder, images, {one.text: words(one) for one in found.templates}, apart)


def _left_out(template: Template) -> list[tuple[str, Template]]:
    """Each word, and the template without it."""
    words = template.text.split()
    found = []
    for place, word in enumerate(words):
        rest = " ".join(words[:place] + words[place + 1 :])
        if SLOT in word:
            continue
        try:
            found.append((word, Template(rest)))
        except TemplateError:
            continue
    return found


def _word(word: str, rest: Template, whole: list[Scored], without: list[Scored]) -> Word:
    lost = np.concatenate([one.likelihoods for one in whole])
    lost = lost - np.concatenate([one.likelihoods for one in without])
    right, wrong = (np.concatenate([one.correct for one in part]) for part in (whole, without))
    se = float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else None
    accuracy = float(right.mean() - wrong.mean())
    return Word(word, rest.text, round(float(lost.mean()), 6), se, accuracy)
