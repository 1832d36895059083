"""Runs a causal text tower over a token tree, each node once.

A chunk of nodes is one packed sequence: norms and products see a plain (B, n, e) tensor without any
padding. Only attention knows of the tree. It cuts the chunk into blocks of queries, and because
nodes lie depth first, all that a block can look at is itself and the path above its first node. So
attention costs about as much per token as in a short prompt, however large the chunk; one dense
mask over the chunk would make it grow with the square.

From chunk to chunk goes one path of keys and values per layer. No node is computed twice, and
memory does not depend on how many prompts there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from llmopt.vision.device import Portion
from llmopt.vision.text_engine.device import to_device, wide
from llmopt.vision.text_engine.packed import PackedLayer, packed
from llmopt.vision.text_engine.token_tree import BLOCK, Chunk, TokenTree
from llmopt.vision.text_engine.towers import CausalTower, Layer

# On a CPU by measurement, on a GPU enough to fill it.
_CHUNK = {"cpu": 1024, "cuda": 16384}
_CHUNK_WIDE = 2048  # on a CPU, for towers wide enough for packed weights

Path = list[Tensor]
"""Keys and values (B, depth, 2e) of the nodes on a path, root first, for each layer."""


@dataclass(frozen=True)
class _Plan:
    """A :class:`~llmopt.vision.text_engine.token_tree.Chunk` on the device, its mask additive."""

    tokens: Tensor
    depth: Tensor
    keys: Tensor  # flattened: (blocks * T,)
    mask: Tensor  # (blocks, 1, block, T), 0 or -inf
    path: Tensor
    reads: Tensor
    soft_at: Tensor  # places of the soft tokens in the chunk
    soft: Tensor  # which context vector each of them is


class TreeEncoder:
    """Features of token sequences that share their beginnings.

    Args:
        tower: the weights.
        chunk: nodes computed at once, over all candidates together; bounds memory and sets the
            size of the matrix products. None takes a size measured for the device. Halved, and
            remembered, when the memory of the device does not suffice.
        block: queries that share a list of keys in attention.
        sequences: in one tree; bounds its arrays, and each tree computes its beginnings itself.
    """

    kind = "trie"

    def __init__(
        self,
        tower: CausalTower,
        chunk: int | None = None,
        block: int = BLOCK,
        sequences: int = 8192,
    ) -> None:
        self.tower = tower
        self._sequences = sequences
        self._device = tower.embedding.device
        self.dtype = tower.layers[0].qkv.weight.dtype
        self.block = block
        self._packed = packed(tower.layers)
        wide = self._packed is not tower.layers
        default = _CHUNK_WIDE if wide else _CHUNK.get(self._device.type, _CHUNK["cuda"])
        self._portion = Portion(chunk or default, block, "tokens of text")

    @property
    def chunk(self) -> int:
        """Nodes computed at once."""
        return self._portion.size

    def cut(self, row: Sequence[int]) -> tuple[int, ...]:
        """The part of a row of token ids that the feature depends on."""
        return self.tower.cut(row)

    def encode(self, forms: Sequence[tuple[int, ...]]) -> Iterator[tuple[list[int], Tensor]]:
        """Features of distinct sequences (see :meth:`cut`), in pieces.

        Each piece is places in ``forms`` and their features (places, d), L2-normalised.
        """
        order = sorted(range(len(forms)), key=forms.__getitem__)
        for first in range(0, len(order), self._sequences):
            places = order[first : first + self._sequences]
            tree, start = TokenTree.build([forms[place] for place in places]), 0
            for features, _ in self._walk(tree, 0, len(tree)):
                stop = start + features.shape[1]
                yield places[start:stop], features[0]
                start = stop

    def encode_soft(self, tree: TokenTree, contexts: Tensor) -> Iterator[Tensor]:
        """Features of the rows under each candidate, as (candidates, rows, d) pieces in order.

        Args:
            tree: its tokens -1, -2, … stand for context vectors 0, 1, …
            contexts: (B, vectors, e) on the tower's device.
        """
        path = self._empty_path()
        for _, path in self._walk(tree, 0, tree.shared):  # noqa: B007
            pass

        start = 0
        while start < len(contexts):
            with self._portion.halved_if_full():
                group = max(1, self.chunk // (len(tree) - tree.shared))
                chunks = tree.chunks(tree.shared, len(tree), self.chunk, self.block)
                plans = [self._plan(chunk) for chunk in chunks]
                while start < len(contexts):
                    yield self._under(plans, path, contexts[start : start + group])
                    start += group

    def _walk(self, tree: TokenTree, start: int, stop: int) -> Iterator[tuple[Tensor, Path]]:
        """What :meth:`_run` makes of each chunk of a range that holds no soft token."""
        path = self._empty_path()
        while start < stop:
            with self._portion.halved_if_full():
                for chunk in tree.chunks(start, stop, self.chunk, self.block):
                    features, path = self._run(self._plan(chunk), path, None)
                    start += len(chunk.tokens)
                    yield features, path

    def _under(self, plans: Sequence[_Plan], path: Path, candidates: Tensor) -> Tensor:
        """(b, rows, d) features of all chunks under each of ``candidates``."""
        # Every layer's path is a view here; a chunk never writes into the path it is given.
        branch = [kv.expand(len(candidates), -1, -1) for kv in path]
        pieces = []
        for plan in plans:
            features, branch = self._run(plan, branch, candidates)
            pieces.append(features)
        return torch.cat(pieces, dim=1)

    def _run(self, plan: _Plan, path: Path, contexts: Tensor | None) -> tuple[Tensor, Path]:
        """(B, reads, d) features read in one chunk, and the path that the next one starts from."""
        batch = path[0].shape[0]
        mask = plan.mask.repeat(batch, 1, 1, 1)
        x = self._embed(plan, contexts).expand(batch, -1, -1)
        following = []
        layers = self.tower.layers if torch.is_grad_enabled() else self._packed
        for layer, above in zip(layers, path, strict=True):
            attended, kv = self._attend(layer, x, above, plan.keys, mask)
            following.append(kv.index_select(1, plan.path))
            if layer is layers[-1]:  # nobody attends to what lies beyond
                x, attended = x.index_select(1, plan.reads), attended.index_select(1, plan.reads)
            x = layer.finish(x, attended)
        return self.tower.feature(x), following

    def _embed(self, plan: _Plan, contexts: Tensor | None) -> Tensor:
        """(1 or B, n, e) token vectors with positions added."""
        x = wide(F.embedding(plan.tokens, self.tower.embedding))[None]
        if contexts is not None and len(plan.soft):
            x = x.expand(len(contexts), -1, -1)
            x = x.index_copy(1, plan.soft_at, contexts.index_select(1, plan.soft))
        return x + wide(F.embedding(plan.depth, self.tower.positions))

    def _attend(
        self, layer: Layer | PackedLayer, x: Tensor, above: Tensor, keys: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What each node's heads gather (B, n, e), and keys and values of all slots (B, s, 2e)."""
        batch, nodes, width = x.shape
        blocks, _, block, _ = mask.shape  # all candidates' blocks
        heads = self.tower.heads
        qkv = layer.project(x)
        queries, kv = qkv[..., :width], qkv[..., width:]
        if above.shape[1]:
            kv = torch.cat([above, kv], dim=1)
        if unfilled := blocks // batch * block - nodes:
            queries = F.pad(queries, (0, 0, 0, unfilled))
        q = queries.reshape(blocks, block, heads, -1).transpose(1, 2)
        kv_blocks = kv.index_select(1, keys).view(blocks, -1, 2, heads, width // heads)
        k, v = kv_blocks.permute(2, 0, 3, 1, 4)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return gathered.transpose(1, 2).reshape(batch, -1, width)[:, :nodes], kv

    def _plan(self, chunk: Chunk) -> _Plan:
        def upload(array: npt.NDArray[Any]) -> Tensor:
            return to_device(array, self._device)

        soft_at = np.flatnonzero(chunk.tokens < 0)
        hidden = upload(~chunk.mask)[:, None]
        mask = torch.zeros(hidden.shape, dtype=self.dtype, device=self._device)
        return _Plan(
            tokens=upload(np.maximum(chunk.tokens, 0)),
            depth=upload(chunk.depth),
            keys=upload(chunk.keys.reshape(-1)),
            mask=mask.masked_fill_(hidden, float("-inf")),
            path=upload(chunk.path),
            reads=upload(chunk.reads),
            soft_at=upload(soft_at),
            soft=upload(-1 - chunk.tokens[soft_at]),
        )

    def _empty_path(self) -> Path:
        width = self.tower.width
        empty = torch.empty(1, 0, 2 * width, dtype=self.dtype, device=self._device)
        return [empty] * len(self.tower.layers)
