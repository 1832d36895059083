"""What stands before every path: request ids, keys, rates, limits, and what is told of it all.

The audit log and the metrics name paths, keys and counts, never what was sent or answered.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmopt.vision.server.bounds import Bounds, Room
from llmopt.vision.server.errors import Refusal, of_bounds, refusal
from llmopt.vision.server.keys import CALLER, Caller, Keys

OPEN: Final = ("/health", "/docs", "/openapi.json")
"""Paths that need no key."""

_log = logging.getLogger("llmopt.serve")


class Metrics(Collector):
    """Counts in the text format of Prometheus.

    Args:
        keys: whose spending is told.
    """

    def __init__(self, keys: Keys) -> None:
        self.registry = CollectorRegistry()
        labels = ("path", "status", "key")
        self._requests = Counter(
            "llmopt_requests", "Requests answered.", labels, registry=self.registry
        )
        self._seconds = Histogram(
            "llmopt_request_seconds", "Time to the answer.", ("path",), registry=self.registry
        )
        self._keys = keys
        self.registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """What each key has spent."""
        spent = GaugeMetricFamily(
            "llmopt_spent", "What a key has spent.", labels=("key", "currency")
        )
        for caller in self._keys.callers():
            for currency, count in caller.ledger.state().items():
                if count:
                    spent.add_metric((caller.name, currency), count)
        yield spent

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self.registry)

    def count(self, path: str, status: int, key: str, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(path, str(status), key).inc()
        self._seconds.labels(path).observe(seconds)


class Guard:
    """An ASGI application around another.

    Args:
        app: what it guards.
        keys: who may come in.
        bounds: of a request.
        room: bytes that bodies in progress share.
        metrics: where requests are counted.
        paths: those that metrics name; all others are counted as one.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        bounds: Bounds,
        room: Room,
        metrics: Metrics,
        paths: frozenset[str],
    ) -> None:
        self._app, self._keys, self._bounds, self._room = app, keys, bounds, room
        self._metrics, self._paths = metrics, paths
        self._busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        asked = headers.get(b"x-request-id", b"").decode("latin-1")
        request = asked if re.fullmatch(r"[\w-]{1,64}", asked) else secrets.token_hex(8)
        path = scope["path"] if scope["path"] in self._paths else "other"
        began, status, name = time.monotonic(), 0, "-"
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request.encode())]
            await send(message)

        taken = 0
        self._busy += 1
        try:
            if self._busy > self._bounds.requests:
                raise _full()
            if scope["path"] not in OPEN:
                caller = self._let_in(headers, scope)
                name, scope[CALLER] = caller.name, caller
            body, taken = await self._read(headers, receive)
            async with asyncio.timeout(self._bounds.answering):
                await self._app(scope, _replayed(body, receive), tell)
        except _Gone:
            status = 499
        except Exception as error:
            refused = error if isinstance(error, Refusal) else refusal(error)
            if refused.status == 500:
                _log.exception("request %s", request)
            if not status:
                await _refuse(refused, tell)
        finally:
            self._busy -= 1
            if taken:
                await asyncio.shield(self._room.give(taken))
            seconds = time.monotonic() - began
            self._metrics.count(path, status, name, seconds)
            said = {"time": moment, "request": request, "key": name, "path": path, "status": status,
                    "bytes": taken, "seconds": round(seconds, 4)}  # fmt: skip
            _log.info(json.dumps(said))

    def _let_in(self, headers: dict[bytes, bytes], scope: Scope) -> Caller:
        said = headers.get(b"authorization", b"").decode("latin-1")
        kind, _, key = said.partition(" ")
        client = str(scope["client"][0]) if scope.get("client") else "local"
        caller = self._keys.caller(key.strip() if kind.lower() == "bearer" else None, client)
        if caller is None:
            raise Refusal(401, "token", "a valid bearer token is needed")
        if wait := caller.wait():
            raise Refusal(429, "rate", "too many requests for this key", wait)
        return caller

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> tuple[bytes, int]:
        """The body of a request, and how much room it takes.

        All of it is taken before the first byte is read, so that no request holds a part and waits
        for others who do the same.
        """
        said = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers:
            length = self._bounds.body
        else:
            length = int(said) if said.isdigit() else 0
        self._check(length)
        try:
            async with asyncio.timeout(self._bounds.reading):
                taken = await self._room.take(length)
        except TimeoutError:
            raise _full() from None
        try:
            async with asyncio.timeout(self._bounds.reading):
                body = await self._body(receive)
        except BaseException as error:
            await asyncio.shield(self._room.give(taken))
            if isinstance(error, TimeoutError):
                raise Refusal(408, "slow", "the request did not come in time") from None
            raise
        if (spare := taken - len(body)) > 0:
            taken = len(body)
            await asyncio.shield(self._room.give(spare))
        return body, taken

    async def _body(self, receive: Receive) -> bytes:
        pieces, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            piece = message.get("body", b"")
            size += len(piece)
            self._check(size)
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _check(self, size: int) -> None:
        if size > self._bounds.body:
            raise of_bounds(f"a body of more than {self._bounds.body:,} bytes")


def _full() -> Refusal:
    return Refusal(503, "busy", "too much is in progress", wait=1)


class _Gone(Exception):
    """The client went away."""


def _replayed(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(refused: Refusal, send: Send) -> None:
    content = json.dumps(refused.content()).encode()
    headers: list[tuple[bytes, Any]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        *((name.lower().encode(), value.encode()) for name, value in refused.headers().items()),
    ]
    if refused.status in (408, 413, 503):  # what is left of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
