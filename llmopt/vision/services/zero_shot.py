"""``hf:MODEL``: zero-shot image classification as Hugging Face serves it.

A picture and candidate labels are asked about together, one picture a call; scores come as
probabilities, of which the logarithm is taken. Where the prompts are one template with names in
it, that goes as ``hypothesis_template``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from llmopt.images import Image
from llmopt.task import FloatArray
from llmopt.vision.base import Access
from llmopt.vision.services.gaps import GAP, gap
from llmopt.vision.services.pictures import packed
from llmopt.vision.services.web import WebBox

_LEAST: Final = 1e-30
"""Probability; what is rounded to nothing is no surer than that."""


class ZeroShotBox(WebBox):
    """A service that scores labels of a picture."""

    kind = "hf"
    level = Access.SCORES

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        """(N, M) logarithms of probabilities."""
        found = [self._score(image, prompts) for image in images]
        return np.asarray(found, dtype=np.float32).reshape(len(images), len(prompts))

    def seconds(self, told: Mapping[str, float]) -> float | None:
        """Of computing."""
        return told.get("x-compute-time")

    def _score(self, image: Image, prompts: Sequence[str]) -> list[float]:
        distinct = list(dict.fromkeys(prompts))
        shared = gap(distinct)
        sentence, labels = (shared[0].replace(GAP, "{}"), shared[1]) if shared else ("{}", distinct)
        body = {
            "inputs": packed(image, self.settings.side)[1],
            "parameters": {"candidate_labels": labels, "hypothesis_template": sentence},
        }

        def read(told: Any) -> dict[str, float]:
            scores = {one["label"]: float(one["score"]) for one in told}
            if scores.keys() != set(labels) or len(told) != len(labels):
                raise ValueError("scores of other labels")
            if not all(0 <= score <= 1.0001 for score in scores.values()):
                raise ValueError("no probabilities")
            return scores

        scores: Mapping[str, float] = self.ask("", body, read, "image")
        logits = {
            prompt: float(np.log(max(scores[label], _LEAST)))
            for prompt, label in zip(distinct, labels, strict=True)
        }
        return [logits[prompt] for prompt in prompts]
