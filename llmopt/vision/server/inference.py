"""One thread computes for every client, and what several ask for at once it computes together.

Requests are cut into pieces, which wait in a queue for each client; the queues take turns, so that
nobody waits for all of another's work. A batch holds the next pieces of one kind, whoever sent
them: one of each client, then another of each, until it is full. If a batch fails, its pieces are
computed singly: a bad one spoils no other.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import numpy as np
from PIL import Image as PillowImage

from llmopt.task import FloatArray
from llmopt.vision import answers
from llmopt.vision.base import BlackBox

T = TypeVar("T")
Kind = Literal["images", "texts", "other"]

MOST: Final[dict[Kind, int]] = {"images": 64, "texts": 1024, "other": 1}
"""Items of a batch."""

WAITING: Final = 64
"""Pieces that one client may have waiting."""


class Busy(Exception):
    """A client has too much waiting already."""


@dataclass(frozen=True)
class Received:
    """A picture that came over the wire, as an image of a box.

    Attributes:
        picture: upright RGB.
        name: SHA-256 of what came.
    """

    picture: PillowImage.Image = field(repr=False)
    name: str

    def key(self) -> str:
        """Its name."""
        return self.name

    def load(self) -> PillowImage.Image:
        """The picture."""
        return self.picture


@dataclass(frozen=True)
class _Piece:
    kind: Kind
    items: Sequence[Any]
    answer: Future[Any]


class Inference:
    """A box and the thread that alone asks it.

    Args:
        box: what computes; it is used from one thread only.
    """

    def __init__(self, box: BlackBox) -> None:
        self.box = box
        self._queues: OrderedDict[str, deque[_Piece]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="inference", daemon=True)
        self._thread.start()

    async def images(self, client: str, images: Sequence[Received]) -> FloatArray:
        """(N, d) float32 features."""
        return await self._split(client, "images", images)

    async def texts(self, client: str, prompts: Sequence[str]) -> FloatArray:
        """(M, d) float32 features."""
        return await self._split(client, "texts", prompts)

    async def other(self, client: str, work: Callable[[BlackBox], T]) -> T:
        """Whatever else a box is asked for."""
        (answer,) = self._submit(client, "other", [[work]])
        found: T = await asyncio.wrap_future(answer)
        return found

    def waiting(self) -> int:
        """Pieces in all queues."""
        with self._changed:
            return sum(map(len, self._queues.values()))

    def close(self) -> None:
        """Compute what is waiting, then end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    async def _split(self, client: str, kind: Kind, items: Sequence[Any]) -> FloatArray:
        most = MOST[kind]
        pieces = [items[start : start + most] for start in range(0, len(items), most)]
        found = self._submit(client, kind, pieces)
        return np.concatenate(await asyncio.gather(*map(asyncio.wrap_future, found)))

    def _submit(
        self, client: str, kind: Kind, pieces: Sequence[Sequence[Any]]
    ) -> list[Future[Any]]:
        with self._changed:
            queue = self._queues.get(client, deque())
            if self._closed or len(queue) + len(pieces) > WAITING:
                raise Busy("the server has too much of yours waiting; try again")
            new = [_Piece(kind, items, Future()) for items in pieces]
            queue.extend(new)
            self._queues[client] = queue
            self._changed.notify()
        return [piece.answer for piece in new]

    def _loop(self) -> None:
        while batch := self._next():
            self._compute(batch)

    def _next(self) -> list[_Piece]:
        """The next batch; empty at the end."""
        with self._changed:
            while not self._queues and not self._closed:
                self._changed.wait()
            batch: list[_Piece] = []
            room, taken = 0, -1
            while len(batch) > taken:  # a round more, as long as it brings something
                taken = len(batch)
                for client in list(self._queues):
                    queue = self._queues[client]
                    piece = queue[0]
                    if not batch:
                        room = MOST[piece.kind]
                    elif len(piece.items) > room or piece.kind != batch[0].kind:
                        continue
                    batch.append(queue.popleft())
                    room -= len(piece.items)
                    self._queues.move_to_end(client)
                    if not queue:
                        del self._queues[client]
            return batch

    def _compute(self, batch: list[_Piece]) -> None:
        asked = [piece for piece in batch if piece.answer.set_running_or_notify_cancel()]
        try:
            found = self._ask(asked)
        except Exception as error:
            if len(asked) > 1:
                for piece in asked:
                    self._settle(piece)
            else:
                asked[0].answer.set_exception(error)
            return
        for piece, answer in zip(asked, found, strict=True):
            piece.answer.set_result(answer)

    def _settle(self, piece: _Piece) -> None:
        try:
            (found,) = self._ask([piece])
        except Exception as error:
            piece.answer.set_exception(error)
        else:
            piece.answer.set_result(found)

    def _ask(self, batch: list[_Piece]) -> list[Any]:
        """An answer for each piece of one kind."""
        if not batch:
            return []
        items = [item for piece in batch for item in piece.items]
        if batch[0].kind == "other":
            return [work(self.box) for work in items]
        ask = self.box.image_features if batch[0].kind == "images" else self.box.text_features
        found = answers.numbers(ask(items), (len(items), None))
        ends = np.cumsum([len(piece.items) for piece in batch])
        return np.split(found, ends[:-1])
