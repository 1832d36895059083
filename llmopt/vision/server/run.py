"""A server that listens, with uvicorn."""

from __future__ import annotations

import ipaddress
import logging
import socket
from pathlib import Path

import uvicorn

from llmopt.errors import ConfigError
from llmopt.vision.base import Access, BlackBox
from llmopt.vision.server.app import build
from llmopt.vision.server.bounds import Bounds
from llmopt.vision.server.connections import MOST, Connection
from llmopt.vision.server.keys import Keys
from llmopt.vision.server.service import Protection

GRACE = 30


class BlackBoxServer:
    """Serves a box until :meth:`shutdown`.

    Args:
        box: the model.
        address: host and port; port 0 takes a free one (see ``server_address``).
        access: the level to offer; at most the box's own, which is the default.
        keys: who may come in; by default everyone.
        bounds: of requests.
        protection: of scores.
        tls: files of a certificate and its key, in PEM.

    Raises:
        ConfigError: there is nothing to listen on, or it can be reached from outside and asks for
            no key.
    """

    def __init__(
        self,
        box: BlackBox,
        address: tuple[str, int],
        access: Access | None = None,
        *,
        keys: Keys | None = None,
        bounds: Bounds | None = None,
        protection: Protection | None = None,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        host, port = address
        keys, bounds = keys or Keys(), bounds or Bounds()
        if not keys.asked_for and not is_loopback(host):
            raise ConfigError(
                f"{host} can be reached from outside, so a key is needed: add one with "
                "'llmopt keys add', or listen on 127.0.0.1",
                docs="serve",
            )
        self.app = build(box, access, keys, bounds, protection)
        certificate, key = tls or (None, None)
        protocol = type("Connection", (Connection,), {"patience": bounds.reading})
        try:
            config = uvicorn.Config(
                self.app, log_config=None, access_log=False, server_header=False,
                http=protocol, timeout_graceful_shutdown=GRACE, timeout_keep_alive=60,
                ssl_certfile=certificate, ssl_keyfile=key, ws="none",
            )  # fmt: skip
            config.load()
        except OSError as error:
            raise ConfigError(f"the certificate cannot be used: {error}") from error
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=MOST)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.server_address: tuple[str, int] = self._socket.getsockname()[:2]
        self._server = uvicorn.Server(config)

    def serve_forever(self) -> None:
        """Answer until :meth:`shutdown` or a signal; requests in progress are finished."""
        self._server.run(sockets=[self._socket])

    def shutdown(self) -> None:
        """End soon."""
        self._server.should_exit = True

    def server_close(self) -> None:
        """Let go of the port."""
        self._socket.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
