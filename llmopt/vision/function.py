"""A black box from one function: ``FunctionBox("my model", score)``.

    def score(images, prompts):  # Pillow images, texts -> one number for each pair
        inputs = processor(images=images, text=prompts, return_tensors="pt", padding=True)
        return model(**inputs).logits_per_image

    box = FunctionBox("my model", score)

What has features to offer, or wants to keep something between calls, derives from
:class:`~llmopt.vision.base.BlackBox` instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from llmopt.errors import ConfigError, ModelError
from llmopt.images import Image
from llmopt.task import FloatArray
from llmopt.vision.answers import numbers
from llmopt.vision.base import Access, BlackBox, BoxInfo
from llmopt.vision.spoken import Said, first, meanings, said

BATCH: Final = 64

T = TypeVar("T")
Look = Callable[[list[PillowImage.Image], list[str]], Any]


class FunctionBox(BlackBox):
    """What a function says of images and prompts.

    Args:
        name: what people call the model.
        function: of N upright RGB Pillow images and M prompts; gives (N, M) logits as an array,
            tensor or nested lists. Their differences between the prompts of an image matter, as in
            a softmax. With ``access="labels"`` it gives N places among the prompts, or N answers in
            words: a text, or a list of texts, the best first.
        access: ``scores`` or ``labels``.
        version: of the model; a run that is resumed with another one warns.
        batch_size: images decoded and given to the function at a time.
        token_excess: of a prompt, how many tokens it has over the limit (negative: room left);
            without it no limit is known.

    Raises:
        ConfigError: another access level.
        ModelError: when it is used, if the function gives something else.
    """

    gives_gradients = False

    def __init__(
        self,
        name: str,
        function: Look,
        *,
        access: Literal["scores", "labels"] = "scores",
        version: str = "",
        batch_size: int = BATCH,
        token_excess: Callable[[str], int] | None = None,
    ) -> None:
        if access not in ("scores", "labels"):
            raise ConfigError(
                f"a function gives 'scores' or 'labels', not '{access}'; derive from BlackBox"
            )
        self._function, self.images_per_call = function, batch_size
        self._token_excess = token_excess
        identity = hashlib.sha256(f"{name}\n{version}".encode()).hexdigest()
        self._info = BoxInfo(name, version, Access[access.upper()], identity, detail="a function")

    @property
    def info(self) -> BoxInfo:
        """Its name, version and level."""
        return self._info

    def token_excess(self, prompt: str) -> int:
        """Tokens over the limit, 0 where the limit is not known."""
        return self._token_excess(prompt) if self._token_excess else 0

    def labels(self, images: Sequence[Image], prompts: Sequence[str]) -> npt.NDArray[np.int64]:
        """(N,) index of the predicted prompt for each image."""
        if self.info.access >= Access.SCORES:
            return super().labels(images, prompts)
        found = [np.empty(0, dtype=np.int64)]
        found += self._ask(images, prompts, lambda told, n: first(_said(told, n, prompts)))
        return np.concatenate(found)

    def answers(self, images: Sequence[Image], prompts: Sequence[str]) -> Any:
        """What the function says of each image: places, or words."""
        if self.info.access >= Access.SCORES:
            return super().answers(images, prompts)

        def read(told: Any, n: int) -> list[Any]:
            _said(told, n, prompts)
            return list(told) if isinstance(told, list | tuple) else np.asarray(told).tolist()

        return [one for batch in self._ask(images, prompts, read) for one in batch]

    def scores(self, images: Sequence[Image], prompts: Sequence[str]) -> FloatArray:
        """(N, M) float32 logits."""
        self._require(Access.SCORES, "scores")
        found = [np.empty((0, len(prompts)), dtype=np.float32)]
        found += self._ask(images, prompts, lambda told, n: numbers(told, (n, len(prompts))))
        return np.concatenate(found)

    def _ask(
        self, images: Sequence[Image], prompts: Sequence[str], read: Callable[[Any, int], T]
    ) -> Iterator[T]:
        """The function's answer for each batch of images, as ``read`` takes it."""
        for start in range(0, len(images), self.images_per_call):
            batch = [image.load() for image in images[start : start + self.images_per_call]]
            told = self._function(batch, list(prompts))
            if hasattr(told, "detach"):  # a tensor, perhaps with gradients or on a GPU
                told = told.detach().float().cpu()
            try:
                yield read(told, len(batch))
            except ValueError as error:
                raise ModelError(
                    f"for {len(batch)} images and {len(prompts)} prompts the function of black box "
                    f"'{self.info.name}' {error}"
                ) from error


def _said(told: Any, images: int, prompts: Sequence[str]) -> Said:
    return said(told, images, range(len(prompts)), meanings(prompts, ()))
