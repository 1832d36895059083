"""Contexts a search passed through, and the choice among them and the start.

A continuous search lowers its loss on the training images whether or not that helps elsewhere. So
it stops now and then to score where it stands on the plain images as well, and in the end the
likeliest of these waypoints on the validation images (on the training images, where there are no
others) is kept, if it is convincingly better than the template the user started from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from llmopt.data.augment import Augmentation
from llmopt.heads import HEADS
from llmopt.heads.base import temperature
from llmopt.heads.predictor import with_head
from llmopt.predictor import Predictor, single
from llmopt.search.base import Outcome, Search
from llmopt.search.soft.machinery.ending import Ending
from llmopt.search.soft.machinery.images import Encoded, view
from llmopt.search.soft.machinery.scoring import score
from llmopt.search.soft.machinery.soft_predictor import SoftPredictor
from llmopt.spend.currency import Spend
from llmopt.stats import correct, log_likelihoods, paired_t, settled
from llmopt.task import FloatArray, Task
from llmopt.vision.answers import WIDEST

Array = npt.NDArray[Any]

LEAST_GAIN: Final = 1e-4
"""Nats; less is rounding."""


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        index: of the waypoint; None is the start.
        gain, se: paired gain in log-likelihood over the start on the judging images, and its error.
    """

    index: int | None
    gain: float
    se: float


class Trail:
    """The waypoints of one search.

    Args:
        search: task and black box; the images and the start template's K prompts are paid for here.
        names: what follows the contexts.
        views: augmented views of each training image that help to fit, beside the image itself.

    Attributes:
        fit: the training images and their views, for the search to fit.
        views: of each.
        contexts: the waypoints' contexts, in order.
    """

    def __init__(self, search: Search, names: Sequence[str], views: int = 0) -> None:
        task, box = search.task, search.box
        self._box, self._names, self.views = box, names, views
        self._val, self._plain = len(task.val), len(task.val) + len(task.train)
        # In this order what is fitted and what is judged are both contiguous.
        parts = [Encoded.of(box, task.val)] if len(task.val) else []
        parts.append(Encoded.of(box, task.train))
        for number in range(1, views + 1):
            images = view(task.train, number, search.seed, Augmentation())
            parts.append(Encoded.of(box, images))
        self._all = Encoded.join(parts)
        self.fit = self._all[self._val :]
        self._judges = slice(0, self._val) if self._val else slice(0, self._plain)
        template = [task.start]
        start = [box.score_templates(part, template, task.classnames)[0]
                 for part in (task.val, task.train) if len(part)]  # fmt: skip
        self._start = self._judged(np.concatenate(start))
        self.contexts: list[FloatArray] = []
        self._found: list[tuple[Array, Array]] = []

    def __len__(self) -> int:
        return len(self.contexts)

    def visit(self, context: torch.Tensor) -> torch.Tensor:
        """Score a context, (m, e) or (K, m, e), and remember it.

        Returns:
            Its scores of :attr:`fit`.
        """
        scores = score(self._box, self._all, context[None], self._names)[0]
        self.contexts.append(context.detach().numpy().astype(np.float32))
        self._found.append(self._judged(scores[: self._plain].numpy()))
        return scores[self._val :]

    def accuracies(self, index: int | None = -1) -> tuple[float, float | None]:
        """On training and validation images, of a waypoint (the last) or of the start (None)."""
        hits = (self._start if index is None else self._found[index])[1]
        held = hits[: self._val]
        return float(hits[self._val :].mean()), float(held.mean()) if held.size else None

    def choose(self, standard_errors: float = 1.0) -> Choice:
        """The likeliest waypoint if it is convincingly better than the start, else the start."""
        if not self._found:
            return Choice(None, 0.0, 0.0)
        rows = self._judges
        index = int(settled([found[rows].mean() for found, _ in self._found]).argmax())
        likelihoods, hits = self._found[index]
        gain = paired_t(likelihoods[rows] - self._start[0][rows])
        worse = hits[rows].sum() < self._start[1][rows].sum()
        kept = worse or gain.mean <= max(standard_errors * gain.se, LEAST_GAIN)
        return Choice(None if kept else index, gain.mean, gain.se)

    def state(self) -> dict[str, Array]:
        """For a checkpoint."""
        if not self.contexts:
            return {}
        return {
            "trail.contexts": np.stack(self.contexts),
            "trail.likelihoods": np.stack([likelihoods for likelihoods, _ in self._found]),
            "trail.hits": np.stack([hits for _, hits in self._found]).astype(np.uint8),
        }

    def restore(self, tensors: Mapping[str, Array]) -> None:
        """The inverse of :meth:`state`."""
        if "trail.contexts" in tensors:
            self.contexts = list(tensors["trail.contexts"])
            hits = tensors["trail.hits"].astype(bool)
            self._found = list(zip(tensors["trail.likelihoods"], hits, strict=True))

    def _judged(self, scores: FloatArray) -> tuple[Array, Array]:
        """Log-likelihoods at the temperature that suits the judging images best, and hits."""
        labels = self._all.labels[: self._plain].numpy()
        # A search may sharpen or flatten the scores; that is not what is judged.
        divisor = temperature(scores[self._judges], labels[self._judges])
        return log_likelihoods(scores / divisor, labels), correct(scores, labels)


def trail_bounds(task: Task, views: int, visits: int, candidates: int, head: str = "none") -> Spend:
    """Upper bounds of a search with a trail.

    Args:
        task: what is to be learned.
        views: of each training image.
        visits: waypoints.
        candidates: contexts scored on :attr:`Trail.fit` only.
        head: fitted at the end.
    """
    classes, plain = len(task.classnames), len(task.train) + len(task.val)
    fit = len(task.train) * (1 + views)
    everything = fit + len(task.val)
    # A head wants the scores of the training and of the validation images, and the text features.
    asked = 0 if head == "none" else 1 + bool(len(task.val)) + HEADS.get(head).looks_at_features
    pairs = everything + WIDEST if asked else 0  # for reading off a text feature
    return Spend(
        image_encodings=everything,
        text_encodings=classes,
        soft_prompt_encodings=(visits + candidates + asked) * classes,
        pairs_scored=classes * (plain + visits * everything + candidates * fit + pairs),
    )


def conclude(
    search: Search,
    trail: Trail | None,
    names: tuple[str, ...],
    reason: str,
    standard_errors: float,
    head: str = "none",
) -> Outcome:
    """The likeliest waypoint, and a head on it if that helps too; or the start template.

    Args:
        search: task and black box.
        trail: None if the caps did not pay for one.
        names: what follows the contexts.
        reason: why the search ended.
        standard_errors: how many a gain must exceed to count.
        head: a head to try.
    """
    choice = Choice(None, 0.0, 0.0) if trail is None else trail.choose(standard_errors)
    summary: dict[str, Any] = {"gain_nats": round(choice.gain, 4), "gain_se": round(choice.se, 4)}
    if not len(search.task.val):
        summary["judged_on"] = (
            "the training images: there are no validation images; this figure is optimistic"
        )
    if trail is None or choice.index is None:
        start = single(search.task.start, search.task.classnames)
        known = None if trail is None else trail.accuracies(None)
        return Outcome(start, reason, fallback=True, summary=summary, accuracies=known)
    accuracies = trail.accuracies(choice.index)
    predictor: Predictor = SoftPredictor(trail.contexts[choice.index], names)
    summary["waypoint"] = f"{choice.index + 1} of {len(trail)}"
    if head != "none":
        with Ending() as ending:
            predictor, selection = with_head(
                predictor,
                (head,),
                search.box,
                search.task,
                search.seed,
                views=trail.views,
                standard_errors=standard_errors,
            )
            summary["head"] = selection.reason
            accuracies = selection.accuracies or accuracies
        reason = ending.reason if reason == "iterations" else reason
    return Outcome(predictor, reason, summary=summary, accuracies=accuracies)
