"""The wall: what a black box takes and gives.

A box declares an access level; each level includes the ones below it.

========== ============================================== =============================
level      takes                                          gives
========== ============================================== =============================
labels     images, prompts                                the predicted prompt, or answers in words
scores     images, prompts                                a logit for each pair
features   images; prompts                                embeddings
soft       token vectors in place of a template's words   embeddings
========== ============================================== =============================
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmopt.errors import AccessError, TemplateError
from llmopt.images import Image
from llmopt.remote.line import Line
from llmopt.remote.retry import RetrySettings
from llmopt.task import FloatArray
from llmopt.template import Template, clean

if TYPE_CHECKING:
    import torch

    from llmopt.spend.ledger import Ledger
    from llmopt.vision.vocabulary import Vocabulary

LONGEST_PAUSE = 30.0
"""Seconds no own pause before another try exceeds; a service may ask for longer ones."""


class Access(IntEnum):
    """What a black box offers; each level includes those before it."""

    LABELS = 0
    SCORES = 1
    FEATURES = 2
    SOFT = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class BoxInfo:
    """What a box says of itself.

    Attributes:
        name: model name, or the URL of a remote box without credentials.
        pretrained: weight tag, or ``""``.
        access: what it offers.
        weights_sha256: identity of the weights and preprocessing; keys caches.
        logit_scale: factor from cosine to logit (``features`` and above).
        logit_bias: added to each logit (SigLIP; 0 elsewhere).
        detail: one line for people.
        repeatable: its answers are the same on any processor, but for a last bit now and then.
        device, precision: what it computes on and in, as far as it tells.
    """

    name: str
    pretrained: str
    access: Access
    weights_sha256: str
    logit_scale: float = 100.0
    logit_bias: float = 0.0
    detail: str = ""
    repeatable: bool = False
    device: str = ""
    precision: str = ""


class BlackBox(ABC):
    """A vision-language model behind a wall.

    Implementations give :attr:`info` and override what their level offers (``labels`` or
    ``answers``; ``scores``; ``image_features`` and ``text_features``; the soft ones); the rest
    follows from it or raises :class:`~llmopt.errors.AccessError`. They neither count nor cap nor
    cache across calls: that is the work of :class:`~llmopt.vision.metered.MeteredBox`. A box that
    only scores or answers can be made of a function: :class:`~llmopt.vision.function.FunctionBox`.

    Images come as :class:`~llmopt.images.Image`: ``load()`` gives upright RGB Pillow images,
    ``key()`` what tells their content apart.

    Attributes:
        gives_gradients: features of soft prompts can carry gradients, as those of a remote box
            cannot.
        address: where a remote box is asked, without credentials; empty for one in this process.
            What comes from an address is kept apart from what was computed here.
        images_per_call, prompts_per_call: the most in one call, where the box takes images and
            prompts together or is remote; who asks splits the rest.
        reads_capitals: it may tell a word from the same word in small letters, as CLIP does not.
        holds_images: images sent once need not be sent again (see :meth:`to_send`).
        half: it computes in half precision, where small differences drown.
        pause: seconds before a call that failed is made again (see
            :class:`~llmopt.errors.RetryableError`); doubles from try to try.
        at_once: calls that may be in progress at the same time, from several threads.
        paid: its answers cost money: they are kept for good, and other runs take them from there.
        probes: pictures that :meth:`decided` sends at most, each in a call of its own.
        tell: told what about it is worth a line.
    """

    gives_gradients: bool = True
    address: str = ""
    images_per_call: int = 64
    prompts_per_call: int = 1024
    reads_capitals: bool = False
    holds_images: bool = False
    half: bool = False
    pause: float = 0.5
    at_once: int = 1
    paid: bool = False
    probes: int = 0
    tell: Callable[[str], None] = staticmethod(lambda text: None)

    def line(self, ledger: Ledger) -> Line:
        """How its calls wait for each other and for the service."""
        return Line(self.info.name, self.retry, ledger)

    def dues(self, images: int, prompts: Sequence[str], calls: int = 1) -> Mapping[str, float]:
        """Tokens and money (:data:`~llmopt.spend.currency.BILLED`) that so much takes at most.

        Args:
            images: handed over; where it takes images and prompts together, each with all prompts.
            prompts: handed over.
            calls: in which they are.
        """
        return {}

    def usual(self, images: int, prompts: Sequence[str]) -> Mapping[str, float]:
        """What :meth:`dues` usually comes to; nothing where they are about what is taken."""
        return {}

    def took(self) -> Mapping[str, float] | None:
        """What the last call of this thread took of its dues; None where that is not known."""
        return None

    def ready(self) -> None:
        """Find out whether it can be asked, before anything takes time. Costs nothing.

        Raises:
            ConfigError: a key or a package is missing.
        """
        _ = self.info

    @property
    def scale_known(self) -> bool:
        """Whether its factor from cosine to logit is known, and need not be fitted on the shots."""
        return True

    def decided(self, probe: Callable[[Callable[[], Any]], Any]) -> dict[str, Any]:
        """Settings that are found out by asking, once at the beginning of a run that keeps them.

        Args:
            probe: gives what a call with one picture gives, and charges it
                (:meth:`~llmopt.vision.metered.MeteredBox.probe`).

        Raises:
            ConfigError: it cannot be asked in any way known.
            ServiceError: it does not answer.
        """
        return {}

    def notes(self) -> list[str]:
        """What is worth knowing of its dues before anything is spent."""
        return []

    def cap_on_usd(self, max_usd: float | None) -> float | None:
        """The cap on money: the given one, or a default where the box is paid for.

        Raises:
            ConfigError: a cap is given, and the price is not known.
        """
        return max_usd

    @property
    def retry(self) -> RetrySettings:
        """The patience with its faults that may pass."""
        return RetrySettings(
            attempts=5, deadline=1800.0, first_pause=self.pause, longest_pause=LONGEST_PAUSE
        )

    @property
    @abstractmethod
    def info(self) -> BoxInfo:
        """What this box says of itself."""

    def normal_forms(self, prompts: Sequence[str]) -> Sequence[Hashable]:
        """Equal for prompts the box cannot tell apart (token ids where the tokenizer is known)."""
        texts = map(clean, prompts)
        return list(texts) if self.reads_capitals else [text.lower() for text in texts]

    def to_send(self, images: Sequence[Image]) -> int:
        """How many of these images the next call with prompts hands over; all, if none are held."""
        return len(images)

    def token_excess(self, prompt: str) -> int:
        """Tokens over the limit (negative: room left), 0 where the limit is not known."""
        return 0

    def labels(self, images: Sequence[Image], prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) index of the predicted prompt for each image."""
        return np.asarray(self.scores(images, prompts).argmax(axis=1), dtype=np.int64)

    def answers(self, images: Sequence[Image], prompts: Sequence[str]) -> Any:
        """What a box of level ``labels`` says of N images: its :meth:`labels`, or words.

        Words are a text for each image, or a list of texts, the best first; None where nothing is
        said. They may be other words than the prompts (:mod:`llmopt.vision.spoken`).
        """
        return self.labels(images, prompts)

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        """(N, M) float32 logits."""
        self._require(Access.FEATURES, "scores")
        found: FloatArray = self.logits(self.image_features(images), self.text_features(prompts))
        return found

    def image_features(self, images: Sequence[Image]) -> FloatArray:
        """(N, d) float32, L2-normalised."""
        raise self._lacks(Access.FEATURES)

    def text_features(self, prompts: Sequence[str]) -> FloatArray:
        """(M, d) float32, L2-normalised."""
        raise self._lacks(Access.FEATURES)

    def soft_features(
        self, contexts: torch.Tensor, classnames: Sequence[str], *, grad: bool = False
    ) -> torch.Tensor:
        """Text features of soft prompts ``[start | context | "class name." | end]``.

        Args:
            contexts: (B, m, e) float32, B candidate contexts of m token vectors.
            classnames: K names.
            grad: keep gradients with respect to ``contexts`` (white-box methods only).

        Returns:
            (B, K, d) float32, L2-normalised.
        """
        raise self._lacks(Access.SOFT)

    def embed_text(self, text: str) -> FloatArray:
        """(L, e) float32 token vectors of ``text``, without start and end: a starting context."""
        raise self._lacks(Access.SOFT)

    @property
    def embedding_std(self) -> float:
        """Standard deviation of all entries of the token-embedding table (BBT's scale rule)."""
        raise self._lacks(Access.SOFT)

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the model and their vectors.

        Raises:
            AccessError: they are behind the wall.
        """
        raise AccessError(
            f"{self.info.name} does not show the vectors of its tokens; a model that runs here "
            "does, with --model and --pretrained"
        )

    def logits(self, image_features: Any, text_features: Any) -> Any:
        """Float32 logits: ``scale * x @ t.T + bias`` of features, any leading batch on either.

        Computed in float64 where it costs little (not on a GPU) and rounded once, so that they do
        not depend on the order of the sums, which every processor has its own of.
        """
        scale, bias = self.info.logit_scale, self.info.logit_bias
        product = _wider(image_features) @ _wider(text_features).swapaxes(-1, -2)
        product *= scale  # in place: with a population of prompts this is what memory goes into
        product += bias
        return product.astype(np.float32) if isinstance(product, np.ndarray) else product.float()

    def check(self, template: Template, classnames: Sequence[str]) -> None:
        """Refuse a template that would be cut short with the longest class name.

        Raises:
            TemplateError: it is too long; the message says by how much and for which class.
        """
        longest = max(
            template.fill_all(self._longest(tuple(classnames))), key=self.token_excess, default=""
        )
        over = self.token_excess(longest)
        if over > 0:
            raise TemplateError(
                f"template {template.text!r} is {over} tokens too long for {self.info.name} "
                f"(as {longest!r}); shorten it"
            )

    @cached_property
    def _longest(self) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
        # Which names are longest hardly depends on the template: a few candidates do.
        def longest(classnames: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(heapq.nlargest(3, classnames, key=self.token_excess))

        return lru_cache(maxsize=8)(longest)

    def _require(self, level: Access, what: str) -> None:
        if self.info.access < level:
            raise AccessError(
                f"{self.info.name} does not give {what}: it offers '{self.info.access}'"
            )

    def _lacks(self, level: Access) -> AccessError:
        return AccessError(
            f"this needs access level '{level}', but {self.info.name} "
            f"offers '{self.info.access}'; see 'llmopt models list'"
        )


def _wider(features: Any) -> Any:
    if isinstance(features, np.ndarray):
        return features.astype(np.float64)
    return features.double() if features.device.type == "cpu" else features
