"""Packed layers compute what the layers do, and give way where they cannot."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_clip import tiny, tokenizer_for
from torch.nn import functional as F

from llmopt.vision.text_engine import packed as module
from llmopt.vision.text_engine.engine import TextEngine
from llmopt.vision.text_engine.packed import NARROWEST, PackedLayer, filled_up, packed
from llmopt.vision.text_engine.towers import read_tower
from llmopt.vision.text_engine.tree_encoder import TreeEncoder

TEXTS = ["a photo of a cat.", "a photo of a dog in the snow.", "itap of a cat.", "texture"]


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-32-quickgelu", "RN50"])
def test_wide_towers_are_packed_and_exact(name: str) -> None:
    model, tokenizer = tiny(name, width=NARROWEST, heads=4, layers=2), tokenizer_for(name)
    engine = TextEngine(model, tokenizer)
    encoder = engine._encoder
    assert isinstance(encoder, TreeEncoder)
    assert all(isinstance(layer, PackedLayer) for layer in encoder._packed)
    with torch.inference_mode():
        own = F.normalize(model.encode_text(tokenizer(TEXTS)), dim=-1)
    assert (engine.encode(TEXTS) - own).abs().max() < 1e-5


def test_few_kernels_serve_any_number_of_rows() -> None:
    numbers = range(1, 2049)
    assert all(0 <= filled_up(rows) - rows <= max(15, rows // 2) for rows in numbers)
    assert len(set(map(filled_up, numbers))) == 38
    layer = read_tower(tiny("ViT-B-32", width=NARROWEST, heads=4, layers=1)).layers[0]
    (fast,) = packed([layer])
    assert isinstance(fast, PackedLayer)
    with torch.inference_mode():
        for rows in (1, 16, 77, 128, 129, 200):
            x = torch.randn(2, rows, NARROWEST)
            assert (fast.project(x) - layer.project(x)).abs().max() < 1e-5
            assert (fast.finish(x, x) - layer.finish(x, x)).abs().max() < 1e-4


def test_bf16_is_packed_and_as_close_to_fp32_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny("ViT-B-32", width=NARROWEST, heads=4, layers=2), tokenizer_for("RN50")
    full = TextEngine(model, tokenizer).encode(TEXTS)
    fast = TextEngine(model, tokenizer, precision="bf16")
    assert isinstance(fast._encoder, TreeEncoder)
    # oneDNN computes in bf16 on processors made for it only; elsewhere layers stay as they are.
    made_for_it = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert [isinstance(layer, PackedLayer) for layer in fast._encoder._packed] == [made_for_it] * 2
    monkeypatch.setattr(module, "MOST_BYTES", 0)
    plain = TextEngine(model, tokenizer, precision="bf16").encode(TEXTS)
    assert 0 < (fast.encode(TEXTS) - full).abs().max() <= 1.5 * (plain - full).abs().max() < 0.03


def test_soft_prompts_keep_their_gradients() -> None:
    model, tokenizer = tiny("ViT-B-32", width=NARROWEST, heads=4, layers=2), tokenizer_for("RN50")
    engine = TextEngine(model, tokenizer)
    contexts = torch.randn(2, 3, NARROWEST, requires_grad=True)
    with_gradients = engine.encode_soft(contexts, ["cat", "dog"], grad=True)
    with_gradients.sum().backward()
    assert contexts.grad is not None
    without = engine.encode_soft(contexts.detach(), ["cat", "dog"])
    assert (with_gradients - without).abs().max() < 1e-5


def test_layers_stay_as_they_are_where_packing_does_not_work_or_pay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    narrow = read_tower(tiny("ViT-B-32")).layers
    assert packed(narrow) is narrow
    half = read_tower(tiny("ViT-B-32", width=NARROWEST, heads=4), torch.float16).layers
    assert packed(half) is half
    layers = read_tower(tiny("ViT-B-32", width=NARROWEST, heads=4)).layers
    assert packed(layers) is not layers
    with monkeypatch.context() as patch:
        patch.setattr(module, "MOST_BYTES", 1000)
        assert packed(layers) is layers
    with monkeypatch.context() as patch:
        patch.setattr(module, "_pack", lambda linear: torch.ops.mkldnn.no_such_operator)
        assert packed(layers) is layers
    with monkeypatch.context() as patch:  # something else is computed
        product = module._product
        patch.setattr(module, "_product", lambda *given: product(*given) * 1.001)
        assert packed(layers) is layers
    strange = [dataclasses.replace(layers[0], act=torch.sin), *layers[1:]]
    x = torch.randn(1, 4, NARROWEST)
    with torch.inference_mode():
        fast = packed(strange)[0]
        assert isinstance(fast, PackedLayer)
        found, expected = fast.finish(x, x.clone()), strange[0].finish(x, x.clone())
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
