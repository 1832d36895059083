"""The text towers of open_clip: which are causal, and their weights in plain form.

A tower is causal here if a token's states depend on the tokens before it alone and the feature is
read at the end-of-text token. Then nothing after that token matters, and prompts that begin alike
have the same states there. :func:`read_tower` finds out from the model, not from its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmopt._torchvision import ensure_operators
from llmopt.vision.text_engine.device import wide


class NotCausal(Exception):
    """The tower does not allow reading a prompt's feature off a tree; the message says why."""


@dataclass(frozen=True)
class Norm:
    """Layer normalisation in fp32 at least, whatever the precision around it."""

    weight: Tensor | None
    bias: Tensor | None
    shape: tuple[int, ...]
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` (…, *shape), normalised."""
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``; weight (out, in). Computes in the weight's precision."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """(…, out) of ``x`` (…, in)."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


@dataclass(frozen=True)
class Layer:
    """One residual layer; its stream is fp32 at least, products are in the weights' precision.

    Attributes:
        norm_1, qkv: from the stream (…, e) to queries, keys and values (…, 3e).
        out: of the attention.
        norm_2, up, act, down: the MLP.
        scale_1, scale_2: (e,) factors of the two branches (LayerScale), or None.
    """

    norm_1: Norm
    qkv: Linear
    out: Linear
    scale_1: Tensor | None
    norm_2: Norm
    up: Linear
    act: Callable[[Tensor], Tensor]
    down: Linear
    scale_2: Tensor | None

    def project(self, x: Tensor) -> Tensor:
        """(…, 3e) queries, keys and values of the stream ``x`` (…, e)."""
        return self.qkv(self.norm_1(x))

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The stream (…, e) after both branches; ``attended`` (…, e) is what the heads gathered."""
        x = added(x, scaled(self.out(attended), self.scale_1))
        return added(x, scaled(self.down(self.act(self.up(self.norm_2(x)))), self.scale_2))


@dataclass(frozen=True)
class CausalTower:
    """A causal text tower.

    Attributes:
        embedding: (V, e) token vectors.
        positions: (context_length, e).
        layers: in order.
        heads: attention heads of each.
        norm: after the last layer.
        projection: from the width e to the feature, or None.
        eos: id at whose first place the feature is read; None reads at the first largest id.
    """

    embedding: Tensor
    positions: Tensor
    layers: tuple[Layer, ...]
    heads: int
    norm: Norm
    projection: Linear | None
    eos: int | None

    @property
    def width(self) -> int:
        """Length e of a token vector."""
        return self.embedding.shape[1]

    @property
    def context_length(self) -> int:
        """Most tokens of a text, start and end included."""
        return self.positions.shape[0]

    def cut(self, row: Sequence[int]) -> tuple[int, ...]:
        """Token ids up to the one where the tower reads its feature."""
        end = max(row) if self.eos is None else self.eos
        # A row without the end id is read at its first token, as open_clip does it.
        return tuple(row[: row.index(end) + 1 if end in row else 1])

    def feature(self, x: Tensor) -> Tensor:
        """(…, d) L2-normalised features of final states ``x`` (…, e)."""
        x = self.norm(x)
        if self.projection is not None:
            x = wide(self.projection(x))
        return F.normalize(x, dim=-1)


def read_tower(model: Any, dtype: torch.dtype | None = None) -> CausalTower:
    """The causal text tower of an open_clip model.

    Args:
        model: any open_clip model.
        dtype: precision of the products; None keeps the weights'. Weights that have it already are
            shared with the model, not copied.

    Raises:
        NotCausal: the tower is of another kind.
    """
    ensure_operators()
    from open_clip.model import CLIP, CustomTextCLIP
    from open_clip.transformer import TextTransformer

    encode = type(model).__dict__.get("encode_text", getattr(type(model), "encode_text", None))
    if encode is CLIP.encode_text:
        text, pool, eos = model, model.text_pool_type, model.text_eos_id
    elif encode is CustomTextCLIP.encode_text:
        text = model.text
        if type(text) is not TextTransformer:
            raise NotCausal(f"its text tower is a {type(text).__name__}")
        if text.cls_emb is not None:
            raise NotCausal("it appends a class token and reads the feature there")
        if text.use_pad_mask:
            raise NotCausal("it masks padding")
        pool, eos = text.pool_type, text.eos_id
    else:
        raise NotCausal(f"{type(model).__name__} encodes text in its own way")

    if text.attn_mask is None:
        raise NotCausal("its text attention looks both ways")
    if not _is_causal(text.attn_mask):
        raise NotCausal("its attention mask is not the causal one")
    if pool not in ("argmax", "eos"):
        raise NotCausal(f"it reads the feature at '{pool}', not at the end of the text")

    blocks = list(text.transformer.resblocks)
    projection = text.text_projection
    if isinstance(projection, nn.Parameter):
        projection = Linear(projection.detach().T.to(dtype or projection.dtype), None)
    elif projection is not None:
        projection = _linear(projection, dtype)
    return CausalTower(
        embedding=text.token_embedding.weight.detach(),
        positions=text.positional_embedding.detach(),
        layers=tuple(_layer(block, dtype) for block in blocks),
        heads=blocks[0].attn.num_heads,
        norm=_norm(text.ln_final),
        projection=projection,
        eos=eos if pool == "eos" else None,
    )


def _layer(block: Any, dtype: torch.dtype | None) -> Layer:
    from open_clip.transformer import ResidualAttentionBlock

    if type(block) is not ResidualAttentionBlock:
        raise NotCausal(f"its layers are of type {type(block).__name__}")
    attention = block.attn
    if attention.in_proj_weight is None or attention.bias_k is not None or attention.add_zero_attn:
        raise NotCausal("its attention has keys beside the tokens' own")
    return Layer(
        norm_1=_norm(block.ln_1),
        qkv=_weights(attention.in_proj_weight, attention.in_proj_bias, dtype),
        out=_weights(attention.out_proj.weight, attention.out_proj.bias, dtype),
        scale_1=_scale(block.ls_1),
        norm_2=_norm(block.ln_2),
        up=_linear(block.mlp.c_fc, dtype),
        act=block.mlp.gelu,
        down=_linear(block.mlp.c_proj, dtype),
        scale_2=_scale(block.ls_2),
    )


def _norm(module: Any) -> Norm:
    if not isinstance(module, nn.LayerNorm):
        raise NotCausal(f"it normalises with {type(module).__name__}")
    weight = None if module.weight is None else wide(module.weight.detach())
    bias = None if module.bias is None else wide(module.bias.detach())
    return Norm(weight, bias, tuple(module.normalized_shape), module.eps)


def _linear(module: Any, dtype: torch.dtype | None) -> Linear:
    if type(module) is not nn.Linear:
        raise NotCausal(f"it has a {type(module).__name__} where a linear layer is expected")
    return _weights(module.weight, module.bias, dtype)


def _weights(weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> Linear:
    dtype = dtype or weight.dtype
    return Linear(weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype))


def _scale(module: Any) -> Tensor | None:
    from open_clip.transformer import LayerScale

    if isinstance(module, LayerScale):
        gamma: Tensor = module.gamma
        return wide(gamma.detach())
    if isinstance(module, nn.Identity):
        return None
    raise NotCausal(f"it scales its branches with {type(module).__name__}")


def scaled(x: Tensor, scale: Tensor | None) -> Tensor:
    """A branch times its factors, if it has some."""
    return x if scale is None else x * scale


def added(x: Tensor, branch: Tensor) -> Tensor:
    """The stream with a branch, in the branch's memory where it is of the stream's precision."""
    return branch.add_(x) if branch.dtype == x.dtype else x + branch


def _is_causal(mask: Tensor) -> bool:
    """Whether an additive mask (L, L) forbids exactly what lies ahead."""
    ahead = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return bool(((mask == 0) == ~ahead).all()) and bool((mask[ahead] == float("-inf")).all())
