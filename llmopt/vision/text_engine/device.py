"""Where numbers lie and how wide they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def to_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """``array`` as a tensor on ``device``; shares its memory on the CPU.

    From pinned memory a GPU fetches it when it gets there; from plain memory, each copy would hold
    the program up until the GPU has done all it was given before.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def wide(x: Tensor) -> Tensor:
    """``x`` in float32, or in float64 if it has that: what sums and norms are computed in."""
    return x if x.dtype == torch.float64 else x.float()


def index(places: Sequence[int], device: torch.device) -> Tensor:
    """(n,) int64 tensor of ``places`` on ``device``."""
    return to_device(np.asarray(places, dtype=np.int64), device)
