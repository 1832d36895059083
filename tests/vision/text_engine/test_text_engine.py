"""The engine's features equal the model's own, and it computes no more than it must."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_clip import tiny, tokenizer_for
from torch.nn import functional as F

from llmopt.errors import AccessError, ConfigError, TemplateError
from llmopt.vision.text_engine.engine import TextEngine
from llmopt.vision.text_engine.row_cache import RowCache
from llmopt.vision.text_engine.token_tree import BLOCK
from llmopt.vision.text_engine.towers import read_tower
from llmopt.vision.text_engine.tree_encoder import TreeEncoder
from llmopt.vision.vocabulary import Vocabulary

CAUSAL = ("ViT-B-32", "RN50-quickgelu", "PE-Core-S-16-384", "ViT-L-14-worldwide")
PADDED = ("ViT-B-16-SigLIP", "ViT-L-14-CLIPA", "MobileCLIP-S1")
MODELS = {name: tiny(name, ls_init_value=1.0, layers=3) for name in (*CAUSAL, *PADDED)}
TEMPLATES = ("a photo of a {}.", "itap of a {}", "{}", "{} in a video game.", "a photo of the {}!")
NAMES = ("cat", "catfish", "cat_fish", "hot-air balloon", "Ferris wheel", "ferris  WHEEL", "Ünder")


def own_features(name: str, texts: list[str]) -> torch.Tensor:
    with torch.inference_mode():
        features = MODELS[name].encode_text(tokenizer_for(name)(texts))
    return F.normalize(features, dim=-1)


def engine_for(name: str = "ViT-B-32", **options: Any) -> TextEngine:
    return TextEngine(MODELS[name], tokenizer_for(name), **options)


@cache
def shared_engine(name: str) -> TextEngine:
    """One for all examples of a property: making an engine checks it, which takes longest."""
    return engine_for(name, cache_bytes=0)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------- text prompts


@settings(max_examples=40)
@given(
    name=st.sampled_from((*CAUSAL, *PADDED)),
    classnames=st.lists(st.sampled_from(NAMES) | st.text(max_size=30), min_size=1, max_size=12),
    templates=st.lists(st.sampled_from(TEMPLATES) | st.text(max_size=20), min_size=1, max_size=4),
    chunk=st.integers(1, 3 * BLOCK),
)
def test_features_equal_the_models_own(
    name: str, classnames: list[str], templates: list[str], chunk: int
) -> None:
    texts = [t.replace("{}", c) for t in templates for c in classnames]
    engine = shared_engine(name)
    if isinstance(engine._encoder, TreeEncoder):
        engine._encoder._portion.size = chunk
    before = replace(engine.counts)
    features = engine.encode(texts)
    assert features.dtype == torch.float32
    close(features, own_features(name, texts))
    assert engine.counts.texts - before.texts == len(texts)
    assert engine.counts.computed - before.computed == len(set(engine.normal_forms(texts)))


@settings(max_examples=25)
@given(
    forms=st.lists(
        st.lists(st.integers(0, 3), min_size=1, max_size=30).map(tuple), max_size=40, unique=True
    ),
    chunk=st.integers(1, 4 * BLOCK),
    sequences=st.integers(1, 50),
)
def test_any_token_sequences(forms: list[tuple[int, ...]], chunk: int, sequences: int) -> None:
    """Also those that end inside of others, which prompts never do."""
    if not forms:
        return
    model = MODELS["ViT-B-32"]
    padded = torch.zeros(len(forms), 77, dtype=torch.long)
    ends = torch.tensor([len(form) - 1 for form in forms])
    for row, form in zip(padded, forms, strict=True):
        row[: len(form)] = torch.tensor(form)
    with torch.inference_mode():
        x = model.token_embedding(padded) + model.positional_embedding
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
        expected = F.normalize(x[torch.arange(len(forms)), ends] @ model.text_projection, dim=-1)
        found = torch.empty_like(expected)
        encoder = TreeEncoder(read_tower(model), chunk, sequences=sequences)
        for places, rows in encoder.encode(forms):
            found[places] = rows
    close(found, expected)


def test_no_texts() -> None:
    assert engine_for().encode([]).shape == (0, 24)
    assert engine_for("ViT-B-16-SigLIP").encode([]).shape == (0, 24)


def test_case_and_space_cost_nothing() -> None:
    engine = engine_for()
    first = engine.encode(["a photo of a cat.", "A  Photo of a CAT.", "a photo of a cat"])
    assert (engine.counts.texts, engine.counts.computed) == (3, 2)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    again = engine.encode(["a photo of a Cat", "a photo of a dog", "a photo of a cat."])
    assert (engine.counts.texts, engine.counts.computed) == (6, 3)
    assert torch.equal(again[0], first[2])
    assert torch.equal(again[2], first[0])
    close(
        again,
        own_features("ViT-B-32", ["a photo of a cat", "a photo of a dog", "a photo of a cat."]),
    )


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-SigLIP"])
def test_token_ids_and_normal_forms(name: str) -> None:
    engine = engine_for(name)
    texts = ["a photo of a cat.", "itap of a dog", "word " * 99]
    expected = own_features(name, texts)
    close(engine.encode_tokens(tokenizer_for(name)(texts)), expected)
    assert torch.equal(engine.encode_tokens(engine.normal_forms(texts)), engine.encode(texts))
    assert engine.counts.computed == 3


def test_normal_form_ends_at_the_end_token() -> None:
    engine = engine_for()
    form = engine.normal_form("a photo")
    assert form[0] == 49406
    assert form[-1] == 49407
    assert len(form) == 4
    assert engine.normal_form(" A   PHOTO ") == form
    assert engine.normal_form("a photo.") != form


@pytest.mark.parametrize(
    ("name", "words", "tokens"),
    [
        ("ViT-B-32", 3, 5),
        ("ViT-B-32", 75, 77),
        ("ViT-B-32", 200, 202),
        ("PE-Core-S-16-384", 40, 42),
        ("ViT-L-14-worldwide", 3, 5),
        ("ViT-B-16-SigLIP", 100, 102),
    ],
)
def test_token_length_of_texts_too_long(name: str, words: int, tokens: int) -> None:
    engine = engine_for(name)
    assert engine.token_length(" ".join(["cat"] * words)) == tokens
    assert len(engine.normal_form(" ".join(["cat"] * 200))) == engine.context_length


@pytest.mark.parametrize("end", [1, 2])
def test_token_length_where_padding_may_be_the_end(end: int) -> None:
    """T5's tokenizer pads with the end, as SigLIP's does it; CLIP's and BERT's do not."""

    def tokenizer(texts: list[str], context_length: int = 64) -> torch.Tensor:
        rows = torch.full((len(texts), context_length), 1)
        for row, text in zip(rows, texts, strict=True):
            ids = [*([6] * len(text.split()))[: context_length - 1], end]
            row[: len(ids)] = torch.tensor(ids)
        return rows

    engine = TextEngine(MODELS["ViT-B-16-SigLIP"], tokenizer)
    assert engine.path == "padded"
    for words in (1, 5, 61, 62, 63, 64, 65, 100):
        assert engine.token_length(" ".join(["cat"] * words)) == words + 1


@pytest.mark.parametrize("ids", [[[]], [[1] * 78], [[-1]], [[49408]]])
def test_bad_token_ids(ids: list[list[int]]) -> None:
    with pytest.raises(ValueError, match=r"tokens; expected|not all in"):
        engine_for().encode_tokens(ids)


def test_features_may_serve_in_a_gradient() -> None:
    engine = engine_for()
    head = torch.ones(24, 3, requires_grad=True)
    engine.encode(["a", "b"])
    (engine.encode(["a", "b", "c"]) @ head).sum().backward()
    assert head.grad is not None


def test_unknown_precision() -> None:
    with pytest.raises(ConfigError, match="did you mean 'fp16'"):
        engine_for(precision="fp61")


@pytest.mark.parametrize("name", ["ViT-B-32", "MobileCLIP-S1"])
def test_low_precision_stays_close(name: str) -> None:
    engine = engine_for(name, precision="bf16")
    texts = [t.format(c) for t in TEMPLATES for c in NAMES]
    features = engine.encode(texts)
    assert features.dtype == torch.float32
    assert F.cosine_similarity(features, own_features(name, texts)).min() > 0.995
    assert not torch.equal(features, engine_for(name).encode(texts))


# ----------------------------------------------------------------------------------------- cache


def test_cache_is_bounded_and_drops_the_oldest() -> None:
    row = 24 * 4
    engine = engine_for(cache_bytes=3 * row)
    for text in ("a", "b", "c", "a", "d"):  # d takes the place of b
        engine.encode([text])
    assert engine.counts.computed == 4
    engine.encode(["a", "c", "d"])
    assert engine.counts.computed == 4
    engine.encode(["b"])
    assert engine.counts.computed == 5
    many = [f"{a} {b}" for a in NAMES for b in NAMES]
    close(engine.encode(many), own_features("ViT-B-32", many))
    assert len(engine._cache) == 3


@pytest.mark.parametrize("max_bytes", [0, 7])
def test_cache_without_room(max_bytes: int) -> None:
    cache = RowCache(max_bytes)
    cache.put(["key"], torch.ones(1, 2))
    assert cache.take(["key"], torch.empty(1, 2)) == [0]
    assert len(cache) == 0


def test_cache_does_not_hold_on_to_callers_tensors() -> None:
    engine = engine_for()
    first = engine.encode(["a"])
    expected = first.clone()
    first.zero_()
    assert torch.equal(engine.encode(["a"]), expected)


# ---------------------------------------------------------------------------------- soft prompts


def soft_loop(name: str, contexts: torch.Tensor, classnames: list[str]) -> torch.Tensor:
    """(B, K, d) the plain way: every prompt padded, one candidate after the other."""
    model, tokenizer = MODELS[name], tokenizer_for(name)
    m = contexts.shape[-2]
    ids = tokenizer([f"{'X ' * m}{c.replace('_', ' ')}." for c in classnames])
    table = model.token_embedding(ids)
    features = []
    for context in contexts:
        rows = context.expand(len(classnames), -1, -1)
        x = torch.cat([table[:, :1], rows, table[:, 1 + m :]], dim=1) + model.positional_embedding
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
        at = ids.argmax(1) if model.text_pool_type == "argmax" else (ids == 1).int().argmax(1)
        features.append(x[torch.arange(len(ids)), at] @ model.text_projection)
    return F.normalize(torch.stack(features), dim=-1)


@settings(max_examples=25)
@given(
    name=st.sampled_from(("ViT-B-32", "RN50-quickgelu", "ViT-L-14-worldwide")),
    classnames=st.lists(st.sampled_from(NAMES), min_size=1, max_size=9),
    candidates=st.integers(1, 5),
    vectors=st.integers(1, 6),
    per_class=st.booleans(),
    chunk=st.integers(1, 5 * BLOCK),
)
def test_soft_prompts_equal_the_plain_loop(
    name: str, classnames: list[str], candidates: int, vectors: int, per_class: bool, chunk: int
) -> None:
    engine = shared_engine(name)
    engine._soft_encoder()._portion.size = chunk
    own = (len(classnames),) if per_class else ()
    contexts = torch.randn(candidates, *own, vectors, 16, generator=torch.manual_seed(vectors))
    found = engine.encode_soft(contexts, classnames)
    with torch.no_grad():
        close(found, soft_loop(name, contexts, classnames))


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("chunk", [BLOCK, 1024])
def test_soft_gradients_equal_the_plain_loops(per_class: bool, chunk: int) -> None:
    engine = engine_for()
    engine._soft_encoder()._portion.size = chunk
    own = (len(NAMES),) if per_class else ()
    contexts = torch.randn(2, *own, 4, 16, generator=torch.manual_seed(0))
    target = torch.randn(2, len(NAMES), 24, generator=torch.manual_seed(1))
    found, expected = contexts.clone().requires_grad_(), contexts.clone().requires_grad_()
    (engine.encode_soft(found, NAMES, grad=True) * target).sum().backward()
    (soft_loop("ViT-B-32", expected, list(NAMES)) * target).sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, atol=1e-5, rtol=1e-4)
    assert all(p.grad is None for p in engine._soft_encoder().tower.layers[0].qkv.__dict__.values())


def test_soft_prompt_of_words_is_the_text_prompt() -> None:
    engine = engine_for()
    words = engine.embed_text("a photo of a")
    assert words.shape == (4, 16)
    found = engine.encode_soft(words[None], NAMES)
    text = [f"a photo of a {name.replace('_', ' ')}." for name in NAMES]
    close(found[0], engine.encode(text))


def test_soft_prompts_without_gradient_by_default() -> None:
    engine = engine_for()
    contexts = torch.zeros(2, 1, 16, requires_grad=True)
    features = engine.encode_soft(contexts, ["cat", "dog"])
    assert not features.requires_grad
    assert not features.is_inference()
    assert features.shape == (2, 2, 24)


@pytest.mark.parametrize(
    "shape", [(2, 16), (2, 4, 15), (2, 0, 16), (2, 3, 4, 16), (1, 2, 2, 4, 16)]
)
def test_soft_prompts_of_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="contexts have shape"):
        engine_for().encode_soft(torch.zeros(shape), ["cat", "dog"])


def test_soft_prompts_too_long() -> None:
    engine = engine_for()
    assert engine.encode_soft(torch.zeros(1, 73, 16), ["cat"]).shape == (1, 1, 24)
    with pytest.raises(TemplateError, match=r"'cat' make 78 tokens; the model takes 77"):
        engine.encode_soft(torch.zeros(1, 74, 16), ["cat"])


def test_padded_towers_take_no_soft_prompts() -> None:
    engine = engine_for("ViT-B-16-SigLIP")
    for ask in (
        lambda: engine.encode_soft(torch.zeros(1, 1, 16), ["cat"]),
        lambda: engine.embed_text("a"),
        lambda: engine.embedding_std,
        lambda: engine.vocabulary,
    ):
        with pytest.raises(AccessError, match="looks both ways"):
            ask()


def test_token_table() -> None:
    engine = engine_for()
    table = MODELS["ViT-B-32"].token_embedding.weight.detach()
    assert engine.embedding_std == pytest.approx(table.std().item())
    (vector,) = engine.embed_text("photo")
    vocabulary = engine.vocabulary
    (nearest,) = vocabulary.nearest(vector[None] + 1e-3, k=3)
    assert nearest[0].text == "photo"
    assert nearest[0].token == engine.normal_form("photo")[1]
    assert nearest[0].distance == pytest.approx(1e-3 * 4, rel=1e-2)
    assert nearest[0].distance < nearest[1].distance <= nearest[2].distance
    assert torch.equal(vocabulary.vectors([nearest[0].token])[0], vector)


def test_texts_are_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for()
    seen: list[str] = []
    rows = engine._rows

    def tokenize(texts: list[str]) -> list[list[int]]:
        seen.extend(texts)
        return rows(texts)

    monkeypatch.setattr(engine, "_rows", tokenize)
    before = engine.normal_forms(["a cat.", "a dog.", "a cat."])
    assert engine.normal_forms(["a dog.", "a cat."]) == [before[1], before[0]]
    assert seen == ["a cat.", "a dog."]
    monkeypatch.setattr("llmopt.vision.text_engine.engine.FORMS", 2)  # a third would be too many
    cow, cat = engine.normal_forms(["a cow.", "a cat."])
    assert cat == before[0]
    assert engine._forms == {"a cow.": cow}
    engine.forget()
    assert engine.normal_forms(["a dog."]) == [before[1]]
    assert seen.count("a dog.") == 2


def test_how_far_tokens_are_apart() -> None:
    table = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 5.0], [9.0, 5.0], [9.0, 5.0]])
    vocabulary = Vocabulary(table, str)
    assert vocabulary.spacing([0]) == 5.0
    assert vocabulary.spacing([3]) == 6.0  # not 0: its double is no other vector
    assert vocabulary.spacing([0, 1, 3]) == 5.0


# ------------------------------------------------------------------------------------------- GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gpu_agrees_with_cpu(precision: str) -> None:
    model = tiny("ViT-B-32", layers=3).cuda()
    engine = TextEngine(model, tokenizer_for("ViT-B-32"), precision=precision)
    assert engine.path == "trie", engine.why
    reference = TextEngine(tiny("ViT-B-32", layers=3), tokenizer_for("ViT-B-32"))
    texts = [t.format(c) for t in TEMPLATES for c in NAMES]
    contexts = torch.randn(5, 4, 16, generator=torch.manual_seed(0))
    tolerance = 1e-5 if precision == "fp32" else 3e-2
    for found, expected in (
        (engine.encode(texts), reference.encode(texts)),
        (engine.encode_soft(contexts, NAMES), reference.encode_soft(contexts, NAMES)),
    ):
        assert found.device.type == "cuda"
        torch.testing.assert_close(found.cpu(), expected, atol=tolerance, rtol=0)
