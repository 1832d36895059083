"""The first Ctrl-C or SIGTERM ends a search with its best so far, the second the program."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from llmopt.spend.events import Watch
from llmopt.spend.ledger import Ledger


@contextlib.contextmanager
def graceful_interrupt(ledger: Ledger, watch: Watch) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the search with its best so far; the second the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(signum: int, frame: Any) -> None:
        ledger.stop()
        restore()
        watch.note("interrupted: finishing with the best so far (again to stop at once)")

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
