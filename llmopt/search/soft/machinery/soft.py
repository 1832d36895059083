"""Soft prompts: what the continuous methods share.

A soft prompt is m token vectors that stand in a prompt where a template has words:
``[start | context | "class name." | end]``. Here is where they start from, how they are scored on
the few shots, how a search ends, and what it leaves behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from llmopt.data.augment import Augmentation, View
from llmopt.errors import BudgetExhausted, ConfigError, nearest
from llmopt.predictor import Predictor
from llmopt.task import FloatArray, Labelled
from llmopt.template import SLOT, Template, display_name

if TYPE_CHECKING:
    from llmopt.search.base import Search
    from llmopt.vision.base import BlackBox
    from llmopt.vision.metered import MeteredBox

# Floats held at once while a population is scored: 128 MiB of text features and logits.
_WORKSPACE: Final = 2**25


# --- where a soft prompt starts ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SoftStart:
    """A template as a soft prompt.

    Attributes:
        context: (m, e) float32 vectors of the words before the slot, m >= 1.
        names: what follows the context, one a class, without the full stop that ends it.
    """

    context: torch.Tensor
    names: tuple[str, ...]


def soft_start(box: MeteredBox, template: Template, classnames: Sequence[str]) -> SoftStart:
    """The soft prompt whose text features are the template's own.

    Words after the slot move into the names: ``a {} on the left.`` is the context ``a`` followed by
    ``circle on the left.`` A template with nothing before its slot has no vector to change, so it
    gets those of ``a photo of a``; one that does not end in a full stop gets one. Both differ from
    the template then.
    """
    before, after = template.text.split(SLOT)
    names = plain_names([f"{name}{after}".removesuffix(".") for name in classnames])
    context = box.embed_text(before.strip() or "a photo of a")
    return SoftStart(torch.from_numpy(np.array(context, dtype=np.float32)), names)


def plain_names(classnames: Sequence[str]) -> tuple[str, ...]:
    """The class names as they stand in prompts."""
    return tuple(display_name(name) for name in classnames)


def words_start(box: MeteredBox, words: str, classnames: Sequence[str]) -> SoftStart:
    """The soft prompt of ``words`` followed by the plain class names."""
    return soft_start(box, Template(f"{words} {SLOT}."), classnames)


def check_room(box: BlackBox, tokens: int, classnames: Sequence[str]) -> None:
    """Refuse more vectors than the model has room for before the longest class name.

    Raises:
        ConfigError: it names the setting, the class and the room there is.
    """
    for name in plain_names(classnames):
        if (over := box.token_excess("x " * tokens + f"{name}.")) > 0:
            raise ConfigError(
                f"setting tokens={tokens} leaves no room for class name '{name}' in prompts of "
                f"{box.info.name}; {tokens - over} is the most"
            )


# --- what a search leaves behind ----------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SoftPredictor(Predictor):
    """A soft prompt.

    Attributes:
        context: (m, e) float32, or (K, m, e) with a context for each class.
        names: K strings that follow the context, without the full stop that ends them.
    """

    context: FloatArray
    names: tuple[str, ...]

    @property
    def soft_prompt(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What a result file says of it."""
        *classes, tokens, width = self.context.shape
        return {"tokens": tokens, "width": width, "class_specific": bool(classes)}

    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        """(N, K) float32 class scores; encodes K soft prompts."""
        context = torch.from_numpy(self.context)[None]
        return box.soft_logits(box.image_features(images), context, self.names)[0].cpu().numpy()

    def text_matrix(self, box: MeteredBox, scored_on: Labelled | None = None) -> FloatArray:
        """(K, d) class embeddings, L2-normalised; encodes K soft prompts.

        The length d is that of the features of ``scored_on``, or of one text's.
        """
        if scored_on is None:
            dim = box.text_features([Template(SLOT)], self.names[:1]).shape[-1]
        else:
            dim = box.image_features(scored_on).shape[-1]
        return soft_text(box, dim, torch.from_numpy(self.context), self.names).numpy()

    def describe(self) -> str:
        """How long it is."""
        kind = "class-specific soft prompts" if self.context.ndim == 3 else "soft prompt"
        return f"{kind} of {self.context.shape[-2]} vectors"

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """The vectors; the rest says how to use them elsewhere."""
        config = {"kind": "soft", "names": list(self.names), "recipe": self.recipe()}
        return {"context": self.context}, config

    @classmethod
    def from_state(
        cls, tensors: Mapping[str, npt.NDArray[Any]], config: Mapping[str, Any]
    ) -> SoftPredictor:
        """The inverse of :meth:`state`."""
        return cls(np.array(tensors["context"]), tuple(config["names"]))

    def recipe(self) -> str:
        """How to use the vectors in another program."""
        own = "context[k]" if self.context.ndim == 3 else "context"
        return (
            f"For class k, feed the text tower the embeddings of [start, {own}, the tokens of "
            "names[k] + '.', end]: token embeddings before positions are added, with the context's "
            "rows put in as they are. Normalise the feature at the end token; its dot product with "
            "a normalised image feature, times the model's logit scale, is the class score."
        )


# --- how it is scored ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Encoded:
    """Labelled images as features, paid for, that soft prompts are scored on.

    Attributes:
        features: (N, d) float32, L2-normalised.
        labels: (N,) int64.
    """

    features: FloatArray
    labels: torch.Tensor

    @staticmethod
    def of(box: MeteredBox, images: Labelled) -> Encoded:
        """Encode images; each is paid for once in a run."""
        return Encoded(box.image_features(images), torch.from_numpy(images.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | npt.NDArray[np.int64]) -> Encoded:
        index = rows if isinstance(rows, slice) else torch.from_numpy(rows)
        return Encoded(self.features[rows], self.labels[index])

    @staticmethod
    def join(parts: Sequence[Encoded]) -> Encoded:
        """One after the other."""
        features = np.concatenate([part.features for part in parts])
        return Encoded(features, torch.cat([part.labels for part in parts]))


def view(images: Labelled, number: int, seed: int, how: Augmentation) -> Labelled:
    """Augmented view ``number`` of every image, as new images to be encoded."""
    views = tuple(View(image, seed, number, how) for image in images.images)
    return Labelled(views, images.labels)


def score(
    box: MeteredBox,
    images: Encoded,
    contexts: torch.Tensor,
    names: Sequence[str],
    reduce: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits,
) -> torch.Tensor:
    """What ``reduce`` makes of each candidate's logits, as many at once as memory allows.

    Args:
        box: charged K soft-prompt encodings a candidate, before they are made.
        images: N of them.
        contexts: (B, m, e), or (B, K, m, e) with a context for each class.
        names: K strings that follow the context.
        reduce: takes (b, N, K) float32 logits and gives (b, ...).

    Returns:
        (B, ...) on the CPU.
    """
    per_candidate = len(names) * (len(images) + images.features.shape[1])
    pieces = torch.split(contexts, max(1, _WORKSPACE // per_candidate))
    return torch.cat(
        [reduce(box.soft_logits(images.features, piece, names)).cpu() for piece in pieces]
    )


def soft_text(
    box: MeteredBox, dim: int, context: torch.Tensor, names: Sequence[str]
) -> torch.Tensor:
    """(K, d) text features of one context; K soft-prompt encodings.

    Read off the scores of the d unit vectors, which are the features but for scale and bias.
    """
    scores = box.soft_logits(torch.eye(dim), context[None], names)[0].cpu()
    return ((scores - box.info.logit_bias) / box.info.logit_scale).T.contiguous()


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each candidate: (B, N, K) logits and (N,) labels give (B,)."""
    chosen = labels.to(logits.device).expand(logits.shape[:-1])
    return F.cross_entropy(logits.movedim(-1, 1), chosen, reduction="none").mean(dim=-1)


def kl(target: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """``KL(target || of)`` of two (..., N, K) logits, averaged over the N images: (...)."""
    log_p, log_q = target.log_softmax(-1), of.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean(-1)


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Fraction of (N, K) logits whose largest is the label's."""
    return float((logits.argmax(-1).cpu() == labels).float().mean())


# --- how a search goes on and ends ---------------------------------------------------------------


class Ending:
    """Turns a reached cap, or an interruption, into the normal end of a search.

    Attributes:
        reason: why the ``with`` block ended; set it inside for an end of the search's own.
    """

    def __init__(self) -> None:
        self.reason = "iterations"

    def __enter__(self) -> Ending:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(exc, BudgetExhausted):
            return False
        interrupted = exc.currency == "interrupted"
        self.reason = "interrupted" if interrupted else f"budget: {exc.currency}"
        return True


def pack(
    optimizer: torch.optim.Optimizer, prefix: str = "optimizer."
) -> dict[str, npt.NDArray[Any]]:
    """The state of a PyTorch optimizer as arrays."""
    return {
        f"{prefix}{number}.{name}": value.numpy()
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def unpack(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, npt.NDArray[Any]],
    prefix: str = "optimizer.",
) -> None:
    """The inverse of :func:`pack`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in below(prefix, tensors).items():
        number, _, entry = name.partition(".")
        state.setdefault(int(number), {})[entry] = torch.from_numpy(array)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def below(prefix: str, tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The arrays whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def per_epoch(count: int, size: int) -> int:
    """Batches of one pass over ``count`` images.

    A smaller last batch is dropped, as CoOp's framework does it, unless it is the only one.
    """
    return max(1, count // size)


def fresh_batch(search: Search, step: int, size: int, how: Augmentation) -> Encoded:
    """Training images of step ``step`` of shuffled passes, augmented anew in each pass."""
    train = search.task.train
    epoch, place = divmod(step, per_epoch(len(train), size))
    order = search.rng("epoch", epoch).permutation(len(train))
    rows = order[place * size : (place + 1) * size]
    return Encoded.of(search.box, view(train.subset(rows), epoch + 1, search.seed, how))


def cosine_rate(epoch: int, epochs: int, rate: float, warm_up_rate: float = 1e-5) -> float:
    """CoOp's learning rate: a constant first epoch, then a cosine to zero."""
    return warm_up_rate if epoch == 0 else rate * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


def by_shots(shots: int, one: int, few: int, many: int) -> int:
    """A length by shots, as CoOp and CraFT have it: 1, 2 to 4, more."""
    return one if shots <= 1 else few if shots <= 4 else many


def steps_allowed(budget: int | None, shots: int, cost: int) -> int:
    """Steps of ``cost`` contexts that a search may take: CraFT's budget, unless one is set.

    The search scores where it stands before each of them and after the last as well.
    """
    return ((budget or by_shots(shots, 2000, 4000, 8000)) - 1) // (cost + 1)


# --- settings ------------------------------------------------------------------------------------


def check_choice(setting: str, value: str, allowed: Sequence[str]) -> None:
    """Refuse a word that is not among ``allowed``."""
    if value not in allowed:
        raise ConfigError(
            f"setting {setting}={value!r} must be one of: {', '.join(allowed)}"
            + nearest(value, allowed)
        )


def check_range(setting: str, value: float, low: float, high: float = math.inf) -> None:
    """Refuse a number outside of [low, high]."""
    if not low <= value <= high:
        span = f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ConfigError(f"setting {setting}={value} must be {span}")
