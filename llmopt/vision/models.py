"""The models that can stand behind the wall, for people to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmopt._torchvision import ensure_operators
from llmopt.errors import ModelError
from llmopt.vision import shapes_tiny
from llmopt.vision.boxes import BLACK_BOXES, PAID

EMBEDDED = "embedded"


def known_models() -> list[dict[str, Any]]:
    """Name and weight tags of each model, the embedded one first.

    Kinds of black box that are asked elsewhere come last, as ``KIND:ADDRESS`` with a ``note``:
    those of hosted services, and those of plug-ins with their package.
    """
    ensure_operators()
    import open_clip

    tags: dict[str, list[str]] = {name: [] for name in open_clip.list_models()}
    for name, tag in open_clip.list_pretrained():
        tags.setdefault(name, []).append(tag)
    first = {"name": shapes_tiny.NAME, "pretrained": [EMBEDDED]}
    here = [{"name": n, "pretrained": t} for n, t in tags.items() if t]
    outside = [
        {"name": f"{plugin.name}:ADDRESS", "pretrained": [], "note": plugin.note}
        for plugin in BLACK_BOXES.plugins()
    ]
    hosted = [{"name": f"{k}:ADDRESS", "pretrained": [], "note": "a hosted model"} for k in PAID]
    return [first, *here, *hosted, *outside]


def describe(name: str, pretrained: str, device: str, precision: str = "auto") -> dict[str, Any]:
    """Load a model and say what it offers."""
    from llmopt.vision.openclip import OpenClipBlackBox

    box = OpenClipBlackBox(name, pretrained, device=device, precision=precision)
    info = box.info
    return {
        "name": info.name,
        "pretrained": info.pretrained or (EMBEDDED if name == shapes_tiny.NAME else ""),
        "access": str(info.access),
        "device": str(box.device),
        "precision": box.precision,
        "text path": box.engine.path,
        "why": box.engine.why,
        "context length": box.engine.context_length,
        "feature dimension": box.engine.dim,
        "logit scale": round(info.logit_scale, 3),
        "weights sha256": info.weights_sha256,
    }


def export_model(name: str, folder: Path) -> None:
    """Write the embedded model as an open_clip ``local-dir``.

    Raises:
        ModelError: another model was asked for, or the folder cannot be written.
    """
    if name != shapes_tiny.NAME:
        raise ModelError(f"only '{shapes_tiny.NAME}' is embedded and can be exported, not '{name}'")
    try:
        shapes_tiny.export(folder)
    except OSError as error:
        raise ModelError(f"cannot write {folder}: {error.strerror or error}") from error
