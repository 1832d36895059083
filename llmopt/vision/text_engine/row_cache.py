"""Rows of a matrix kept by key, the least recently used leaving first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from llmopt.vision.text_engine.device import index


class RowCache:
    """At most ``max_bytes`` of rows (d,), in one matrix reserved on first use.

    The bound is on the rows; keys come on top. 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows: Tensor | None = None
        self._slots: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._slots)

    def clear(self) -> None:
        """Keep nothing of what is there."""
        self._slots.clear()

    def take(self, keys: Sequence[Hashable], out: Tensor) -> list[int]:
        """Copy the rows that are there into ``out`` (n, d); the places of those that are not."""
        found, slots, missing = [], [], []
        for place, key in enumerate(keys):
            slot = self._slots.get(key)
            if slot is None:
                missing.append(place)
            else:
                self._slots.move_to_end(key)
                found.append(place)
                slots.append(slot)
        if self._rows is not None and found:
            rows = self._rows.index_select(0, index(slots, out.device))
            out.index_copy_(0, index(found, out.device), rows)
        return missing

    def put(self, keys: Sequence[Hashable], rows: Tensor) -> None:
        """Keep ``rows`` (n, d) under ``keys``, all distinct and none of them there yet."""
        capacity = self._max_bytes // max(1, rows.shape[1] * rows.element_size())
        keys, rows = keys[-capacity:], rows[-capacity:]
        if capacity == 0 or not keys:
            return
        if self._rows is None:
            self._rows = torch.empty(capacity, rows.shape[1], dtype=rows.dtype, device=rows.device)
        slots = []
        for key in keys:
            full = len(self._slots) == capacity
            slot = self._slots.popitem(last=False)[1] if full else len(self._slots)
            self._slots[key] = slot
            slots.append(slot)
        self._rows.index_copy_(0, index(slots, rows.device), rows)
