"""A search that moves a soft prompt step by step, and the two ways to run one.

:func:`follow` is the safe way, of our own forms: it starts at the user's template, looks at
each waypoint on the plain images, and ends with the likeliest or with the template itself.
:func:`march` is the published way: it ends wherever the last step led.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy.typing as npt
import torch

from llmopt.search.base import Outcome, Search
from llmopt.search.soft.machinery.ending import Ending
from llmopt.search.soft.machinery.images import Encoded
from llmopt.search.soft.machinery.scoring import cross_entropy
from llmopt.search.soft.machinery.trail import Trail, conclude
from llmopt.spend.events import Progress

Arrays = dict[str, npt.NDArray[Any]]


class Walk(ABC):
    """A search in progress. It spends through the metered box and may be ended by it anywhere."""

    cost: int
    """Contexts it scores in a step."""

    @property
    @abstractmethod
    def context(self) -> torch.Tensor:
        """Where it stands: (m, e), or (K, m, e) with a context for each class."""

    @abstractmethod
    def advance(self, step: int, scores: torch.Tensor | None = None) -> float:
        """Take a step.

        Args:
            step: 0, 1, ...; all randomness of a step hangs on it.
            scores: (N, K) of the fitted images where it stands, if they are at hand.

        Returns:
            The loss it saw.
        """

    @abstractmethod
    def state(self) -> Arrays:
        """Everything that changes, for a checkpoint."""

    @abstractmethod
    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """The inverse of :meth:`state`."""

    @property
    def stopped(self) -> str:
        """Why no further step makes sense; empty while one does."""
        return ""

    @property
    def figures(self) -> Mapping[str, float]:
        """Numbers worth showing, such as a step size."""
        return {}


def follow(
    search: Search,
    names: tuple[str, ...],
    make: Callable[[Encoded], Walk],
    steps: int,
    *,
    views: int = 0,
    standard_errors: float = 1.0,
    head: str = "none",
) -> Outcome:
    """Walk and judge every waypoint; end with the likeliest or with the start template.

    Args:
        search: task and black box.
        names: what follows the context.
        make: the walk, given the images to fit.
        steps: how many.
        views: augmented views of each training image among those images.
        standard_errors: how many a gain over the start must exceed to be kept.
        head: tried on the result.
    """
    trail = None
    with Ending() as ending:
        trail = Trail(search, names, views)
        walk = make(trail.fit)
        for step in _steps(search, walk, steps, ending, trail):
            scores = trail.visit(walk.context)
            walk.advance(step, scores)
            loss = float(cross_entropy(scores[None], trail.fit.labels))
            _report(search, walk, step, steps, loss, *trail.accuracies())
        trail.visit(walk.context)
    return conclude(search, trail, names, ending.reason, standard_errors, head)


def march(search: Search, walk: Walk, steps: int) -> str:
    """Walk to the end; why it ended."""
    with Ending() as ending:
        for step in _steps(search, walk, steps, ending):
            loss = walk.advance(step)
            _report(search, walk, step, steps, loss)
    return ending.reason


def _steps(
    search: Search, walk: Walk, steps: int, ending: Ending, trail: Trail | None = None
) -> Iterator[int]:
    """The steps still to be taken, with a checkpoint after each that is not too dear."""
    first = 0
    if kept := search.restore():
        tensors, state = kept
        first = state["step"]
        walk.restore(tensors)
        if trail is not None:
            trail.restore(tensors)
    clock, saved, price = search.ledger.seconds, search.ledger.seconds(), 0.0
    for step in range(first, steps):
        if walk.stopped:
            ending.reason = walk.stopped
            return
        yield step
        # What is lost by a kill is repeated; what is saved takes a twentieth of the time at most.
        if (now := clock()) - saved >= 20 * price:
            waypoints = {} if trail is None else trail.state()
            search.save({**walk.state(), **waypoints}, {"step": step + 1})
            saved, price = clock(), clock() - now


def _report(
    search: Search,
    walk: Walk,
    step: int,
    steps: int,
    loss: float,
    train: float | None = None,
    val: float | None = None,
) -> None:
    known = {"loss": loss, "train_accuracy": train, "val_accuracy": val, **walk.figures}
    data: dict[str, Any] = {k: round(v, 6) for k, v in known.items() if v is not None}
    spent = int(search.ledger["soft_prompt_encodings"])
    search.event("step", index=step, soft_prompt_encodings=spent, **data)
    figures = [f"{name} {value:.3g}" for name, value in walk.figures.items()]
    left = (steps - step - 1) * walk.cost
    search.on_progress(
        Progress(
            step + 1,
            steps,
            "soft prompt",
            train_accuracy=train,
            val_accuracy=val,
            score=-loss,
            note=", ".join([*figures, f"{left:,} contexts left"]),
        )
    )
