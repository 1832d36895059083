"""A CLIP that takes no time, with random weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

from safetensors.torch import save_file

from llmopt._torchvision import ensure_operators

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {
    "size": 32,
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def write_model(folder: Path, seed: int = 0, scale: float | None = None, **text: int) -> str:
    """A model as a ``local-dir``; its name for ``--model``.

    Args:
        folder: of the model, made.
        seed: of its weights.
        scale: of its logits, if not that of a model before training.
        text: what differs in the configuration of its text tower.
    """
    import torch

    ensure_operators()
    from open_clip.model import CLIP

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = {**MODEL, "text_cfg": {**MODEL["text_cfg"], **text}}
    clip = CLIP(model["embed_dim"], model["vision_cfg"], model["text_cfg"])
    if scale:
        clip.logit_scale.data.fill_(math.log(scale))
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": model, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"
