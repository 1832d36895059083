"""The device a model computes on: which one, what it can do, and what to do when it is full."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final

import torch

from llmopt.errors import ModelError

_FULL: Final = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How back ends say it that have no error of their own for it."""


def choose(device: str) -> torch.device:
    """The device of a name; ``auto`` is the first there is of CUDA, MPS and CPU.

    Raises:
        ModelError: it is not there, or no tensor can be made on it.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.ones(1, device=chosen).add(1).item()
    except Exception as error:  # back ends that are not there fail in many ways
        raise ModelError(
            f"device '{device}' cannot be used here ({str(error).splitlines()[0]}); "
            "use --device cpu or auto"
        ) from error
    return chosen


def available() -> list[torch.device]:
    """Every device that is there, the one that ``auto`` takes first."""
    cards = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    apple = [torch.device("mps")] if torch.backends.mps.is_available() else []
    return [*cards, *apple, torch.device("cpu")]


def name(device: torch.device) -> str:
    """What people call it, such as ``NVIDIA H100 80GB HBM3``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type.upper()


def abilities(device: torch.device) -> dict[str, Any]:
    """Memory in bytes, the types it computes in, and the rate of its matrix products in FLOP/s."""
    found: dict[str, Any] = {}
    if device.type == "cuda":
        found["free"], found["memory"] = torch.cuda.mem_get_info(device)
        found["tf32"] = torch.cuda.get_device_capability(device) >= (8, 0)
    kinds = {"fp64": torch.float64, "fp32": torch.float32, "fp16": torch.float16,
             "bf16": torch.bfloat16}  # fmt: skip
    found["rates"] = {kind: rate for kind, dtype in kinds.items() if (rate := _rate(device, dtype))}
    return found


def _rate(device: torch.device, dtype: torch.dtype, seconds: float = 0.1) -> float:
    """FLOP/s of square matrix products, the best of some that take ``seconds``; 0: it cannot."""
    size = 256 if device.type == "cpu" else 4096
    try:
        square = torch.ones(size, size, device=device, dtype=dtype).mul_(0.01)
        best, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            began = time.perf_counter()
            float((square @ square)[0, 0])  # which waits for it
            best = min(best, time.perf_counter() - began)
    except (RuntimeError, TypeError):  # the type, or the memory, is not there
        return 0.0
    return 2 * size**3 / best


@contextlib.contextmanager
def whole_fp32() -> Iterator[None]:
    """Convolutions in fp32 as they are asked for.

    PyTorch rounds their factors to TF32 on CUDA unless told otherwise, which costs three decimals;
    of matrix products it does so only if ``torch.set_float32_matmul_precision`` says so.
    """
    flags = torch.backends.cudnn
    before = flags.allow_tf32
    flags.allow_tf32 = False
    try:
        yield
    finally:
        flags.allow_tf32 = before


def is_full(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in _FULL)


class Portion:
    """How much a device is given at once: half as much each time its memory does not suffice.

    Args:
        size: to begin with.
        least: what is not divided any more.
        of: what it counts, for people.

    Attributes:
        size: remembered, so that the device is full once and not at every call.
    """

    def __init__(self, size: int, least: int, of: str) -> None:
        self.size, self._least, self._of = max(size, least), least, of

    @contextlib.contextmanager
    def halved_if_full(self) -> Iterator[None]:
        """Swallow the error of a full device and halve the size; the caller tries again.

        Raises:
            ModelError: there is nothing left to halve.
        """
        try:
            yield
            return
        except RuntimeError as error:
            if not is_full(error):
                raise
            if self.size <= self._least:
                raise ModelError(
                    f"the device has no memory for {self._least} {self._of} "
                    f"({str(error).splitlines()[0][:200]}); close what else is using it, or use "
                    "--device cpu"
                ) from None
        self.size = max(self._least, self.size // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # pieces of the old size would be in the way
