"""The state of a PyTorch optimizer as arrays, for checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch


def pack(
    optimizer: torch.optim.Optimizer, prefix: str = "optimizer."
) -> dict[str, npt.NDArray[Any]]:
    """The state of a PyTorch optimizer as arrays."""
    return {
        f"{prefix}{number}.{name}": value.numpy()
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def unpack(
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, npt.NDArray[Any]],
    prefix: str = "optimizer.",
) -> None:
    """The inverse of :func:`pack`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, array in below(prefix, tensors).items():
        number, _, entry = name.partition(".")
        state.setdefault(int(number), {})[entry] = torch.from_numpy(array)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def below(prefix: str, tensors: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The arrays whose names begin with ``prefix``, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
