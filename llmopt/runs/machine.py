"""The machine a run was made on, and whether another would have found the same."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

from llmopt.vision.base import BoxInfo
from llmopt.vision.precision import HALF


def machine(info: BoxInfo, llm_repeats: bool, precision_why: str = "") -> dict[str, Any]:
    """What decides the last bits of a score, and whether they decide anything.

    Args:
        info: the black box.
        llm_repeats: there is no language model, or the same messages get the same reply from it.
        precision_why: what decided the precision, where nobody asked for one.

    Returns:
        ``processor``; ``instructions`` and ``threads`` of PyTorch where it was used; ``device`` and
        ``precision`` of the black box where it tells; ``precision_because``, what decided it, where
        nobody asked for one; ``tf32``, whether fp32 products are rounded to TF32 on a GPU;
        ``same_elsewhere``; ``because``, a line for people.
    """
    if not llm_repeats:
        because = "a language model may answer otherwise when it is asked again"
    elif info.precision in HALF:
        because = (
            f"in {info.precision} features differ by thousandths from those of fp32, which another "
            "processor may compute in, and a search can end elsewhere for it; --precision fp32 "
            "differs by last bits, and fp64 on a CPU repeats"
        )
    elif not info.repeatable:
        because = (
            "last bits of the model's features differ between processors, and a long search can "
            "end elsewhere for it; a model that runs here with --precision fp64 on a CPU repeats"
        )
    else:
        because = "the model computes in fp64, and what is decided on is rounded"
    torch = sys.modules.get("torch")
    return {
        "processor": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability() if torch else None,
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "device": info.device or None,
        "precision": info.precision or None,
        "precision_because": precision_why or None,
        "tf32": torch.get_float32_matmul_precision() != "highest" if torch else None,
        "same_elsewhere": llm_repeats and info.repeatable,
        "because": because,
    }
