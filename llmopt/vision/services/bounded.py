"""Reading an HTTP answer: of a bounded size, in a bounded time, unpacked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def read_bounded(answer: httpx.Response, most: int, seconds: float) -> bytes:
    """What a streamed answer holds.

    Args:
        answer: not read yet.
        most: bytes.
        seconds: that it may drip in for.

    Raises:
        ValueError: it is longer than ``most`` bytes, or compressed, which could hide that.
        TimeoutError: it takes longer.
    """
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        raise ValueError("is compressed, which was not asked for")
    content, late = bytearray(), time.monotonic() + seconds
    for piece in answer.iter_raw():
        content += piece
        if len(content) > most:
            raise ValueError(f"is longer than {most:,} bytes")
        if time.monotonic() > late:
            raise TimeoutError
    return bytes(content)
