"""Layers whose weights are packed for oneDNN, with bias and activation inside the product.

PyTorch's compiler uses these operators when it freezes a model; called directly they need no
compiler. They are no public interface, so :func:`packed` tries them on what it is given and leaves
the layers as they are where they are missing, fail, or compute something else. They cost a second
copy of the weights and know no gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmopt.vision.text_engine.towers import Layer, Linear, added, scaled

NARROWEST: Final = 256
"""Width below which products are too small for it to pay, by measurement."""

MOST_BYTES: Final = 512 * 2**20
"""Of packed weights; a tower with more stays as it is."""

# Of the largest number, that rounding explains, by the precision of the weights.
_TOLERANCE: Final = {torch.float32: 1e-5, torch.bfloat16: 0.02}


class PackedLayer:
    """A :class:`~llmopt.vision.text_engine.towers.Layer` with packed weights.

    Args:
        layer: in fp32 or bf16, on a CPU.
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._gelu = type(layer.act) is nn.GELU and layer.act.approximate == "none"
        self._qkv, self._out, self._up, self._down = (
            _pack(linear) for linear in (layer.qkv, layer.out, layer.up, layer.down)
        )

    def project(self, x: Tensor) -> Tensor:
        """As the layer's own."""
        layer = self._layer
        return _product(layer.norm_1(x), self._qkv, layer.qkv)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """As the layer's own."""
        layer = self._layer
        x = added(x, scaled(_product(attended, self._out, layer.out), layer.scale_1))
        hidden = _product(layer.norm_2(x), self._up, layer.up, "gelu" if self._gelu else "none")
        if not self._gelu:
            hidden = layer.act(hidden)
        return added(x, scaled(_product(hidden, self._down, layer.down), layer.scale_2))


def packed(layers: Sequence[Layer]) -> Sequence[Layer | PackedLayer]:
    """The layers with packed weights, or as they are where that does not work or does not pay."""
    weights = [w.weight for layer in layers for w in (layer.qkv, layer.out, layer.up, layer.down)]
    dtype = weights[0].dtype
    fits = dtype in _TOLERANCE and all(w.dtype == dtype and w.device.type == "cpu" for w in weights)
    width = layers[0].qkv.weight.shape[1]
    if not fits or width < NARROWEST or sum(w.nbytes for w in weights) > MOST_BYTES:
        return layers
    try:
        with torch.inference_mode():
            faster = [PackedLayer(layer) for layer in layers]
            x = torch.randn(1, 8, width, generator=torch.Generator().manual_seed(0))
            attended = x.to(dtype)
            pairs = [
                (faster[0].project(x), layers[0].project(x)),
                (faster[0].finish(x, attended), layers[0].finish(x, attended)),
            ]
            apart = [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]
    except (AttributeError, RuntimeError, TypeError):  # another PyTorch, or built without oneDNN
        return layers
    return faster if max(apart) <= _TOLERANCE[dtype] else layers


def _pack(linear: Linear) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(linear.weight.contiguous())


def filled_up(rows: int) -> int:
    """Rows of a product that is to have so many.

    oneDNN makes a kernel for each number of rows and keeps a thousand of them, some 150 MB. With a
    few numbers only, they are few.
    """
    return rows + -rows % (16 if rows <= 128 else 64)


def _product(x: Tensor, weight: Any, linear: Linear, then: str = "none") -> Tensor:
    rows = x.shape[-2]
    x = x.to(linear.weight.dtype)
    if more := filled_up(rows) - rows:  # to fill up by none would copy
        x = F.pad(x, (0, 0, 0, more))
    x = x.contiguous()
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, linear.bias, then, [], "none")
    return found[..., :rows, :]
