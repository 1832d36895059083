"""What a head is given, what it must do, and what it leaves behind.

Every head is a correction ``h`` of the base scores ``s``::

    scores = (s + alpha * h(s, x)) / T

The head's own file says what ``h`` is. How strong it is (``alpha``), the temperature ``T``, and
whether it is used at all are decided in one place for all of them: :mod:`llmopt.heads.select`,
which begins with what is usual for the head (:class:`Prior`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from annotated_types import Gt, MinLen

from llmopt.stats import log_likelihoods, settled
from llmopt.task import FloatArray, IntArray
from llmopt.vision.base import Access

Config = dict[str, float]
Tensors = dict[str, FloatArray]

# Temperatures relative to the box's own, from sharper by 4 to flatter by 16.
TEMPERATURES = 2.0 ** np.arange(-2.0, 4.25, 0.5)

# Strengths of a head with a prior: octaves from its usual one.
OCTAVES = np.arange(-4.0, 4.5)

# Octaves that features made of scores take from the usual strength at 1 shot; half at 2 shots ...
_MADE = 3.3


@dataclass(frozen=True)
class Prior:
    """What is usual for a head, before any image of a task has judged it.

    The strength that suits a head grows with the shots, for a mean of n images is known the better
    the larger n is: its logarithm is taken as normal, of one octave's spread, about::

        log2(alpha / unit) = octaves + growth * log2(n)

    less 3.3 / n where features are made of scores (:mod:`llmopt.heads.bank`), for then how these
    spread is itself known from the few images only. At 1 shot, where often nothing else speaks, it
    is what costs next to nothing in the worst world, not what gains most in all.
    The figures are those of the study ``benchmarks/heads.py``: 19 data sets, 1 to 16 shots.

    Attributes:
        octaves: of the usual strength at 1 shot.
        growth: octaves more with each doubling of the shots.
        odds: of the head against others at 1 shot, in nats of all images together.
        fading: of the odds with each doubling of the shots.
    """

    octaves: float
    growth: float
    odds: float = 0.0
    fading: float = 0.0

    def strengths(self, shots: float, made: bool = False) -> npt.NDArray[np.float64]:
        """Those to try at so many shots a class, in units, about the usual one.

        Args:
            shots: n; an average need not be whole.
            made: whether features are made of scores.
        """
        usual = self.octaves + self.growth * np.log2(shots) - made * _MADE / shots
        found: npt.NDArray[np.float64] = 2.0 ** (usual + OCTAVES)
        return found

    def odds_at(self, shots: float) -> float:
        """The odds at so many shots a class."""
        return float(self.odds - self.fading * np.log2(shots))


@dataclass(frozen=True, eq=False)
class Shots:
    """Labelled images as a head sees them.

    Attributes:
        base: (N, V, K) float32 scores of the predictor the head is for. View 0 of an image is the
            image as it is classified later; further views are augmented ones.
        labels: (N,) int64.
        features: (N, V, d) float32 image features, L2-normalised; None if nobody looks at them.
        text: (K, d) float32 class embeddings, L2-normalised, with features only.
        scale: factor from ``features @ text.T`` to scores.
        made: whether features are made of scores (:mod:`llmopt.heads.bank`).
    """

    base: FloatArray
    labels: IntArray
    features: FloatArray | None = None
    text: FloatArray | None = None
    scale: float = 100.0
    made: bool = False

    def __post_init__(self) -> None:
        views = self.base.shape[:2]
        if self.base.ndim != 3 or len(self.labels) != views[0]:
            raise ValueError(f"{len(self.labels)} labels, but base scores {self.base.shape}")
        if self.features is not None and self.features.shape[:2] != views:
            raise ValueError(f"base scores {self.base.shape}, but features {self.features.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return int(self.base.shape[-1])

    @property
    def average(self) -> float:
        """n, the images of a class of average size."""
        return len(self) / self.classes

    @property
    def plain(self) -> FloatArray:
        """(N, K) base scores of the images as they are."""
        return self.base[:, 0]

    @property
    def plain_features(self) -> FloatArray | None:
        """(N, d) features of the images as they are."""
        return None if self.features is None else self.features[:, 0]

    @property
    def views(self) -> int:
        """V, the number of views of an image."""
        return int(self.base.shape[1])

    def seen(self, views: int) -> Shots:
        """The same images with their first ``views`` views."""
        features = None if self.features is None else self.features[:, :views]
        return replace(self, base=self.base[:, :views], features=features)

    def of(self, rows: npt.NDArray[Any]) -> Shots:
        """The images at ``rows`` (indices or a mask), with all their views."""
        features = None if self.features is None else self.features[rows]
        return replace(self, base=self.base[rows], labels=self.labels[rows], features=features)

    def embedded(self) -> tuple[FloatArray, FloatArray]:
        """The image features and the class embeddings, for heads that cannot do without."""
        if self.features is None or self.text is None:
            raise ValueError("this head looks at image features; the shots have none")
        return self.features, self.text


S = TypeVar("S")
Choices = Annotated[tuple[Annotated[float, Gt(0)], ...], MinLen(1)]
"""Values of a setting from which the left-out images choose."""


class Head(ABC, Generic[S]):
    """A kind of correction, with its settings.

    Class attributes:
        name: what users type.
        level: ``labels`` for a head of boxes that only answer; ``scores`` for one of all others.
        looks_at_features: whether ``h`` needs image features; otherwise scores are enough.
        left_out: how :meth:`held_out` leaves images out: ``exact`` or ``folds``.
        prior: what is usual for it; None if only left-out images can speak for it.
        Settings: a frozen dataclass.
        recipe: for exports, how other software gets ``h`` for one image: lines of NumPy that use
            ``s``, the (K,) base scores, ``x``, the (d,) feature, and its arrays as ``head.NAME``.

    A head has a few *candidates*, such as the penalties of a ridge; a candidate is a small dict of
    numbers. The first is taken where no image can judge. All randomness comes from ``seed``.
    """

    name: ClassVar[str]
    level: ClassVar[Access] = Access.SCORES
    looks_at_features: ClassVar[bool] = True
    left_out: ClassVar[str] = "exact"
    prior: ClassVar[Prior | None] = None
    Settings: ClassVar[type[Any]]
    recipe: ClassVar[tuple[str, ...]] = (
        "# What the head adds, h, is in the package it comes from.",
    )

    def __init__(self, settings: S | None = None) -> None:
        self.settings: S = self.Settings() if settings is None else settings

    @abstractmethod
    def held_out(self, shots: Shots, seed: int) -> Iterator[tuple[Config, FloatArray]]:
        """Each candidate with ``h``, (N, K), of every image under a fit that never saw it.

        The image as it is is corrected by a fit without any of its views.
        """

    @abstractmethod
    def fit(self, shots: Shots, config: Config, seed: int) -> Tensors:
        """Arrays that hold the fitted candidate; all that :meth:`correct` needs."""

    @staticmethod
    @abstractmethod
    def correct(tensors: Tensors, base: FloatArray, features: FloatArray | None) -> FloatArray:
        """``h``, (N, K), from (N, K) base scores and (N, d) features."""

    def strengths(self, base: FloatArray, correction: FloatArray) -> npt.NDArray[np.float64]:
        """The ``alpha`` to try without a prior: a log grid around equal spread of both."""
        return equal_spread(base, correction) * 2.0 ** np.arange(-5.0, 4.5)

    def unit(self, correction: FloatArray, temperature: float) -> float:
        """The ``alpha`` at which ``h`` counts as it is, in nats, beside scores of a temperature."""
        return temperature


def temperature(scores: FloatArray, labels: IntArray) -> float:
    """The likeliest of :data:`TEMPERATURES` for (N, K) scores and their labels."""
    fits = [log_likelihoods(scores / t, labels).mean() for t in TEMPERATURES]
    return float(TEMPERATURES[int(settled(fits).argmax())])


def folds(labels: IntArray, count: int, seed: int) -> IntArray:
    """(N,) fold of each image, 0 to ``count - 1``: equal sizes, each class spread over them."""
    rng = np.random.default_rng([seed, count])
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[by_class] = np.arange(len(labels)) % count
    return fold


def one_hot(labels: IntArray, classes: int) -> FloatArray:
    """(N, K) float32."""
    return np.eye(classes, dtype=np.float32)[labels]


def equal_spread(base: FloatArray, correction: FloatArray) -> float:
    """The strength at which a correction spreads over the classes as much as the base scores."""
    return spread(base) * unit_spread(correction)


def unit_spread(correction: FloatArray) -> float:
    """The strength at which a correction has a standard deviation of one over the classes."""
    size = spread(correction)
    return 1 / size if size > 1e-20 else 1.0


def spread(scores: FloatArray) -> float:
    """Standard deviation over the classes of (N, K) scores, averaged over the images."""
    return float(scores.std(axis=-1, dtype=np.float64).mean())
