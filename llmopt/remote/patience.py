"""Waiting for something that may never come."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class TooLong(Exception):
    """A call outlasted the patience."""


def in_thread(call: Callable[[], T], patience: float) -> T:
    """The result of a call, or TooLong after ``patience`` seconds.

    A read timeout of an HTTP client starts anew with every byte, so a slow drip would hold a run
    for ever. The call runs in a thread that is left behind when it outlasts the patience; it is a
    daemon and dies with the process.
    """
    done = threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:
            failures.append(error)
        finally:
            done.set()

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name="llmopt-chat", daemon=True).start()
    if not done.wait(patience):
        raise TooLong
    if failures:
        raise failures[0]
    return results[0]
