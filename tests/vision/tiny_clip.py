"""Tiny models with random weights, one for each way open_clip builds a text tower."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from llmopt._torchvision import ensure_operators

ensure_operators()

import open_clip  # noqa: E402
from open_clip.coca_model import CoCa  # noqa: E402
from open_clip.hf_model import HFTextEncoder  # noqa: E402
from open_clip.model import CLIP, CustomTextCLIP  # noqa: E402

_WIDTH = {"width": 16, "heads": 2, "layers": 2}
_VISION = {"image_size": 32, "patch_size": 16, "width": 32, "head_width": 16, "layers": 1}
_HUB_VOCABULARY = 512
# Which of a configuration's text settings do not change how the tower computes.
_SIZES = ("width", "heads", "layers", "vocab_size", "mlp_ratio")
_TOKENIZER = ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode")


def family(name: str) -> str:
    """What sets the text tower of an open_clip configuration apart, sizes and tokenizer aside."""
    config = open_clip.get_model_config(name)
    text = config["text_cfg"]
    if "hf_model_name" in text:
        return "transformers"
    kind = {k: v for k, v in text.items() if k not in (*_SIZES, *_TOKENIZER)}
    for key in ("custom_text", "quick_gelu"):
        if config.get(key):
            kind[key] = True
    if "multimodal_cfg" in config:
        kind["coca"] = True
    return json.dumps(kind, sort_keys=True)


def families() -> dict[str, list[str]]:
    """The configurations of open_clip by :func:`family`."""
    found: dict[str, list[str]] = {}
    for name in sorted(open_clip.list_models()):
        found.setdefault(family(name), []).append(name)
    return found


def tiny(name: str = "ViT-B-32", *, seed: int = 0, **text: Any) -> Any:
    """A model like the open_clip configuration ``name``, tiny, with settings of ``text`` on top."""
    config = open_clip.get_model_config(name)
    settings = {**config["text_cfg"], **_WIDTH, **text}
    if "hf_tokenizer_name" in settings:
        settings["vocab_size"] = _HUB_VOCABULARY
    for key in _TOKENIZER:
        settings.pop(key, None)
    vision = dict(_VISION)
    arguments: dict[str, Any] = {"quick_gelu": config.get("quick_gelu", False)}
    kind = CustomTextCLIP if config.get("custom_text") else CLIP
    if "multimodal_cfg" in config:
        kind = CoCa
        arguments["multimodal_cfg"] = {**_WIDTH, "context_length": 76, "vocab_size": 99}
        vision |= {"output_tokens": True}
    model = kind(embed_dim=24, vision_cfg=vision, text_cfg=settings, **arguments)
    return randomise(model, seed)


def tiny_transformers() -> tuple[Any, RandomTokenizer]:
    """A model with a text tower of the transformers package, and a tokenizer for it.

    Raises:
        ImportError: that package, which llmopt does not need, is not installed.
    """
    from transformers import RobertaConfig

    settings = {
        "vocab_size": _HUB_VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40,
        "pad_token_id": 0,
    }  # fmt: skip
    model = tiny("EVA02-B-16")
    model.text = HFTextEncoder(
        "roberta", 24, RobertaConfig(**settings), pooler_type="mean_pooler", proj_type="mlp"
    )
    return randomise(model), RandomTokenizer(32, _HUB_VOCABULARY, _HUB_VOCABULARY - 1)


def randomise(model: Any, seed: int = 0) -> Any:
    """Give every parameter a random value, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.25, generator=generator)
    return model.eval()


class RandomTokenizer:
    """Stands in for tokenizers whose files lie on a hub: each word is a random id."""

    def __init__(self, length: int, vocabulary: int, end: int) -> None:
        self.length, self.vocabulary, self.end = length, vocabulary, end

    def __call__(self, texts: Sequence[str], context_length: int | None = None) -> torch.Tensor:
        length = context_length or self.length
        rows = torch.zeros(len(texts), length, dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            words = [hash_id(word, self.vocabulary) for word in text.split()]
            ids = torch.tensor([3, *words, self.end])[:length]
            ids[-1] = self.end
            row[: len(ids)] = ids
        return rows


def hash_id(word: str, vocabulary: int) -> int:
    """A stable id between 4 and the last but one of the vocabulary."""
    return 4 + int.from_bytes(word.encode(), "big") % (vocabulary - 6)


@cache
def tokenizer_for(name: str) -> Any:
    """open_clip's tokenizer for a configuration, or a stand-in where it would ask the hub."""
    text = open_clip.get_model_config(name)["text_cfg"]
    length = text.get("context_length", 77)
    if "hf_tokenizer_name" not in text:
        return _bpe(length)
    return RandomTokenizer(length, _HUB_VOCABULARY, text.get("eos_id", 2))


@cache
def _bpe(length: int) -> Any:
    return open_clip.SimpleTokenizer(context_length=length)
