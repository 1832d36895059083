"""In which precision a model computes where nobody says so: ``--precision auto``.

By rule, fp64 for the embedded model, fp16 on a GPU and fp32 on a CPU; ``full`` is the same with
fp32 on a GPU, for searches whose steps drown in half precision. A run that begins on a
processor made for bfloat16 looks closer: where the model predicts the run's own labelled images in
bf16 as it does in fp32, it computes in that, which takes a third of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from llmopt.errors import ModelError, nearest

if TYPE_CHECKING:
    from llmopt.task import Task
    from llmopt.vision.base import BlackBox
    from llmopt.vision.feature_cache import FeatureCache

AUTO, FULL = "auto", "full"
PRECISIONS: Final = ("fp64", "fp32", "fp16", "bf16")
HALF: Final = ("fp16", "bf16")

MOST, FEWEST = 32, 16
"""Images that are looked at; of fewer, too little can be said."""

_CPUINFO = Path("/proc/cpuinfo")
_MADE_FOR_IT = {"avx512_bf16", "amx_bf16"}


def by_rule(precision: str, device: str, embedded: bool) -> str:
    """The precision itself, or what ``auto`` (without a closer look) and ``full`` are.

    Args:
        precision: as asked for.
        device: ``cpu``, ``cuda``, ``mps`` …
        embedded: the model is the embedded one.

    Raises:
        ModelError: there is no such precision.
    """
    if precision in (AUTO, FULL):
        if embedded:
            return "fp32" if device == "mps" else "fp64"  # which MPS has not
        return "fp32" if device == "cpu" or precision == FULL else "fp16"
    if precision not in PRECISIONS:
        raise ModelError(
            f"unknown precision '{precision}'{nearest(precision, PRECISIONS)}; "
            f"use auto, full, {', '.join(PRECISIONS)}"
        )
    return precision


def made_for_bf16() -> bool:
    """Whether the processor multiplies in bfloat16; others imitate it, which is slower than fp32.

    Asks the kernel, so that nothing need be loaded; where it does not tell (elsewhere than on
    Linux), no.
    """
    try:
        return not _MADE_FOR_IT.isdisjoint(_CPUINFO.read_text().split())
    except OSError:
        return False


def announced() -> str:
    """What ``auto`` will be, as far as can be said before a model is open."""
    if not made_for_bf16():
        return "Precision auto: fp32 on this CPU, which is not made for bfloat16; fp16 on a GPU."
    return (
        f"Precision auto: bf16, which this CPU is made for, if up to {MOST} labelled images are "
        "all predicted in it as in fp32; else fp32. fp16 on a GPU. The first lines of the run say "
        "which it is."
    )


def settle(
    box: BlackBox, in_bf16: Callable[[], BlackBox], task: Task, features: FeatureCache
) -> tuple[BlackBox, str]:
    """The box that a run on a CPU computes with, and why.

    What it looks at are images and class names of the task's few shots; no label and no test image.

    Args:
        box: the model in fp32.
        in_bf16: opens it in bf16.
        task: whose labelled images are predicted, with its start template.
        features: where those of the images are kept.
    """
    if not made_for_bf16():
        return box, "fp32: this processor is not made for bfloat16"
    images = [*task.train.images, *task.val.images]
    images = images[:: max(1, len(images) // MOST)][:MOST]
    if len(images) < FEWEST:
        return box, f"fp32: {len(images)} labelled images are too few to tell whether bf16 would do"

    def predicted(by: BlackBox) -> npt.NDArray[np.int64]:
        text = by.text_features(task.start.fill_all(task.classnames))
        found: npt.NDArray[np.int64] = by.logits(features.features(images, by), text).argmax(axis=1)
        return found

    try:
        other = in_bf16()
        apart = int((predicted(box) != predicted(other)).sum())
    except ModelError as error:
        return box, f"fp32: {error}"
    looked_at = f"{len(images)} labelled images"
    if apart:
        return box, f"fp32: {apart} of {looked_at} are predicted otherwise in bf16"
    return other, (
        f"bf16: this processor is made for it, and {looked_at} are all predicted as in fp32"
    )
