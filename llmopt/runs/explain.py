"""The words nearest to a soft prompt's vectors, and how little they say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from llmopt.errors import ConfigError
from llmopt.runs import folder as run_folder
from llmopt.runs.compose import compose
from llmopt.runs.load import load_predictor
from llmopt.runs.trust import refuse_untrusted
from llmopt.search.soft.machinery.start import soft_start
from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger
from llmopt.vision.metered import MeteredBox
from llmopt.vision.vocabulary import Neighbour, Vocabulary


@dataclass(frozen=True)
class Place:
    """One vector of a soft prompt.

    Attributes:
        nearest: tokens of the vocabulary, nearest first.
        length: of the vector.
        moved: distance from where the search began; None where it did not begin at as many words.
        began_at: the word it began at; None likewise.
    """

    nearest: tuple[Neighbour, ...]
    length: float
    moved: float | None = None
    began_at: str | None = None


@dataclass(frozen=True)
class Explanation:
    """A soft prompt in words.

    Attributes:
        run: its folder.
        model: whose vocabulary it is.
        prompts: places by class name, or one entry under ``""`` for a prompt all classes share.
        token_spacing: median distance of the named tokens to the nearest other one.
        as_vectors: accuracy of the soft prompt, without a head, on the run's training images.
        as_words: the same of the nearest tokens' vectors in its place.
    """

    run: Path
    model: str
    prompts: dict[str, tuple[Place, ...]]
    token_spacing: float
    as_vectors: float
    as_words: float

    @property
    def nearest_distance(self) -> float:
        """Median distance of the vectors to the nearest token."""
        places = [place for places in self.prompts.values() for place in places]
        return float(np.median([place.nearest[0].distance for place in places]))


def explain(
    folder: Path, k: int = 5, watch: Watch | None = None, trust_config: bool = False
) -> Explanation:
    """Put a run's soft prompt next to the vocabulary of its model.

    Args:
        folder: of a finished run.
        k: tokens named for each vector.
        watch: told what takes a while.
        trust_config: as in :func:`llmopt.resume`.

    Raises:
        ConfigError: the run found text prompts.
        AccessError: the black box does not show its vocabulary.
    """
    watch = watch or Watch()
    if k < 1:
        raise ConfigError(f"--top {k} must be 1 or more")
    predictor = load_predictor(folder).innermost
    if predictor.soft_prompt is None:
        raise ConfigError(
            f"run {folder} found no soft prompt to explain; it found text, readable as it is: "
            f"{predictor.describe()}"
        )
    config = run_folder.read_run_config(folder)
    if not trust_config:
        refuse_untrusted(config, folder / run_folder.CONFIG, chat=False)
    setup = compose(config)
    task = setup.task
    metered = MeteredBox(setup.open_box(watch), Ledger())
    vocabulary = metered.vocabulary
    arrays, rest = predictor.state()
    context = arrays["context"]
    shared = context.ndim == 2
    contexts = torch.from_numpy(context[None] if shared else context)
    began = None
    if setup.optimizer.starts_at_template:
        start = soft_start(metered, task.start, task.classnames).context
        began = start if len(start) == contexts.shape[1] else None
    prompts = [_places(vocabulary, one, began, k) for one in contexts]

    nearest = [place.nearest for places in prompts for place in places]
    tokens = [near[0].token for near in nearest]
    words = vocabulary.vectors(tokens).cpu().numpy().reshape(context.shape)
    spelled = predictor.from_state({**arrays, "context": words}, rest)
    right = [
        float((found.scores(metered, task.train).argmax(axis=1) == task.train.labels).mean())
        for found in (predictor, spelled)
    ]
    return Explanation(
        run=folder,
        model=f"{metered.info.name} {metered.info.pretrained}".strip(),
        prompts=dict(zip([""] if shared else task.classnames, prompts, strict=True)),
        token_spacing=vocabulary.spacing(
            [n.token for ps in prompts for p in ps for n in p.nearest]
        ),
        as_vectors=right[0],
        as_words=right[1],
    )


def _places(
    vocabulary: Vocabulary, context: torch.Tensor, began: torch.Tensor | None, k: int
) -> tuple[Place, ...]:
    """Of one (m, e) context; ``began`` is where its search did."""
    nearest = vocabulary.nearest(context, k)
    lengths = torch.linalg.vector_norm(context, dim=1).tolist()
    if began is None:
        return tuple(Place(tuple(n), length) for n, length in zip(nearest, lengths, strict=True))
    words = [word for (word,) in vocabulary.nearest(began, 1)]
    moved = torch.linalg.vector_norm(context - began, dim=1).tolist()
    return tuple(
        Place(tuple(n), length, distance, word.text)
        for n, length, distance, word in zip(nearest, lengths, moved, words, strict=True)
    )
