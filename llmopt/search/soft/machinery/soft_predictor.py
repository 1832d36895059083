"""What a search for a soft prompt leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from llmopt.predictor import Arrays, Predictor, State, texts
from llmopt.search.soft.machinery.scoring import soft_text
from llmopt.task import FloatArray, Labelled

if TYPE_CHECKING:
    from llmopt.vision.metered import MeteredBox


@dataclass(frozen=True, eq=False)
class SoftPredictor(Predictor):
    """A soft prompt.

    Attributes:
        context: (m, e) float32, or (K, m, e) with a context for each class.
        names: K strings that follow the context, without the full stop that ends them.
    """

    kind = "soft"
    linear = True

    context: FloatArray
    names: tuple[str, ...]

    @property
    def soft_prompt(self) -> Mapping[str, Any]:
        """What a result file says of it."""
        *classes, tokens, width = self.context.shape
        return {"tokens": tokens, "width": width, "class_specific": bool(classes)}

    def scores(self, box: MeteredBox, images: Labelled) -> FloatArray:
        """(N, K) float32 class scores; encodes K soft prompts."""
        context = torch.from_numpy(self.context)[None]
        return box.soft_logits(box.image_features(images), context, self.names)[0].cpu().numpy()

    def text_matrix(self, box: MeteredBox, scored_on: Labelled | None = None) -> FloatArray:
        """(K, d) float32 class embeddings, L2-normalised; encodes K soft prompts.

        For images it reads them off the scores, as those who search with scores do.
        """
        context = torch.from_numpy(self.context)
        if scored_on is None:
            return box.soft_features(context[None], self.names)[0].cpu().numpy()
        dim = box.image_features(scored_on).shape[-1]
        return soft_text(box, dim, context, self.names).numpy()

    def describe(self) -> str:
        """How long it is."""
        kind = "class-specific soft prompts" if self.context.ndim == 3 else "soft prompt"
        return f"{kind} of {self.context.shape[-2]} vectors"

    def state(self) -> State:
        """The vectors; the rest says how to use them elsewhere."""
        config = {"kind": self.kind, "names": list(self.names), "recipe": self.recipe()}
        return {"context": self.context}, config

    @classmethod
    def from_state(cls, tensors: Arrays, config: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`state`."""
        context = np.array(tensors["context"])
        if context.ndim not in (2, 3):
            raise ValueError(f"a context cannot have the shape {context.shape}")
        return cls(context, texts(config["names"]))

    def recipe(self) -> str:
        """How to use the vectors in another program."""
        own = "context[k]" if self.context.ndim == 3 else "context"
        return (
            f"For class k, feed the text tower the embeddings of [start, {own}, the tokens of "
            "names[k] + '.', end]: token embeddings before positions are added, with the context's "
            "rows put in as they are. Normalise the feature at the end token; its dot product with "
            "a normalised image feature, times the model's logit scale, is the class score."
        )
