"""A graphics card that is not there: its tensors lie on the CPU, but say and demand otherwise.

Under :func:`stand_in` a program runs as it would on the device named, with true numbers, and fails
as it would there where tensors of two devices meet, where a tensor goes to NumPy before it came
back, or where the device lacks a type. What kernels a true card has, and how fast it is, it cannot
say; nor does it know gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Operators that may be given tensors of two devices.
_CROSSING = {"copy_", "_to_copy", "index", "index_put_", "_index_put_impl_"}


class Away(torch.Tensor):
    """A tensor that says it lies on a device; ``here`` holds its numbers."""

    here: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: torch.Tensor, device: torch.device) -> Away:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            here.shape,
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=device,
        )
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} was called after the device had gone")

    def item(self) -> Any:
        return self.here.item()

    def tolist(self) -> Any:
        return self.here.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")

    def contiguous(self, memory_format: Any = torch.contiguous_format) -> torch.Tensor:
        return torch.clone(self, memory_format=memory_format)

    def __invert__(self) -> torch.Tensor:
        return torch.bitwise_not(self)

    def __getitem__(self, where: Any) -> Away:
        return Away(self.here[tree_map(_here, where)], self.device)

    def __setitem__(self, where: Any, what: Any) -> None:
        self.here[tree_map(_here, where)] = _here(what)

    def __bool__(self) -> bool:
        return bool(self.here)

    def __int__(self) -> int:
        return int(self.here)

    def __float__(self) -> float:
        return float(self.here)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.here!r} on {self.device}"


def _here(x: Any) -> Any:
    return x.here if isinstance(x, Away) else x


class StandIn(TorchDispatchMode):
    """While it is on, ``device`` exists.

    Attributes:
        largest: bytes of a tensor above which the device is out of memory.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device = torch.device(device)
        self.largest = 2**62

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = func.overloadpacket.__name__, tree_leaves((args, kwargs or {}))
        if name == "is_pinned":
            return False
        if name in ("_pin_memory", "pin_memory"):
            return args[0].clone()
        if not any(isinstance(x, (Away, torch.device)) or x is True for x in given):
            return func(*args, **(kwargs or {}))
        away = [x for x in given if isinstance(x, Away)]
        others = [x for x in given if isinstance(x, torch.Tensor) and not isinstance(x, Away)]
        if away and name not in _CROSSING and any(x.ndim for x in others):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{self.device} and cpu! ({func})"
            )
        named = [x for x in given if isinstance(x, torch.device)]
        leaves = any(x.type == self.device.type for x in named) if named else bool(away)

        def here(x: Any) -> Any:
            return torch.device("cpu") if isinstance(x, torch.device) else _here(x)

        kwargs = {k: v for k, v in (kwargs or {}).items() if k != "pin_memory"}
        found = func(*tree_map(here, args), **tree_map(here, kwargs))
        known = {id(x.here): x for x in away}

        def send(x: Any) -> Any:
            if not isinstance(x, torch.Tensor):
                return x
            if self.device.type == "mps" and x.dtype == torch.float64:
                raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
            if x.nbytes > self.largest:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            with torch.inference_mode(False):  # views of an inference tensor would fail
                return known[id(x)] if id(x) in known else Away(x, self.device)

        return tree_map(send, found) if leaves else found


def _as_tensor(data: Any, dtype: Any = None, device: Any = None) -> torch.Tensor:
    made = data if isinstance(data, torch.Tensor) else torch.tensor(data)
    return made.to(device or made.device, dtype or made.dtype)


@contextmanager
def stand_in(device: str = "cuda:0") -> Iterator[StandIn]:
    """``device`` for a while."""
    with pytest.MonkeyPatch.context() as patch, StandIn(device) as card:
        patch.setattr(torch.cuda, "is_available", lambda: card.device.type == "cuda")
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "a stand-in")
        patch.setattr(torch, "as_tensor", _as_tensor)  # makes its tensor out of the mode's sight
        patch.setattr(torch.__future__, "get_overwrite_module_params_on_conversion", lambda: True)
        yield card
