"""A black box served over HTTP, on 127.0.0.1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from typing import Any

from llmopt.vision.base import BlackBox
from llmopt.vision.server.run import BlackBoxServer


@contextmanager
def serving(box: BlackBox | HTTPServer, *arguments: Any, **options: Any) -> Iterator[str]:
    """The address of a server of a box, or of any other server, that runs meanwhile."""
    server: Any = box
    if isinstance(box, BlackBox):
        server = BlackBoxServer(box, ("127.0.0.1", 0), *arguments, **options)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
