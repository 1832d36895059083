"""What is kept in memory up to a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Shelf(Generic[K, T]):
    """Things by name, those used last, up to a number of bytes.

    Args:
        size: bytes.
    """

    def __init__(self, size: int) -> None:
        self._held: OrderedDict[K, tuple[T, int]] = OrderedDict()
        self._free = size

    def __contains__(self, name: K) -> bool:
        return name in self._held

    def __getitem__(self, name: K) -> T:
        self._held.move_to_end(name)
        return self._held[name][0]

    def get(self, name: K) -> T | None:
        """What is called so; None if it is not held."""
        if name not in self:
            return None
        return self[name]

    def put(self, name: K, thing: T, size: int) -> None:
        """Hold a thing of so many bytes; the least used make room."""
        if name in self._held:
            return
        self._held[name] = thing, size
        self._free -= size
        while self._free < 0:
            self._free += self._held.popitem(last=False)[1][1]
