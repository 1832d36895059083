"""Scores of soft prompts, and what is made of scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch.nn import functional as F

from llmopt.search.soft.machinery.images import Encoded

if TYPE_CHECKING:
    from llmopt.vision.metered import MeteredBox

# Floats held at once while a population is scored: 64 MiB of text features and logits, of which
# 4 MiB are reduced at a time. A loss in float64 with its KL takes fifteen times what it is given.
_WORKSPACE: Final = 2**24
_REDUCED: Final = 2**20


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
    pairs = len(names) * len(images)
    room = _WORKSPACE // (pairs + len(names) * images.features.shape[1])
    found = []
    for piece in torch.split(contexts, max(1, room)):
        logits = box.soft_logits(images.features, piece, names)
        parts = torch.split(logits, max(1, _REDUCED // pairs))
        found += [reduce(part).cpu() for part in parts]
    return torch.cat(found)


def soft_text(
    box: MeteredBox, dim: int, context: torch.Tensor, names: Sequence[str]
) -> torch.Tensor:
    """(K, d) text features of one context; K soft-prompt encodings.

    Read off the scores of the d unit vectors, which are the features but for scale and bias.
    """
    scores = box.soft_logits(torch.eye(dim), context[None], names)[0].cpu()
    return ((scores - box.info.logit_bias) / box.info.logit_scale).T.contiguous()


def double(logits: torch.Tensor) -> torch.Tensor:
    """Logits in float64, so that a loss does not hang on the order of its sums."""
    return logits if logits.device.type == "mps" else logits.double()  # which has no float64


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each candidate: (B, N, K) logits and (N,) labels give (B,)."""
    chosen = labels.to(logits.device).expand(logits.shape[:-1])
    return F.cross_entropy(double(logits).movedim(-1, 1), chosen, reduction="none").mean(dim=-1)


def kl(target: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
    """``KL(target || of)`` of two (..., N, K) logits, averaged over the N images: (...)."""
    log_p, log_q = double(target).log_softmax(-1), double(of).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean(-1)
