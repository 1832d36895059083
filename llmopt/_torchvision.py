"""Makes ``import torchvision`` work beside a CPU build of torch.

torchvision registers Python-side rules for two operators of its compiled extension, ``nms`` and
``qnms``, as soon as it is imported. Where that extension can't be loaded (the wheel from PyPI is
linked against CUDA, so it can't beside a CPU-only torch) the operators don't exist, and the import
dies with ``operator torchvision::nms does not exist``; open_clip, which imports torchvision, dies
with it. CLIP models call neither operator: declaring their names is all that is missing.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"

_library: torch.library.Library | None = None  # the operators vanish with it


def ensure_operators() -> None:
    """Declare torchvision's operators where its compiled extension doesn't provide them.

    Call it before importing open_clip or torchvision. Does nothing where the extension loads, where
    torchvision isn't installed, and from the second call on.
    """
    global _library
    if _library is not None or _declared() or _extension_loads():
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in _OPERATORS:
        _library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]


def _declared() -> bool:
    return all(hasattr(torch.ops.torchvision, name) for name in _OPERATORS)


def _extension_loads() -> bool:
    """Whether torchvision's own extension provides the operators; true without torchvision.

    Loading it here is what torchvision's import does first, so it costs nothing twice.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    extension = sorted(Path(spec.origin).parent.glob("_C*"))
    if not extension:
        return False
    try:
        torch.ops.load_library(str(extension[0]))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return _declared()
