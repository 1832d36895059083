"""``llmopt serve``: a model behind HTTP as a black box (see :mod:`llmopt.vision.wire`).

The server gives no more than the access level it was told to give, whatever the model could.
"""

from __future__ import annotations

import dataclasses
import hmac
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from PIL import Image as PillowImage

from llmopt.errors import LlmoptError, UserError
from llmopt.vision.base import Access, BlackBox
from llmopt.vision.wire import MOST_BYTES, image_name, pack_array, unpack_array, unpack_image

ALBUM_BYTES: Final = 512 * 2**20


@dataclass(frozen=True)
class _Received:
    """A picture that came over the wire."""

    picture: PillowImage.Image
    name: str = "a received image"

    @property
    def size(self) -> int:
        return 3 * self.picture.width * self.picture.height

    def key(self) -> str:
        return str(id(self.picture))

    def load(self) -> PillowImage.Image:
        return self.picture


class _Album:
    """Pictures by name, the latest that came; :data:`ALBUM_BYTES` of pixels at most."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, _Received] = OrderedDict()
        self._bytes = 0

    def received(self, images: Any) -> list[_Received]:
        """The images of a request, some of them by name.

        Raises:
            _Forgotten: one is not held.
        """
        return [self._one(value) for value in images]

    def _one(self, value: Any) -> _Received:
        if isinstance(value, dict):
            if (held := self._held.get(str(value.get("sha256")))) is None:
                raise _Forgotten("an image is not held any more; send it again")
            return held
        image, name = _Received(unpack_image(value)), image_name(value)
        if name not in self._held:
            self._held[name] = image
            self._bytes += image.size
            while self._bytes > ALBUM_BYTES:
                self._bytes -= self._held.popitem(last=False)[1].size
        return image


class _Forgotten(Exception):
    """An image was named that is not held."""


class BlackBoxServer(ThreadingHTTPServer):
    """Serves a box until :meth:`shutdown`.

    Args:
        box: the model.
        address: host and port; port 0 takes a free one (see ``server_address``).
        access: the level to offer; at most the box's own, which is the default.
        token: what a caller must present as a bearer token; None lets everyone in.
    """

    daemon_threads = True

    def __init__(
        self,
        box: BlackBox,
        address: tuple[str, int],
        access: Access | None = None,
        token: str | None = None,
    ) -> None:
        self.access = min(box.info.access, box.info.access if access is None else access)
        self._box = box
        self._token = token
        self._one_at_a_time = threading.Lock()
        self._album = _Album()
        super().__init__(address, _Handler)

    def allows(self, authorization: str | None) -> bool:
        """Whether a request with this header may pass."""
        if self._token is None:
            return True
        return hmac.compare_digest((authorization or "").encode(), f"Bearer {self._token}".encode())

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request.

        Raises:
            KeyError: no such path. PermissionError: beyond the access level. ValueError, TypeError
            and UserError: the body is not what the path takes.
        """
        level, work = _ROUTES[path]
        if self.access < level:
            raise PermissionError(
                f"{path} needs access level '{level}'; this box offers '{self.access}'"
            )
        with self._one_at_a_time:
            if "images" in body:
                body = body | {"images": self._album.received(body["images"])}
            return work(self._box, body) if path != "/info" else self._info()

    def _info(self) -> dict[str, Any]:
        said = dataclasses.asdict(self._box.info) | {"access": int(self.access)}
        said["holds_images"] = True
        if self.access >= Access.SOFT:
            said["embedding_std"] = self._box.embedding_std
        return said


class _Handler(BaseHTTPRequestHandler):
    server: BlackBoxServer
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """``/info``."""
        self._serve({})

    def do_POST(self) -> None:
        """Everything else."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MOST_BYTES:
            self.close_connection = True
            self._send(400, _error("request", f"a body of at most {MOST_BYTES} bytes is needed"))
            return
        try:
            body = json.loads(self.rfile.read(int(length)))
            if not isinstance(body, dict):
                raise ValueError("the body is not a JSON object")
        except ValueError as error:
            self._send(400, _error("request", str(error)))
            return
        self._serve(body)

    def _serve(self, body: dict[str, Any]) -> None:
        if not self.server.allows(self.headers.get("Authorization")):
            self._send(401, _error("token", "a valid bearer token is needed"))
            return
        if self.path not in _ROUTES:
            self._send(404, _error("path", f"there is nothing at {self.path}"))
            return
        try:
            self._send(200, self.server.answer(self.path, body))
        except _Forgotten as error:
            self._send(409, _error("forgotten", str(error)))
        except PermissionError as error:
            self._send(403, _error("access", str(error)))
        except (KeyError, TypeError, ValueError, UserError) as error:
            self._send(400, _error("request", f"{type(error).__name__}: {error}"))
        except (LlmoptError, RuntimeError) as error:
            self._send(500, _error("server", f"{type(error).__name__}: {error}"))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep quiet; requests may hold what should not be logged."""


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(t, str) for t in value):
        raise ValueError("expected a list of texts")
    return value


def _soft(box: BlackBox, body: dict[str, Any]) -> dict[str, Any]:
    import torch

    contexts = torch.from_numpy(unpack_array(body["contexts"]))
    features = box.soft_features(contexts, _texts(body["classnames"]))
    return {"features": pack_array(features.cpu().numpy())}


_Work = Callable[[BlackBox, dict[str, Any]], dict[str, Any]]
_ROUTES: dict[str, tuple[Access, _Work]] = {
    "/info": (Access.LABELS, lambda box, body: {}),
    "/labels": (
        Access.LABELS,
        lambda box, body: {
            "labels": pack_array(box.labels(body["images"], _texts(body["prompts"])))
        },
    ),
    "/scores": (
        Access.SCORES,
        lambda box, body: {
            "scores": pack_array(box.scores(body["images"], _texts(body["prompts"])))
        },
    ),
    "/images": (
        Access.FEATURES,
        lambda box, body: {"features": pack_array(box.image_features(body["images"]))},
    ),
    "/texts": (
        Access.FEATURES,
        lambda box, body: {"features": pack_array(box.text_features(_texts(body["prompts"])))},
    ),
    "/embed": (
        Access.SOFT,
        lambda box, body: {"vectors": pack_array(box.embed_text(_texts([body["text"]])[0]))},
    ),
    "/soft": (Access.SOFT, _soft),
}


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message}}
