"""How a black box speaks over HTTP: JSON, with arrays and pictures in base64.

========================= ================================== =================================
request                   body                               answer
========================= ================================== =================================
``GET /info``             -                                  what the box says of itself
``POST /labels, /scores`` ``{"images": […], "prompts": […]}`` ``{"labels" or "scores": array}``
``POST /images``          ``{"images": […]}``                ``{"features": array}``
``POST /texts``           ``{"prompts": […]}``               ``{"features": array}``
``POST /embed``           ``{"text": …}``                    ``{"vectors": array}``
``POST /soft``            ``{"contexts": array,              ``{"features": array}``
                          "classnames": […]}``
========================= ================================== =================================

``/info`` answers with the fields of :class:`~llmopt.vision.base.BoxInfo`, with ``embedding_std`` at
level ``soft``. With ``"holds_images": true`` an image that came once may be called ``{"sha256":
hash of its base64 text}`` from then on, and with ``"holds_prompts": true`` the prompts of a request
for pairs ``{"sha256": hash of their JSON}``; what is held no longer is refused with 409, and sent
again.

An array is ``{"dtype": "float32", "shape": […], "data": base64 of little-endian bytes}``; a picture
is base64 of a PNG file. Errors are ``{"error": {"type": …, "message": …}}`` with a status of 400
(the caller's fault), 401 (token), 403 (access level or quota), 404 (no such path), 408 (came too
slowly), 409, 413 (too much at a time), 429 (too fast: wait as ``Retry-After`` says), 500, 502 (the
model) or 503 (too much is waiting).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import math
import reprlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from llmopt.errors import DatasetError
from llmopt.images import WIRE, decode

DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int64": np.dtype("<i8")}
MOST_BYTES = 512 * 2**20
MOST_AXES: Final = 4
TOKEN_VARIABLE = "LLMOPT_BLACKBOX_TOKEN"


def pack_array(array: npt.NDArray[Any]) -> dict[str, Any]:
    """An array as JSON."""
    name = "int64" if array.dtype.kind == "i" else "float32"
    data = np.ascontiguousarray(array, dtype=DTYPES[name])
    return {
        "dtype": name,
        "shape": list(data.shape),
        "data": base64.b64encode(data.tobytes()).decode("ascii"),
    }


def unpack_array(value: Any) -> npt.NDArray[Any]:
    """The inverse of :func:`pack_array`.

    Raises:
        ValueError: it is not an array, or its data does not fill its shape.
    """
    try:
        dtype, shape = DTYPES[value["dtype"]], tuple(value["shape"])
        raw = base64.b64decode(value["data"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ValueError(f"not an array: {type(error).__name__}") from error
    if len(shape) > MOST_AXES or not all(type(n) is int and 0 <= n <= MOST_BYTES for n in shape):
        raise ValueError(f"no array has the shape {reprlib.repr(shape)}")
    if len(raw) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"{len(raw)} bytes do not fill an array of shape {shape}")
    return np.frombuffer(raw, dtype).reshape(shape).copy()


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object that an answer or a request is.

    Raises:
        ValueError: it is none, or too deeply nested to be one of ours.
    """
    try:
        said = json.loads(raw)
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except ValueError as error:  # not UTF-8, not JSON, or a number of too many digits
        raise ValueError("is not JSON") from error
    if not isinstance(said, dict):
        raise ValueError(f"is {type(said).__name__}, not a JSON object")
    return said


def array_bytes(*shape: int) -> int:
    """The most bytes in which an array of this shape may come, and what stands around it."""
    return 2**16 + 4 * (8 * math.prod(shape) // 3 + 1)


def pack_image(image: PillowImage.Image) -> str:
    """A picture as base64 of a PNG file, which loses nothing."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def image_name(packed: str) -> str:
    """What a picture is called once it was sent: SHA-256 of what :func:`pack_image` made of it."""
    return hashlib.sha256(packed.encode("ascii")).hexdigest()


def prompts_name(prompts: Sequence[str]) -> str:
    """What a list of prompts is called once it was sent: SHA-256 of its JSON."""
    return hashlib.sha256(json.dumps(list(prompts)).encode("ascii")).hexdigest()


def unpack_image(value: Any) -> PillowImage.Image:
    """The inverse of :func:`pack_image`.

    Raises:
        ValueError: it is no PNG file, or not one that is read (see :func:`~llmopt.images.decode`).
    """
    try:
        raw = base64.b64decode(value, validate=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"not a picture: {type(error).__name__}") from error
    try:
        return decode(io.BytesIO(raw), "sent", WIRE)
    except DatasetError as error:
        raise ValueError(f"not a picture in PNG: {error}") from error
