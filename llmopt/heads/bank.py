"""Features from scores: what a box that gives only scores says of an image, against many prompts.

A score is ``tau x . t``, so the scores of an image against M fixed prompts are a linear map of its
embedding, and heads made for embeddings work on them. Scores s (M,) of the class prompts and of a
bank of others become

    phi(s) = normalise(W (s - m)),   W = Lambda^-1/2 V'                                    (1)

with m and ``V Lambda V'`` the mean and shrunken covariance of the training images' scores (no
labels are used). The score against class k alone is one coordinate of s, so in these features the
class has the embedding

    t_k = normalise(Lambda^1/2 V' e_k)                                                      (2)

which is to phi what a text embedding is to an image embedding.

A service may return probabilities over the prompts of one request. Their logarithms are the scores
up to a constant of the image and the request, so each request's scores are centred first.

Queries: the bank's prompts, once; pairs of them with every image, training and later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmopt.sentences import vocabulary
from llmopt.task import FloatArray, Labelled
from llmopt.template import SLOT, Template

if TYPE_CHECKING:
    from llmopt.vision.metered import MeteredBox

# The default bank: at most so many templates, fewer where they would make more class prompts than
# that, and so many phrases.
TEMPLATES = 16
CLASS_PROMPTS = 512
PHRASES = 128

# Directions kept; more than any CLIP model's embedding has to say.
_WIDTH = 512


@dataclass(frozen=True)
class Bank:
    """Prompts that images are compared with.

    Attributes:
        templates: each filled with every class name.
        phrases: prompts without class names.
        classnames: K names.
    """

    templates: tuple[Template, ...]
    phrases: tuple[str, ...]
    classnames: tuple[str, ...]

    def scores(self, box: MeteredBox, images: Labelled, base: FloatArray) -> FloatArray:
        """(N, M) scores, those of the (N, K) base predictor first, centred request by request."""
        blocks = [base, *box.score_templates(images, self.templates, self.classnames)]
        if self.phrases:
            blocks += [*box.score_templates(images, [Template(SLOT)], self.phrases)]
        centred = [block - block.mean(axis=1, keepdims=True) for block in blocks]
        return np.concatenate(centred, axis=1, dtype=np.float32)


def default_bank(classnames: Sequence[str]) -> Bank:
    """Classes and things of many sizes, colours, textures and places, spread over the vocabulary.

    Attributes tell images apart that class names do not; with classes they tell most.
    """
    count = min(TEMPLATES, max(1, CLASS_PROMPTS // len(classnames)))
    templates = tuple(Template(f"a photo of {text}.") for text in _described(SLOT, count))
    return Bank(templates, tuple(_described("thing", PHRASES)), tuple(classnames))


def _described(noun: str, count: int) -> list[str]:
    """``a small NOUN`` (three in four), ``a NOUN on the left`` ..."""
    before, after = vocabulary()["before"], vocabulary()["after"]
    placed = count // 4
    texts = [f"a {phrase} {noun}" for phrase in _spread(before, count - placed)]
    return texts + [f"a {noun} {phrase}" for phrase in _spread(after, placed)]


def _spread(phrases: Sequence[str], count: int) -> list[str]:
    return [phrases[i] for i in np.linspace(0, len(phrases) - 1, count).round().astype(int)]


@dataclass(frozen=True, eq=False)
class Features:
    """Equation (1), fitted.

    Attributes:
        mean: (M,) m.
        whiten: (M, d) W, transposed.
        text: (K, d) class embeddings, equation (2).
        scale: from ``phi . t`` to scores of the spread of the base scores.
    """

    mean: FloatArray
    whiten: FloatArray
    text: FloatArray
    scale: float

    @classmethod
    def fit(cls, scores: FloatArray, images: int, classes: int) -> Features:
        """From (R, M) scores of the views of some images, the first ``classes`` the base's."""
        mean = scores.mean(axis=0, dtype=np.float64)
        centred = scores - mean
        values, vectors = np.linalg.eigh(centred.T @ centred / len(scores))
        values = shrunken(np.maximum(values, 0.0), images)
        kept = np.argsort(values)[::-1][: min(_WIDTH, len(values))]
        deviations = np.sqrt(np.maximum(values[kept], 1e-12))
        whiten = vectors[:, kept] / deviations
        text = _unit(vectors[:classes, kept] * deviations)
        spread = centred[:, :classes].std(axis=1).mean()
        seen = (_unit(centred @ whiten) @ text.T).std(axis=1).mean()
        return cls(
            mean.astype(np.float32),
            whiten.astype(np.float32),
            text.astype(np.float32),
            float(spread / max(seen, 1e-12)),
        )

    def __call__(self, scores: FloatArray) -> FloatArray:
        """(N, M) scores to (N, d) features, L2-normalised."""
        seen = (scores - self.mean).astype(np.float64) @ self.whiten
        return _unit(seen).astype(np.float32)

    def save(self) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """Arrays for safetensors, and the rest for JSON."""
        arrays = {"mean": self.mean, "whiten": self.whiten, "text": self.text}
        # safetensors writes memory as it lies, whatever the strides say.
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        return arrays, {"scale": self.scale}

    @classmethod
    def load(cls, tensors: Mapping[str, FloatArray], config: Mapping[str, Any]) -> Features:
        """What :meth:`save` took apart."""
        return cls(tensors["mean"], tensors["whiten"], tensors["text"], float(config["scale"]))


def shrunken(eigenvalues: npt.NDArray[np.float64], samples: int) -> npt.NDArray[np.float64]:
    """Eigenvalues of a covariance drawn towards their mean (OAS: Chen et al., 2010)."""
    p, n = len(eigenvalues), samples
    total, squares = eigenvalues.sum(), (eigenvalues**2).sum()
    excess = (n + 1 - 2 / p) * (squares - total**2 / p)
    weight = 1.0 if excess <= 0 else min(1.0, ((1 - 2 / p) * squares + total**2) / excess)
    shrunk: npt.NDArray[np.float64] = (1 - weight) * eigenvalues + weight * total / p
    return shrunk


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12), dtype=np.float64)
