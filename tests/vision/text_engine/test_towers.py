"""Which towers go through the tree, and that those that do compute what open_clip computes."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from tiny_clip import families, tiny, tiny_transformers, tokenizer_for
from torch import nn

from llmopt.errors import ModelError
from llmopt.vision.text_engine.engine import TextEngine
from llmopt.vision.text_engine.towers import NotCausal, read_tower

TEXTS = [
    "a photo of a cat.",
    "a photo of a Cat",
    "a photo of two cats, one asleep, the other not.",
    "itap of a photo",
    "x",
    " ".join(["long"] * 120),
]
FAMILIES = families()
NATIVE = {kind: names for kind, names in FAMILIES.items() if kind != "transformers"}


def own_features(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return nn.functional.normalize(model.encode_text(ids), dim=-1)


def expected_path(name: str) -> str:
    """By name, as the documentation of open_clip lists them."""
    padded = ("SigLIP", "CLIPA", "coca", "MobileCLIP-S", "MobileCLIP2-S", "MobileCLIP2-L")
    return "padded" if any(word in name for word in padded) else "trie"


@pytest.mark.parametrize("kind", NATIVE, ids=[names[0] for names in NATIVE.values()])
def test_every_family_of_open_clip(kind: str) -> None:
    names = NATIVE[kind]
    paths = {expected_path(name) for name in names}
    assert len(paths) == 1, names
    model, tokenizer = tiny(names[0]), tokenizer_for(names[0])
    engine = TextEngine(model, tokenizer)
    assert engine.path == paths.pop(), engine.why
    torch.testing.assert_close(
        engine.encode(TEXTS), own_features(model, tokenizer(TEXTS)), atol=1e-6, rtol=0
    )


def test_families_of_open_clip_are_all_there() -> None:
    assert sum(map(len, FAMILIES.values())) >= 144
    assert len(FAMILIES["transformers"]) == 10


def test_transformers_towers_are_padded() -> None:
    pytest.importorskip("transformers", reason="towers of transformers need it")
    model, tokenizer = tiny_transformers()
    engine = TextEngine(model, tokenizer)
    assert engine.path == "padded"
    assert "HFTextEncoder" in engine.why
    own = own_features(model, tokenizer(TEXTS))
    torch.testing.assert_close(engine.encode(TEXTS), own, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"ls_init_value": 0.1},
        {"mlp_ratio": 3.7362},
        {"proj_bias": True},
        {"proj_type": "none"},
        {"norm_kwargs": {"eps": 0.1}},
        {"act_kwargs": {"approximate": "tanh"}},
        {"heads": 4, "layers": 3},
        {"pool_type": "eos", "eos_id": 49407},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["ViT-B-32", "RN50-quickgelu", "EVA02-B-16"])
def test_settings_of_causal_towers(name: str, settings: dict[str, Any]) -> None:
    if "quickgelu" in name:
        settings = {k: v for k, v in settings.items() if k != "act_kwargs"}
    model, tokenizer = tiny(name, **settings), tokenizer_for(name)
    engine = TextEngine(model, tokenizer)
    assert engine.path == "trie", engine.why
    own = own_features(model, tokenizer(TEXTS))
    torch.testing.assert_close(engine.encode(TEXTS), own, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"no_causal_mask": True}, "both ways"),
        ({"pool_type": "last"}, "'last'"),
        ({"pool_type": "first"}, "'first'"),
        ({"block_type": "custom"}, "CustomResidualAttentionBlock"),
        ({"qk_norm": True}, "CustomResidualAttentionBlock"),
        ({"embed_cls": True}, "class token"),
    ],
    ids=str,
)
def test_settings_that_are_not_causal(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotCausal, match=reason):
        read_tower(tiny("EVA02-B-16", **settings))


def test_changed_models_are_not_causal() -> None:
    model = tiny()
    model.attn_mask = model.attn_mask.clone()
    model.attn_mask[0, 1] = 0.0
    with pytest.raises(NotCausal, match="attention mask"):
        read_tower(model)

    model = tiny()
    model.transformer.resblocks[1].attn = nn.MultiheadAttention(
        16, 2, add_bias_kv=True, batch_first=True
    )
    with pytest.raises(NotCausal, match="keys beside"):
        read_tower(model)

    model = tiny()
    model.transformer.resblocks[0].mlp.c_fc = nn.Sequential(model.transformer.resblocks[0].mlp.c_fc)
    with pytest.raises(NotCausal, match="Sequential"):
        read_tower(model)

    class Shouting(type(tiny())):  # type: ignore[misc]
        def encode_text(self, text: torch.Tensor, normalize: bool = False) -> torch.Tensor:
            return super().encode_text(text.clamp(max=9), normalize)

    model = tiny()
    model.__class__ = Shouting
    with pytest.raises(NotCausal, match="Shouting"):
        read_tower(model)


def test_self_check_catches_what_the_weights_do_not_show() -> None:
    model, tokenizer = tiny(), tokenizer_for("ViT-B-32")
    model.transformer.resblocks[0].register_forward_hook(lambda module, args, out: 2 * out)
    with pytest.warns(RuntimeWarning, match="from the model's own") as caught:
        engine = TextEngine(model, tokenizer)
    assert caught[0].filename == __file__
    assert engine.path == "padded"
    own = own_features(model, tokenizer(TEXTS))
    torch.testing.assert_close(engine.encode(TEXTS), own, atol=1e-6, rtol=0)


def test_self_check_accepts_good_models_silently() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = TextEngine(tiny(), tokenizer_for("ViT-B-32"))
    assert "causal" in engine.why


def test_a_feature_that_is_read_at_the_padding() -> None:
    model, tokenizer = tiny(pool_type="eos", eos_id=0), tokenizer_for("ViT-B-32")
    engine = TextEngine(model, tokenizer)
    own = own_features(model, tokenizer(TEXTS[:5]))
    torch.testing.assert_close(engine.encode(TEXTS[:5]), own, atol=1e-6, rtol=0)


def test_tokenizer_of_another_model() -> None:
    with pytest.raises(ModelError, match="gives 77 tokens and the model takes 32"):
        TextEngine(tiny("PE-Core-S-16-384"), tokenizer_for("ViT-B-32"))


def test_cut() -> None:
    by_largest = read_tower(tiny())
    assert by_largest.cut([5, 9, 3, 9, 0]) == (5, 9)
    by_id = read_tower(tiny(pool_type="eos", eos_id=2))
    assert by_id.cut([5, 9, 2, 2, 0]) == (5, 9, 2)
    assert by_id.cut([5, 9, 3]) == (5,)


def test_weights_are_shared_unless_the_precision_differs() -> None:
    model = tiny()
    weight = model.transformer.resblocks[0].mlp.c_fc.weight
    assert read_tower(model).layers[0].up.weight.data_ptr() == weight.data_ptr()
    assert read_tower(model, torch.bfloat16).layers[0].up.weight.dtype is torch.bfloat16
    assert read_tower(model, torch.bfloat16).layers[0].norm_1.weight.dtype is torch.float32
