"""CraFT as published (Wang et al., ICML 2024): a generation of the prompt and an epoch of the head
in turns.

Access: ``soft``. Equations are numbered as in :mod:`llmopt.search.soft.craft`. One turn of the
released code:

1. CMA-ES asks for a population of z, each is scored by (3) on features encoded once, one random
   view of each training image; it is told the values.
2. A *fresh* population is drawn from the new distribution, neither scored nor told; the context is
   ``p0`` plus the mean of its ``A z``.
3. One epoch of the head by (4), over images augmented and encoded anew, with the context encoded
   anew for every batch.

The last context and head are the result. What the paper describes otherwise, or what the released
code does by oversight, is a setting:

=============== ======================= ====================================== ==================
setting         ``released``            meaning                                ``paper``
=============== ======================= ====================================== ==================
context         ``draws``               step 2; ``mean`` of the distribution   ``mean``
consistency     ``released``            (3) as printed there; ``paper`` swaps  ``paper``
                                        the arguments of its KL
feature_norm    10                      the head is trained on scores larger   1
                                        by the norm of the image features,
                                        which the code forgets to normalise
decay           0 (Adam)                weight decay of AdamW                  0.01
=============== ======================= ====================================== ==================

A black box gives features normalised, so the norm they had is a guess: about 10 for CLIP's ViTs.

The ImageNet row of the table stands for the paper's variant there: a wider head, A as PyTorch
initialises a linear layer, no KL, and the best z ever seen in place of step 2.

With ``head=none`` it is the prompt search alone, steps 1 and 2 on the cross-entropy: what CraFT's
tables call BBT. ``profile=paper`` is reconstructed from public reviews and descriptions of the
paper, whose text was not at hand.

Queries: the paper counts one for each z of step 1. Counted here beside them are the K soft prompts
of every batch of step 3 and its N images an epoch.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt

from llmopt.data.augment import Augmentation
from llmopt.heads.fitted import FittedHead
from llmopt.heads.predictor import HeadedPredictor
from llmopt.heads.residual import Refinement, refinement_loss
from llmopt.predictor import Predictor
from llmopt.search.base import Optimizer, Outcome, Search
from llmopt.search.soft.craft import Craft
from llmopt.search.soft.machinery.cma_search import CmaSearch
from llmopt.search.soft.machinery.ending import Ending
from llmopt.search.soft.machinery.images import Encoded, view
from llmopt.search.soft.machinery.schedules import check_budget, check_choice
from llmopt.search.soft.machinery.scoring import cross_entropy, kl, score
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.search.soft.machinery.start import words_start
from llmopt.search.soft.machinery.subspace import Subspace, gaussian
from llmopt.search.soft.machinery.torch_state import below, pack, unpack
from llmopt.settings import Settings
from llmopt.spend.currency import Spend
from llmopt.spend.events import Progress
from llmopt.task import Task
from llmopt.vision.base import Access


@dataclass(frozen=True)
class TableRow:
    """A data set's line in the released configuration.

    Attributes:
        bound: of every coordinate of z; 0 is none.
        sigma: step size at the start.
        std: of A's entries; 0 is PyTorch's default for a linear layer, uniform in 1/sqrt(D).
        weight: w of (3) and (4).
        n: the head's KL term is switched off after 1/n of the budget.
        batch: images in a batch of the head.
        hidden: width of the head.
        crop: least share of an image's area in a crop.
        best: the context is that of the best z ever, as in the ImageNet variant.
    """

    bound: float
    sigma: float
    std: float
    weight: float
    n: int
    batch: int = 256
    hidden: int = 256
    crop: float = 0.5
    best: bool = False


_MOST: Final = TableRow(5, 1, 0.2, 0.1, 4)

TABLE: Final = {
    "caltech101": _MOST,
    "dtd": TableRow(5, 0.02, 1, 0.001, 1),
    "eurosat": TableRow(5, 0.02, 1, 0.01, 1),
    "fgvc_aircraft": TableRow(0, 0.02, 0.2, 0.1, 4),
    "food101": TableRow(0, 1, 0.2, 1, 1),
    "imagenet": TableRow(0, 1, 0, 0, 1, hidden=512, crop=0.08, best=True),
    "oxford_flowers": _MOST,
    "oxford_pets": TableRow(5, 0.02, 0.2, 0.1, 1, batch=64),
    "stanford_cars": _MOST,
    "sun397": _MOST,
    "ucf101": _MOST,
}
"""The released settings by data set; other data sets take those that most have."""


@dataclass(frozen=True)
class CraftReleasedSettings(Settings):
    """Settings of ``craft`` with ``profile=released``; the defaults are those of the released code.

    Attributes:
        budget: contexts scored to find the prompt; None is 2,000, 4,000 or 8,000 by shots.
        dim: D, dimensions that are searched.
        population: contexts a generation.
        row: the data set whose published settings are taken; empty is the task's own, or
            caltech101's where there is none.
        context: what a generation hands on: the mean of a fresh population (``draws``) or of the
            distribution (``mean``).
        consistency: order of the two predictions in the KL, ``released`` or ``paper``.
        head: ``residual``, or ``none``, which leaves out the KL too.
        feature_norm: norm of image features that the head's training forgets to divide by; 1
            forgets nothing.
        lr, decay: of the head's AdamW.
        flip: mirror half of the augmented images.
    """

    budget: int | None = None
    dim: Annotated[int, Ge(2)] = 512
    population: Annotated[int, Ge(4)] = 40
    row: str = ""
    context: Literal["draws", "mean"] = "draws"
    consistency: Literal["released", "paper"] = "released"
    head: Literal["residual", "none"] = "residual"
    feature_norm: Annotated[float, Gt(0)] = 10.0
    lr: Annotated[float, Gt(0)] = 1e-3
    decay: Annotated[float, Ge(0)] = 0.0
    flip: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("row", self.row, ["", *TABLE])
        check_budget(self.budget, self.population)

    def line(self, task: Task) -> TableRow:
        """The line of the table that a task goes by."""
        return TABLE[self.row] if self.row else TABLE.get(task.dataset, _MOST)

    def evaluations(self, task: Task) -> int:
        """The budget set, or fitness evaluations by shots; ImageNet's were fewer."""
        few = task.shots <= 4 or task.dataset == "imagenet"
        return self.budget or (2000 if task.shots == 1 else 4000 if few else 8000)


@dataclass(frozen=True)
class CraftPaperSettings(CraftReleasedSettings):
    """Settings of ``craft`` with ``profile=paper``: the same ones with reconstructed values."""

    context: Literal["draws", "mean"] = "mean"
    consistency: Literal["released", "paper"] = "paper"
    feature_norm: Annotated[float, Gt(0)] = 1.0
    decay: Annotated[float, Ge(0)] = 0.01


class Alternation:
    """The algorithm; its parts are made at once and cost nothing yet."""

    def __init__(self, settings: CraftReleasedSettings, search: Search) -> None:
        task, box = search.task, search.box
        self.settings, self.search, self.row = settings, search, settings.line(task)
        self.start = words_start(box, "a photo of a", task.classnames)
        self.subspace = Subspace(self.start.context, self._projection())
        self.cma = CmaSearch(
            settings.dim,
            self.row.sigma,
            settings.population,
            seed=int(search.rng("craft", "cma").integers(2**31)),
            bound=self.row.bound,
        )
        dice = torch.Generator().manual_seed(int(search.rng("craft", "head").integers(2**62)))
        self.headed = settings.head != "none"
        self.weight = self.row.weight if self.headed else 0.0
        self.head = Refinement(len(task.classnames), self.row.hidden, dice, start="released")
        # AdamW without decay is Adam.
        self.adam = torch.optim.AdamW(
            self.head.parameters(), lr=settings.lr, weight_decay=settings.decay
        )
        self.context = self.start.context
        self.best = math.inf

    def run(self) -> Outcome:
        """Alternate until the budget is spent; return the last prompt and head."""
        search, budget = self.search, self.settings.evaluations(self.search.task)
        turns = budget // self.settings.population
        with Ending() as ending:
            fixed = self._encode(0)
            self._restore()
            while self.cma.generation < turns:
                turn = self.cma.generation
                fitness = self._prompt_phase(fixed)
                used = (turn + 1) * self.settings.population
                lowest, accuracy = float(fitness.min()), None
                known: dict[str, Any] = {"fitness": lowest, "mean_fitness": float(fitness.mean())}
                known["sigma"] = self.cma.sigma
                if self.headed:
                    weight = self.weight if used <= budget // self.row.n else 0.0
                    known["train_accuracy"] = accuracy = self._head_phase(turn, weight)
                search.event(
                    "generation",
                    index=turn,
                    soft_prompt_encodings=int(search.ledger["soft_prompt_encodings"]),
                    **{name: round(value, 6) for name, value in known.items()},
                )
                self._save()
                search.on_progress(
                    Progress(
                        turn + 1,
                        turns,
                        "last soft prompt",
                        train_accuracy=accuracy,
                        score=-lowest,
                        note=f"sigma {self.cma.sigma:.3g}, {budget - used} evaluations left",
                    )
                )
                if self.cma.stopped:
                    ending.reason = f"CMA-ES: {self.cma.stopped}"
                    break
        predictor: Predictor = SoftPredictor(self.context.numpy().copy(), self.start.names)
        if self.headed:
            fitted = FittedHead("residual", self.head.arrays(), {})
            predictor = HeadedPredictor(predictor, fitted)
        evaluated = self.cma.generation * self.settings.population
        counted = {"evaluations_as_published": evaluated}
        return Outcome(predictor, ending.reason, summary=counted)

    def _prompt_phase(self, images: Encoded) -> npt.NDArray[np.float64]:
        """Steps 1 and 2; returns the (population,) fitness (3)."""
        z = self.cma.ask()
        contexts = self.subspace.contexts(z)
        head = copy.deepcopy(self.head)  # the original stays on the CPU, where it is trained

        @torch.no_grad()
        def fitness(scores: torch.Tensor) -> torch.Tensor:
            loss = cross_entropy(scores, images.labels)
            if self.weight:
                pair = (scores, head.to(scores.device)(scores))
                target, other = pair if self.settings.consistency == "paper" else reversed(pair)
                loss = loss + self.weight * kl(target, other)
            return loss

        values = score(self.search.box, images, contexts, self.start.names, fitness).double()
        self.cma.tell(values.numpy())
        if self.row.best:
            if float(values.min()) < self.best:
                self.best = float(values.min())
                self.context = contexts[int(values.argmin())]
        elif self.settings.context == "mean":
            self.context = self.subspace.contexts(self.cma.mean)
        else:
            self.context = self.subspace.contexts(self.cma.draw().mean(axis=0))
        return values.numpy()

    def _head_phase(self, turn: int, weight: float) -> float:
        """Step 3; returns the training accuracy on the way."""
        images = self._encode(1 + turn)
        order = torch.from_numpy(self.search.rng("craft", "epoch", turn).permutation(len(images)))
        right = 0
        for batch in torch.split(order, self.row.batch):
            rows = images[batch.numpy()]
            raw = score(self.search.box, rows, self.context[None], self.start.names)[0]
            raw = raw * self.settings.feature_norm
            refined = self.head(raw)
            self.adam.zero_grad()
            torch.autograd.backward(refinement_loss(raw, refined, rows.labels, weight))
            self.adam.step()
            right += int((refined.argmax(dim=-1) == rows.labels).sum())
        return right / len(images)

    def _encode(self, number: int) -> Encoded:
        """The training images in augmented view ``number``."""
        search = self.search
        how = Augmentation(scale=(self.row.crop, 1.0), flip=self.settings.flip)
        return Encoded.passing(search.box, view(search.task.train, number, search.seed, how))

    def _projection(self) -> torch.Tensor:
        rng, dim = self.search.rng("craft", "projection"), self.settings.dim
        size = self.start.context.numel()
        if self.row.std:
            return gaussian(rng, size, dim, self.row.std)
        uniform = rng.uniform(-1.0, 1.0, (size, dim)) / math.sqrt(dim)
        return torch.from_numpy(uniform.astype(np.float32))

    def _save(self) -> None:
        tensors: dict[str, npt.NDArray[Any]] = {
            "context": self.context.numpy(),
            "best": np.array([self.best]),
            **self.cma.state(),
            **{f"head.{name}": array for name, array in self.head.arrays().items()},
            **pack(self.adam),
        }
        self.search.save(tensors, {})

    def _restore(self) -> None:
        if kept := self.search.restore():
            tensors, _ = kept
            self.cma.replay(tensors)
            self.context = torch.from_numpy(tensors["context"])
            self.best = float(tensors["best"][0])
            self.head.load(below("head.", tensors))
            unpack(self.adam, tensors)


class CraftReleased(Optimizer[CraftReleasedSettings]):
    """Collaborative fine-tuning of a soft prompt and a head, as released."""

    name = Craft.name
    form = "released"
    FORMS = Craft.FORMS
    access = Access.SOFT
    Settings: ClassVar[type[CraftReleasedSettings]] = CraftReleasedSettings
    HEADLESS: ClassVar = {"head": "none"}

    def bounds(self, task: Task) -> Spend:
        """Exact, unless a rule of CMA-ES ends the search early."""
        s, images, classes = self.settings, len(task.train), len(task.classnames)
        turns = s.evaluations(task) // s.population
        scored, batches = turns * s.population, math.ceil(images / s.line(task).batch)
        epochs = turns if s.head != "none" else 0
        return Spend(
            image_encodings=images * (1 + epochs),
            soft_prompt_encodings=(scored + epochs * batches) * classes,
            pairs_scored=(scored + epochs) * images * classes,
        )

    def run(self, search: Search) -> Outcome:
        """Alternate until the budget is spent; return the last prompt and head."""
        return Alternation(self.settings, search).run()


class CraftPaper(CraftReleased):
    """Collaborative fine-tuning of a soft prompt and a head, the paper's order reconstructed."""

    form = "paper"
    Settings = CraftPaperSettings
