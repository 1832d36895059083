"""What a black box may answer: the one place where its answers are checked.

Whatever stands behind the wall, a server or somebody's function, its numbers are outside data. They
pass here before anything is made of them. Each check raises :class:`ValueError` with what is wrong;
who asked adds of whom and what.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from llmopt.task import FloatArray
from llmopt.vision.base import Access, BoxInfo

WIDEST: Final = 4096
"""No model's features or token vectors are longer."""

_LONGEST = 300
_MOST_SCALE = 1e6


def numbers(answer: Any, shape: tuple[int | None, ...]) -> FloatArray:
    """An answer as finite float32 of a shape; None in it is any length up to :data:`WIDEST`."""
    array = _real(answer)
    fits = array.ndim == len(shape) and all(
        0 < have <= WIDEST if want is None else have == want
        for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("d" if n is None else str(n) for n in shape) + "," * (len(shape) == 1)
        raise ValueError(f"must give an array of shape ({wanted}), not {array.shape}")
    with np.errstate(over="ignore"):
        found = array.astype(np.float32, copy=False)
    if found.size and not np.isfinite([found.min(), found.max()]).all():
        raise ValueError("gave a number that is not finite")
    return found


def places(answer: Any, images: int, prompts: int) -> npt.NDArray[np.int64]:
    """Predicted prompts, (images,) int64, each from 0 to ``prompts - 1``."""
    array = numbers(answer, (images,))
    if not ((array == np.rint(array)) & (array >= 0) & (array < prompts)).all():
        raise ValueError(f"must give labels that are places among the {prompts} prompts, from 0 on")
    return array.astype(np.int64)


def info(said: Mapping[str, Any], address: str) -> BoxInfo:
    """What a remote box says of itself, as far as it is believed.

    Its name and hash are shown and compared, never used as a path; the hash is hex or refused.
    """
    told = _read(said)
    return BoxInfo(
        name=f"{told.name} at {address}",
        pretrained=told.pretrained,
        access=Access(told.access),
        weights_sha256=told.weights_sha256,
        logit_scale=told.logit_scale,
        logit_bias=told.logit_bias,
        detail=f"remote: {told.detail}",
    )


def embedding_std(said: Mapping[str, Any]) -> float:
    """Spread of the token-embedding table of a ``soft`` box."""
    if (std := _read(said).embedding_std) is None:
        raise ValueError("it does not tell its embedding_std")
    return std


def _shown(text: str) -> str:
    if not text.isprintable():
        raise ValueError("holds characters that cannot be shown")
    return text


def _hash(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("must be 64 hexadecimal digits")
    return text


_Text = Annotated[str, StringConstraints(max_length=_LONGEST), AfterValidator(_shown)]


class _Info(BaseModel):
    """The answer to ``GET /info``; what else stands in it is passed over."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    name: Annotated[_Text, StringConstraints(min_length=1)]
    pretrained: _Text = ""
    access: Annotated[int, Field(ge=min(Access), le=max(Access))]
    weights_sha256: Annotated[str, AfterValidator(_hash)]
    logit_scale: Annotated[float, Field(gt=0, le=_MOST_SCALE)]
    logit_bias: Annotated[float, Field(ge=-_MOST_SCALE, le=_MOST_SCALE)] = 0.0
    detail: _Text = ""
    embedding_std: Annotated[float, Field(gt=0, le=_MOST_SCALE)] | None = None


def _read(said: Mapping[str, Any]) -> _Info:
    try:
        return _Info.model_validate(dict(said))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        problem = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"its {where} is {reprlib.repr(first['input'])}: {problem}") from error


def _real(answer: Any) -> npt.NDArray[Any]:
    if isinstance(answer, np.ndarray) and answer.dtype == np.float32:
        return answer
    try:
        return np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"must give an array of numbers, not {reprlib.repr(answer)}") from error
