"""Models as folders that open_clip loads, one for each way it builds a tower; tiny and random."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from llmopt._torchvision import ensure_operators

ensure_operators()

import open_clip  # noqa: E402

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
_TIMM = {"image_size": 160, "timm_pool": "", "timm_proj": "linear"}
_BOTH_WAYS = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
_CUSTOM = {"scale_attn": True, "scale_fc": True, "qk_norm": True, "ls_init_value": 0.1}


def config(vision: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
    """A config of a tiny ViT; ``text`` is merged into its text tower, the rest stands on top."""
    text = given.pop("text", {})
    model = {"embed_dim": 16, "vision_cfg": vision or _VISION, "text_cfg": _TEXT | text}
    return {"model_cfg": deepcopy(model | given), "preprocess_cfg": {"mean": [0.5, 0.4, 0.3]}}


KINDS = {
    "vit": config(quick_gelu=True),
    "resnet": config({"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}),
    "pooled by attention": config(_VISION | {"attentional_pool": True, "attn_pooler_heads": 4}),
    "averaged, with layer scale": config(
        _VISION | {"pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 0.1},
        text={"ls_init_value": 0.1},
    ),
    "custom layers": config(_VISION | _CUSTOM, text=_CUSTOM, custom_text=True),
    "timm vit": config(_TIMM | {"timm_model_name": "test_vit", "timm_pool": "token"}),
    "timm convnext": config(
        _TIMM | {"timm_model_name": "test_convnext", "timm_proj": "mlp", "image_size": 32}
    ),
    "siglip": config(
        _TIMM | {"timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "none"},
        text=_BOTH_WAYS | {"norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"}},
        custom_text=True, embed_dim=64, init_logit_bias=-10,
    ),
    "coca": config(
        _VISION | {"attentional_pool": True, "attn_pooler_heads": 4, "output_tokens": True},
        text={"embed_cls": True, "output_tokens": True},
        multimodal_cfg={"context_length": 16, "width": 16, "heads": 2, "layers": 1,
                        "vocab_size": 99, "attn_pooler_heads": 4, "n_queries": 8},
        custom_text=True,
    ),
}  # fmt: skip


def write(folder: Path, kind: str = "vit") -> str:
    """Write a model into an empty folder; its name for ``--model``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(KINDS[kind]))
    name = f"local-dir:{folder}"
    torch.manual_seed(3)
    model = open_clip.create_model(name, load_weights=False, pretrained_text=False)
    with torch.no_grad():  # open_clip leaves some of a decoder's weights as memory was
        for parameter in model.parameters():
            parameter.nan_to_num_(0.0, 0.0, 0.0).clamp_(-1, 1).add_(
                0.05 * torch.randn_like(parameter)
            )
    save_file(model.state_dict(), folder / WEIGHTS, {"format": "pt"})
    return name
