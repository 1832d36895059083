"""Scores of many templates on many images, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["accuracy", "logprob", "margin"]

_BLOCK_BYTES = 32 * 2**20  # of logits held at once while they are being reduced


@torch.no_grad()
def score_templates(
    image_features: Tensor,
    text_features: Iterable[Tensor],
    logit_scale: float,
    labels: Tensor | None = None,
    reduce: Reduction | None = None,
    *,
    logit_bias: float = 0.0,
) -> Tensor:
    """Logits of each template on each image, or one number per template and image.

    With ``reduce``, images are taken in blocks, and the (T, N, K) logits never exist.

    Args:
        image_features: (N, d), L2-normalised.
        text_features: for each of T templates (K, d), L2-normalised; consumed one at a time.
        logit_scale: factor from cosine to logit.
        labels: (N,) true classes; needed to reduce.
        reduce: ``accuracy`` is 1 where the true class has the largest logit, else 0; ``logprob``
            the true class's log-probability; ``margin`` its logit less the largest other one.
        logit_bias: added to each logit.

    Returns:
        (T, N, K) float32 logits, or (T, N) float32 if reduced.

    Raises:
        ValueError: there are no templates, or ``reduce`` is asked for without labels.
    """

    def logits(images: Tensor, text: Tensor) -> Tensor:
        return logit_scale * (images @ text.T).float() + logit_bias

    if reduce is None:
        rows = [logits(image_features, text) for text in text_features]
    elif labels is None:
        raise ValueError(f"reduce={reduce!r} needs labels")
    else:
        figure = _FIGURES[reduce]
        rows = []
        for text in text_features:
            size = max(1, _BLOCK_BYTES // (4 * len(text)))
            blocks = zip(image_features.split(size), labels.split(size), strict=True)  # type: ignore[no-untyped-call]
            rows.append(torch.cat([figure(logits(images, text), true) for images, true in blocks]))
    if not rows:
        raise ValueError("there are no templates to score")
    return torch.stack(rows)


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).float()


def _logprob(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(dim=1)


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    return logits.gather(1, labels[:, None])[:, 0] - others


_FIGURES: dict[Reduction, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": _accuracy,
    "logprob": _logprob,
    "margin": _margin,
}
