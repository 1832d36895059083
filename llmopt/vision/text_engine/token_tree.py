"""Token sequences as a tree: a beginning shared by many prompts is one chain of nodes.

The nodes lie in depth-first order. Two things follow that make the order useful:

* the subtree of a node is a range, so any range of nodes is a piece of work of any size one likes;
* whatever the nodes of a range need from outside of it are ancestors of its first node, so a piece
  of work leaves behind one path, never a set of them.

All of this is index arithmetic in numpy; no model is involved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

BLOCK = 32
"""Queries that share one list of keys: fewer waste less on masked pairs, more run in larger
products. By measurement on prompts of 5 to 20 tokens (``benchmarks/text_engine.py``)."""

_ALIGN = 8  # lists of keys are padded to a multiple, which the fused attention of GPUs asks for


@dataclass(frozen=True)
class Chunk:
    """A range of nodes and the index arrays that compute it.

    "Slots" are where keys lie when a chunk is computed: first the path above its first node, slot
    ``d`` holding the ancestor at depth ``d``, then the chunk's own nodes in order.

    Attributes:
        tokens: (n,) token ids; soft tokens are negative (see :meth:`TokenTree.build`).
        depth: (n,) position of each node in its sequences.
        keys: (blocks, T) slots that the queries of a block may look at, T a multiple of 8.
        mask: (blocks, block, T) which of them each query does look at: itself and its ancestors.
            Rows past the last node are all true.
        path: slots of the ancestors of the node that follows the chunk, root first.
        reads: places of nodes, counted from the chunk's first, where a sequence ends.
    """

    tokens: IntArray
    depth: IntArray
    keys: IntArray
    mask: BoolArray
    path: IntArray
    reads: IntArray


@dataclass(frozen=True)
class TokenTree:
    """The tree of a set of token sequences. Build it with :meth:`build`.

    A "row" is one of the distinct sequences in lexicographic order; each adds the nodes that the
    rows before it lack, always including its last, where its result will be read.

    Attributes:
        tokens: (n,) token id of each node.
        depth: (n,) its depth; a root has 0.
        row: (n,) the row that added it.
        paths: (rows, D) node of each row at each depth, meaningless beyond the row's length.
        ends: (rows,) the last node of each row, increasing.
        inverse: (sequences,) the row of each sequence that was given.
    """

    tokens: IntArray
    depth: IntArray
    row: IntArray
    paths: IntArray
    ends: IntArray
    inverse: IntArray

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]]) -> TokenTree:
        """The tree of ``sequences``, none of them empty.

        Ids may be negative, for tokens outside of any vocabulary: equal numbers are equal tokens.
        """
        lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        if not len(sequences) or lengths.min() == 0:
            raise ValueError("a token tree needs at least one sequence, and none may be empty")
        inside: BoolArray = np.arange(lengths.max()) < lengths[:, None]
        # Padding sorts before every token.
        ids: IntArray = np.full(inside.shape, np.iinfo(np.int64).min, np.int64)
        ids[inside] = np.fromiter(chain.from_iterable(sequences), np.int64, int(lengths.sum()))

        order = np.lexsort(ids.T[::-1])
        differs = ids[order[1:]] != ids[order[:-1]]
        is_new = np.concatenate([[True], differs.any(axis=1)])
        inverse = np.empty_like(order)
        inverse[order] = np.cumsum(is_new) - 1

        # A row shares with the one before it all up to the first difference, and adds the rest.
        first = order[is_new]
        shared = np.concatenate([[0], differs[is_new[1:]].argmax(axis=1)])
        added = inside[first] & (np.arange(ids.shape[1]) >= shared[:, None])
        row, depth = np.nonzero(added)
        paths = np.where(added, np.cumsum(added).reshape(added.shape) - 1, -1)
        return cls(
            tokens=ids[first][added],
            depth=depth,
            row=row,
            paths=np.maximum.accumulate(paths, axis=0),
            ends=np.cumsum(added.sum(axis=1)) - 1,
            inverse=inverse,
        )

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def shared(self) -> int:
        """Nodes before the first soft token, which are the same whatever fills the soft tokens."""
        soft = np.flatnonzero(self.tokens < 0)
        return int(soft[0]) if len(soft) else len(self)

    def chunks(self, start: int, stop: int, size: int, block: int = BLOCK) -> Iterator[Chunk]:
        """Nodes ``start`` to ``stop`` in equal chunks of whole blocks, about ``size`` at most."""
        nodes = stop - start
        count = max(1, -(-nodes // size))
        step = max(1, -(-nodes // (count * block))) * block
        for begin in range(start, stop, step):
            yield self._chunk(begin, min(begin + step, stop), block)

    def _chunk(self, start: int, stop: int, block: int) -> Chunk:
        heads = np.arange(start, stop, block)  # the first node of each block
        own = heads[:, None] + np.arange(block)
        above = int(self.depth[heads].max())
        above += -(above + block) % _ALIGN
        path = self.paths[self.row[heads], :above]
        path = np.pad(path, ((0, 0), (0, above - path.shape[1])))

        keys = np.concatenate([path, own], axis=1)
        exists = np.concatenate([np.arange(above) < self.depth[heads, None], own < stop], axis=1)
        keys = np.where(exists, keys, start)
        queries = np.minimum(own, stop - 1)

        # A key is the query or above it iff it is what the query's own path has at the key's depth.
        key_depth = self.depth[keys][:, None, :]
        on_path = self.paths[self.row[queries][:, :, None], key_depth] == keys[:, None, :]
        mask = exists[:, None, :] & on_path & (key_depth <= self.depth[queries][:, :, None])
        mask |= (own >= stop)[:, :, None]  # a softmax over nothing is not a number

        def slots(nodes: IntArray) -> IntArray:
            before = self.depth[start]
            return np.where(nodes < start, self.depth[nodes], nodes - start + before)

        following = min(stop, len(self) - 1)
        first, last = np.searchsorted(self.ends, [start, stop])
        return Chunk(
            tokens=self.tokens[start:stop],
            depth=self.depth[start:stop],
            keys=slots(keys),
            mask=mask,
            path=slots(self.paths[self.row[following], : self.depth[following]]),
            reads=self.ends[first:last] - start,
        )
