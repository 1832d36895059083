"""What a request may take: bytes, pixels, prompts, time; and the room that all share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Bounds:
    """Limits of a server.

    Attributes:
        body: bytes of a request.
        pixels: of all pictures of a request together.
        images, prompts: in a request.
        letters: characters of a prompt.
        numbers: of a request's soft prompts, and of the answer to them.
        requests: in progress at a time; one more is told to come again.
        reading: seconds in which the head of a request must have come, and its body.
        answering: seconds in which it is answered or given up.
        held: bytes of features, pictures and prompts that are kept by name.
        room: bytes that bodies in progress may take, all requests together, and pictures too.
    """

    body: int = 64 * 2**20
    pixels: int = 100_000_000
    images: int = 256
    prompts: int = 20_000
    letters: int = 2_000
    numbers: int = 64 * 2**20
    requests: int = 256
    reading: float = 60.0
    answering: float = 300.0
    held: int = 512 * 2**20
    room: int = 2**30


class Room:
    """Bytes that are shared; who finds too few waits.

    Args:
        size: how many there are.
    """

    def __init__(self, size: int) -> None:
        self._free, self._size = size, size
        self._changed = asyncio.Condition()

    async def take(self, amount: int) -> int:
        """Take so many, no more than there are at all; gives what was taken."""
        amount = min(amount, self._size)
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        return amount

    async def give(self, amount: int) -> None:
        """Give them back."""
        async with self._changed:
            self._free += amount
            self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def held(self, amount: int) -> AsyncIterator[None]:
        """Take so many for a while."""
        taken = await self.take(amount)
        try:
            yield
        finally:
            await asyncio.shield(self.give(taken))
