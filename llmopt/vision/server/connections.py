"""Connections of a server: who has one and does not ask lets it go.

uvicorn ends idle connections between requests, but waits without end for the head of one, and for
the rest of a body that was refused.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST: Final = 512
"""Connections at a time. For one more, that which has waited longest for a request goes."""


class Connection(H11Protocol):
    """uvicorn's, with a clock while no request is in progress.

    Attributes:
        patience: seconds for the next head of a request to come, whole.
    """

    patience: float = 60.0
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Make room for it, if need be."""
        if len(self.connections) >= MOST:
            clocks = {one: one._clock for one in self.connections if isinstance(one, Connection)}
            waiting = {one: clock.when() for one, clock in clocks.items() if clock is not None}
            if waiting:
                min(waiting, key=waiting.__getitem__).let_go()
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something came: a whole head stops the clock, a part of one does not."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """A request is over: the clock starts."""
        super().on_response_complete()
        self._look()

    def let_go(self) -> None:
        """Close it at once."""
        self._stop()
        self.connections.discard(self)
        self.transport.abort()

    def _look(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._clock is None and not self.transport.is_closing():
            self._clock = self.loop.call_later(self.patience, self.let_go)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
