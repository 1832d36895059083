"""What a server does with a request: charge the caller, look up what is held, compute, protect."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from fastapi import Depends, Request
from PIL import Image as PillowImage

from llmopt.errors import DatasetError
from llmopt.images import FORMATS, WIRE, decode, size, without_remedy
from llmopt.task import FloatArray
from llmopt.vision import answers
from llmopt.vision.base import Access, BlackBox
from llmopt.vision.server.bounds import Bounds, Room
from llmopt.vision.server.errors import Refusal, of_bounds
from llmopt.vision.server.inference import Inference, Received
from llmopt.vision.server.keys import CALLER, Caller
from llmopt.vision.shelf import Shelf
from llmopt.vision.wire import image_name, prompts_name

if TYPE_CHECKING:
    import torch

PHOTOS: Final = tuple(name for name in FORMATS if name in ("JPEG", "PNG", "WEBP", "GIF", "BMP"))
"""What other tools' clients may send."""


def asking(request: Request) -> Caller:
    """Who asks, as the guard found out."""
    found: Caller = request.scope[CALLER]
    return found


Who = Annotated[Caller, Depends(asking)]


@dataclass(frozen=True)
class Held:
    """The name of something that was sent before.

    Attributes:
        sha256: its name (see :mod:`llmopt.vision.wire`).
    """

    sha256: str


@dataclass(frozen=True)
class Protection:
    """What keeps the scores of a server from telling all about its model.

    Attributes:
        decimals: to which scores are rounded; None leaves them.
        top_k: the scores below the k-th are shown as equal to it; None shows all.
    """

    decimals: int | None = None
    top_k: int | None = None

    def __call__(self, scores: FloatArray) -> FloatArray:
        """Scores as they are given away, (N, M) float32."""
        if self.top_k is not None and self.top_k < scores.shape[1]:
            place = scores.shape[1] - self.top_k
            scores = np.maximum(scores, np.partition(scores, place, axis=1)[:, place, None])
        return scores if self.decimals is None else np.round(scores, self.decimals)


class Service:
    """A box that many share.

    Args:
        box: what computes.
        access: the most that anybody is given.
        bounds: of a request.
        protection: of scores.
    """

    def __init__(
        self, box: BlackBox, access: Access, bounds: Bounds, protection: Protection
    ) -> None:
        self.box, self.access, self.bounds, self.protection = box, access, bounds, protection
        self.room, self._pictures = Room(bounds.room), Room(bounds.room)
        self.inference = Inference(box)
        self._features = box.info.access >= Access.FEATURES
        self._shelf: Shelf[str, Any] = Shelf(bounds.held)

    def needs(self, level: Access) -> list[Any]:
        """What refuses callers of a path that is beyond their access level."""

        def check(caller: Who, request: Request) -> None:
            offered = min(self.access, caller.access)
            if offered < level:
                message = f"needs access level '{level}'; this box offers '{offered}'"
                raise Refusal(403, "access", f"{request.url.path} {message}")

        return [Depends(check)]

    async def labels(
        self, caller: Caller, images: Sequence[str | Held], prompts: Sequence[str] | Held
    ) -> npt.NDArray[np.int64]:
        """(N,) int64 places among the prompts."""
        if self.box.info.access >= Access.SCORES:
            return np.asarray((await self._scores(caller, images, prompts)).argmax(axis=1))
        texts = await self._paired(caller, images, prompts)
        pictures = await self._looked_at(caller, images, WIRE)
        found = await self.inference.other(caller.name, lambda box: box.labels(pictures, texts))
        return answers.places(found, len(images), len(texts))

    async def scores(
        self,
        caller: Caller,
        images: Sequence[str | Held],
        prompts: Sequence[str] | Held,
        formats: Sequence[str] = WIRE,
    ) -> FloatArray:
        """(N, M) float32 logits, protected."""
        return self.protection(await self._scores(caller, images, prompts, formats))

    async def image_features(
        self, caller: Caller, images: Sequence[str | Held], formats: Sequence[str] = WIRE
    ) -> FloatArray:
        """(N, d) float32."""
        self._charge(caller, images)
        return np.stack(await self._looked_at(caller, images, formats))

    async def text_features(self, caller: Caller, prompts: Sequence[str]) -> FloatArray:
        """(M, d) float32."""
        self._check_prompts(prompts)
        caller.ledger.charge(black_box_calls=1, text_encodings=len(prompts))
        return await self.inference.texts(caller.name, prompts)

    async def soft_features(
        self, caller: Caller, contexts: FloatArray, classnames: Sequence[str]
    ) -> FloatArray:
        """(B, K, d) float32 of soft prompts, (B[, K], m, e) float32."""
        self._check_prompts(classnames)
        if contexts.ndim not in (3, 4) or not contexts.size or not np.isfinite(contexts).all():
            raise Refusal(400, "request", "contexts must be (B, m, e) or (B, K, m, e), and finite")
        rows = len(contexts) * len(classnames)
        if rows * answers.WIDEST > self.bounds.numbers:
            raise of_bounds(f"{len(contexts)} contexts for {len(classnames)} classes")
        caller.ledger.charge(black_box_calls=1, soft_prompt_encodings=rows)

        def work(box: BlackBox) -> FloatArray:
            import torch

            found: torch.Tensor = box.soft_features(torch.from_numpy(contexts), classnames)
            return np.asarray(found.cpu().numpy())

        found = await self.inference.other(caller.name, work)
        return answers.numbers(found, (len(contexts), len(classnames), None))

    async def embed_text(self, caller: Caller, text: str) -> FloatArray:
        """(L, e) float32 token vectors."""
        self._check_prompts([text])
        caller.ledger.charge(black_box_calls=1)
        found = await self.inference.other(caller.name, lambda box: box.embed_text(text))
        return answers.numbers(found, (len(found), None))

    async def check(self) -> None:
        """Let the model work once.

        Raises:
            Exception: whatever it raises.
        """
        if self._features:
            await self.inference.texts("health", ["a photo."])
        else:
            picture = Received(_blank(), "health")
            await self.inference.other("health", lambda box: box.labels([picture], ["a", "b"]))

    async def _scores(
        self,
        caller: Caller,
        images: Sequence[str | Held],
        prompts: Sequence[str] | Held,
        formats: Sequence[str] = WIRE,
    ) -> FloatArray:
        texts = await self._paired(caller, images, prompts)
        looked = await self._looked_at(caller, images, formats)
        if not self._features:
            found = await self.inference.other(caller.name, lambda box: box.scores(looked, texts))
            return answers.numbers(found, (len(images), len(texts)))
        name = prompts_name(texts)
        if (features := self._shelf.get(name)) is None:
            features = await self.inference.texts(caller.name, texts)
            self._shelf.put(name, features, features.nbytes)
        scores: FloatArray = await asyncio.to_thread(self.box.logits, np.stack(looked), features)
        return scores

    async def _paired(
        self, caller: Caller, images: Sequence[str | Held], prompts: Sequence[str] | Held
    ) -> list[str]:
        """The prompts of a request for pairs, which is charged."""
        if isinstance(prompts, Held):
            if (held := self._shelf.get(f"prompts {prompts.sha256}")) is None:
                raise _forgotten("a list of prompts")
            texts: list[str] = held
        else:
            self._check_prompts(prompts)
            texts = list(prompts)
            length = sum(map(len, texts)) * 4 + 64 * len(texts)
            self._shelf.put(f"prompts {prompts_name(texts)}", texts, length)
        if len(images) * len(texts) > self.bounds.numbers:
            raise of_bounds(f"{len(images)} images for {len(texts)} prompts")
        self._charge(caller, images, len(texts))
        return texts

    def _charge(self, caller: Caller, images: Sequence[str | Held], prompts: int = 0) -> None:
        if len(images) > self.bounds.images:
            raise of_bounds(f"{len(images)} images are more than {self.bounds.images}")
        for image in images:
            if isinstance(image, Held) and self._shelf.get(image.sha256) is None:
                raise _forgotten("an image")
        caller.ledger.charge(
            black_box_calls=1,
            image_encodings=sum(isinstance(image, str) for image in images),
            text_encodings=prompts,
            pairs_scored=len(images) * prompts,
        )

    def _check_prompts(self, prompts: Sequence[str]) -> None:
        if len(prompts) > self.bounds.prompts:
            raise of_bounds(f"{len(prompts)} prompts are more than {self.bounds.prompts}")
        if max(map(len, prompts)) > self.bounds.letters:
            raise of_bounds(f"a prompt has more than {self.bounds.letters} characters")

    async def _looked_at(
        self, caller: Caller, images: Sequence[str | Held], formats: Sequence[str]
    ) -> list[Any]:
        """Of each image its features, (d,) float32, where the box has any; else its picture."""
        if not all(isinstance(i, Held) or i.isascii() for i in images):
            raise Refusal(400, "request", "an image is not base64 of a file")
        names = [i.sha256 if isinstance(i, Held) else image_name(i) for i in images]
        held = {name: self._shelf.get(name) for name in names}
        new = {
            name: image
            for name, image in zip(names, images, strict=True)
            if held[name] is None and isinstance(image, str)
        }
        if new:
            files = [_file(image) for image in new.values()]
            pixels = await asyncio.to_thread(self._pixels, files, formats)
            async with self._pictures.held(3 * pixels):
                pictures = await asyncio.to_thread(_decoded, list(new), files, formats)
                if self._features:
                    features = await self.inference.images(caller.name, pictures)
                    found: list[tuple[Any, int]] = [(one.copy(), one.nbytes) for one in features]
                else:
                    found = [(one, 3 * one.picture.width * one.picture.height) for one in pictures]
            for name, (thing, length) in zip(new, found, strict=True):
                held[name] = thing
                self._shelf.put(name, thing, length)
        if any(thing is None for thing in held.values()):  # others made it go meanwhile
            raise _forgotten("an image")
        return [held[name] for name in names]

    def _pixels(self, files: Sequence[bytes], formats: Sequence[str]) -> int:
        pixels = 0
        for number, file in enumerate(files, 1):
            with _of_picture():
                width, height = size(io.BytesIO(file), f"number {number}", formats)
            pixels += width * height
        if pixels > self.bounds.pixels:
            raise of_bounds(f"the images have more than {self.bounds.pixels:,} pixels together")
        return pixels


def _file(sent: str) -> bytes:
    try:
        return base64.b64decode(sent, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refusal(400, "request", "an image is not base64 of a file") from error


def _decoded(
    names: Sequence[str], files: Sequence[bytes], formats: Sequence[str]
) -> list[Received]:
    with _of_picture():
        return [
            Received(decode(io.BytesIO(file), f"number {number}", formats), name)
            for number, (name, file) in enumerate(zip(names, files, strict=True), 1)
        ]


@contextlib.contextmanager
def _of_picture() -> Iterator[None]:
    """Say what is wrong with a picture, without the ways out of our own command line."""
    try:
        yield
    except DatasetError as error:
        raise Refusal(400, "request", without_remedy(error)) from error


def _blank() -> PillowImage.Image:
    return PillowImage.new("RGB", (32, 32))


def _forgotten(what: str) -> Refusal:
    return Refusal(409, "forgotten", f"{what} is not held any more; send it again")
