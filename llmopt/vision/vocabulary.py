"""The tokens of a model and their vectors: what a soft prompt can be compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Neighbour(NamedTuple):
    """A token near a vector, by Euclidean distance."""

    token: int
    text: str
    distance: float


class Vocabulary:
    """Tokens and their vectors.

    Args:
        table: (V, e), a row a token.
        decode: text of a list of tokens.
    """

    def __init__(self, table: Tensor, decode: Callable[[list[int]], str]) -> None:
        self._table = table.detach().float()
        self._decode = decode

    def vectors(self, tokens: Sequence[int]) -> Tensor:
        """(len(tokens), e) float32."""
        return self._table.index_select(0, torch.tensor(tokens).to(self._table.device))

    def nearest(self, vectors: Tensor, k: int = 5) -> list[list[Neighbour]]:
        """The k nearest tokens of each of (m, e) vectors, nearest first."""
        found = []
        for vector in vectors.detach().to(self._table):
            apart = torch.linalg.vector_norm(self._table - vector, dim=1)
            distances, tokens = apart.topk(k, largest=False)
            found.append(
                [
                    Neighbour(token, str(self._decode([token])).strip(), distance)
                    for token, distance in zip(tokens.tolist(), distances.tolist(), strict=True)
                ]
            )
        return found

    def spacing(self, tokens: Sequence[int]) -> float:
        """Median distance of these tokens' vectors to the nearest vector that is another."""
        exactly = "donot_use_mm_for_euclid_dist"
        apart = torch.cdist(self.vectors(tokens), self._table, compute_mode=exactly)
        return float(apart.masked_fill(apart == 0, torch.inf).amin(dim=1).median())
