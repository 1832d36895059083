"""From images to the batch of pixels a model takes: who decodes and scales them.

Pillow does, on all cores, for every device, so that a picture has the same features everywhere.
Where its threads cannot keep a graphics card busy, ``--decoder nvjpeg`` lets the card decode JPEG
files itself, through torchvision: they cross to it coded, and are scaled there. Its pixels are some
levels of 255 away from Pillow's, features by as much; so it has to be asked for, and is part of a
model's identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image as PillowImage

from llmopt.errors import ModelError, nearest
from llmopt.images import Image, decode, plain_jpeg

PILLOW, NVJPEG = "pillow", "nvjpeg"
DECODERS: Final = (PILLOW, NVJPEG)

AT_ONCE: Final = 1 << 26
"""Pixels that a card holds decoded beside a batch: 192 MiB."""

FAR: Final = 3.0
"""Levels of 255, on average, above which a decoder does not show the picture that Pillow shows."""

_SCALING: Final = ("Resize", "CenterCrop", "Normalize")  # which do the same to a tensor
_CONVERTING: Final = ("MaybeConvertMode", "_convert_to_rgb")  # a decoded JPEG is RGB already
_TO_UNIT: Final = ("MaybeToTensor", "ToTensor")


class Decoder(Protocol):
    """Who makes pixels of images, in two steps.

    Attributes:
        name: of :data:`DECODERS`.
    """

    name: str

    def load(self, image: Image) -> Any:
        """What can be done of one image on a thread.

        Raises:
            DatasetError: it is missing or damaged.
        """

    def stack(self, loaded: Sequence[Any]) -> torch.Tensor:
        """(B, 3, H, W) float32: what B calls of :meth:`load` gave, as a batch."""


def make_decoder(
    name: str, preprocess: Callable[[PillowImage.Image], torch.Tensor], device: torch.device
) -> Decoder:
    """A decoder by name.

    Args:
        name: of :data:`DECODERS`.
        preprocess: the model's evaluation transform, from an RGB picture to (3, H, W) float32.
        device: where the pixels are needed.

    Raises:
        ModelError: there is no such decoder, or it cannot work here or for this model.
    """
    if name == PILLOW:
        return PillowDecoder(preprocess, pin=device.type == "cuda")
    if name == NVJPEG:
        return NvJpegDecoder(preprocess, device)
    raise ModelError(
        f"unknown decoder '{name}'{nearest(name, DECODERS)}; use {' or '.join(DECODERS)}"
    )


class PillowDecoder:
    """All on the CPU.

    Args:
        preprocess: as :func:`make_decoder` takes it.
        pin: stack in page-locked memory, from which a GPU fetches them by itself.
    """

    name = PILLOW

    def __init__(
        self, preprocess: Callable[[PillowImage.Image], torch.Tensor], pin: bool = False
    ) -> None:
        self._preprocess, self._pin = preprocess, pin

    def load(self, image: Image) -> torch.Tensor:
        """(3, H, W) float32."""
        return self._preprocess(image.load())

    def stack(self, loaded: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, 3, H, W) float32, on the CPU."""
        if not self._pin:
            return torch.stack(list(loaded))
        first = loaded[0]
        out = torch.empty(len(loaded), *first.shape, dtype=first.dtype, pin_memory=True)
        return torch.stack(list(loaded), out=out)


@dataclass(frozen=True, slots=True)
class Coded:
    """A JPEG file to be decoded on the card.

    Attributes:
        image: it.
        content: (n,) uint8, the file's bytes.
        pixels: width times height.
    """

    image: Image
    content: torch.Tensor
    pixels: int


class NvJpegDecoder:
    """JPEG files on the card; all else, and what the card cannot decode, by Pillow.

    Args:
        preprocess, device: as :func:`make_decoder` takes them.

    Raises:
        ModelError: the device, this torchvision or the model's preprocessing cannot do it.
    """

    name = NVJPEG

    def __init__(
        self, preprocess: Callable[[PillowImage.Image], torch.Tensor], device: torch.device
    ) -> None:
        if why := why_no_nvjpeg(device):
            raise ModelError(
                f"decoder '{NVJPEG}' cannot be used here: {why}; use --decoder {PILLOW}"
            )
        self._by_pillow = PillowDecoder(preprocess, pin=device.type == "cuda")
        self._steps = list(_on_tensors(preprocess))
        self._device = device

    def load(self, image: Image) -> Coded | torch.Tensor:
        """The bytes of a JPEG file that every decoder shows alike; else Pillow's pixels."""
        if (found := plain_jpeg(image)) is None:
            return self._by_pillow.load(image)
        content, pixels = found
        return Coded(image, _tensor(content), pixels)

    def stack(self, loaded: Sequence[Coded | torch.Tensor]) -> torch.Tensor:
        """(B, 3, H, W) float32, on the device."""
        found: dict[int, torch.Tensor] = {}
        coded = {place: one for place, one in enumerate(loaded) if isinstance(one, Coded)}
        others = {place: one for place, one in enumerate(loaded) if isinstance(one, torch.Tensor)}
        for group in _portions(coded):
            found |= zip(group, self._pixels([coded[place] for place in group]), strict=True)
        if others:
            pixels = self._by_pillow.stack(list(others.values())).to(self._device)
            found |= zip(others, pixels, strict=True)
        return torch.stack([found[place] for place in range(len(loaded))])

    def _pixels(self, coded: Sequence[Coded]) -> list[torch.Tensor]:
        """(3, H, W) float32 of each, on the device."""
        try:
            pictures = _decoded([one.content for one in coded], self._device)
        except RuntimeError:  # of one, or of the memory: it does not say which
            if len(coded) > 1:
                return [pixels for one in coded for pixels in self._pixels([one])]
            return [self._by_pillow.load(coded[0].image).to(self._device)]
        return [self._scaled(picture) for picture in pictures]

    def _scaled(self, picture: torch.Tensor) -> torch.Tensor:
        for step in self._steps:
            picture = step(picture)
        return picture


def why_no_nvjpeg(device: torch.device) -> str:
    """What is in the way of :class:`NvJpegDecoder`; empty where it shows what Pillow shows."""
    if device.type != "cuda":
        return f"it needs an NVIDIA card, and the device is {device}"
    file = BytesIO()
    PillowImage.fromarray(_soft_colours()).save(file, "JPEG", quality=95)
    expected = np.asarray(decode(file, "a test picture"))
    try:
        (found,) = _decoded([_tensor(file.getvalue())], device)
        shown = found.cpu().permute(1, 2, 0).numpy()
        apart = float(np.abs(np.subtract(shown, expected, dtype=np.float32)).mean())
    except (ImportError, AttributeError, RuntimeError, TypeError) as error:
        said = " ".join(str(error).split())[:200]
        return f"torchvision is not the one made for this torch and CUDA, or lacks it ({said})"
    return "" if apart <= FAR else f"a test picture is {apart:.1f} levels of 255 from {PILLOW}'s"


def _soft_colours() -> npt.NDArray[np.uint8]:
    """A picture without edges, which decoders draw differently."""
    across, down = np.meshgrid(np.arange(96), np.arange(64))
    soft = np.stack([2 * across + 30, 3 * down + 30, across + down + 40], axis=-1)
    return soft.astype(np.uint8)


def _decoded(contents: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """(3, h, w) uint8 of each JPEG file, on the device."""
    from torchvision.io import ImageReadMode, decode_jpeg

    found: list[torch.Tensor] = decode_jpeg(contents, ImageReadMode.RGB, device)
    return found


def _tensor(content: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _portions(coded: dict[int, Coded]) -> Iterator[list[int]]:
    """Places of those to decode together, at most :data:`AT_ONCE` pixels unless it is one."""
    group: list[int] = []
    held = 0
    for place, one in coded.items():
        if group and held + one.pixels > AT_ONCE:
            yield group
            group, held = [], 0
        group.append(place)
        held += one.pixels
    if group:
        yield group


def _on_tensors(preprocess: Any) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """The steps of an evaluation transform, for (3, h, w) uint8 tensors.

    Raises:
        ModelError: one of them takes pictures only.
    """
    for step in getattr(preprocess, "transforms", [preprocess]):
        name = getattr(step, "__name__", type(step).__name__)
        if name in _TO_UNIT:
            yield lambda picture: picture.float().div(255)
        elif name in _SCALING:
            yield step
        elif name not in _CONVERTING:
            raise ModelError(
                f"decoder '{NVJPEG}' cannot prepare images for this model, whose '{name}' takes "
                f"Pillow's pictures only; use --decoder {PILLOW}"
            )
