"""A remote black box of the tests' own, on 127.0.0.1, that counts what arrives."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch

from llmopt.images import PixelImage
from llmopt.testing.world import FakeBox
from llmopt.vision.base import Access
from llmopt.vision.wire import pack_array, unpack_array, unpack_image

HASH = "ab" * 32


@dataclass
class RemoteBox:
    """What stands behind the server, and what came.

    Attributes:
        access: the level it offers.
        spoil: of the path and the right answer, what is answered: an object or bytes, with status
            200, or a status.
        holds: it keeps images by name, and says so.
        came: requests, images, prompts, soft prompts and pairs since :meth:`reset`; ``info`` apart.
        requests: the path of each, and how many images and prompts it had.
    """

    access: Access = Access.SCORES
    spoil: Callable[[str, dict[str, Any]], Any] = lambda path, answer: answer
    holds: bool = False
    came: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, int, int]] = field(default_factory=list)
    url: str = ""
    album: dict[str, Any] = field(default_factory=dict)
    box: FakeBox = field(default_factory=lambda: FakeBox(Access.SOFT))

    def reset(self) -> Counter[str]:
        """What came so far; counting starts anew."""
        came, self.came = self.came, Counter()
        return came

    def info(self) -> dict[str, Any]:
        said = {
            "name": "own", "pretrained": "", "access": int(self.access), "weights_sha256": HASH,
            "logit_scale": 10.0, "logit_bias": 0.0, "detail": "", "embedding_std": 0.5,
        }  # fmt: skip
        return said | ({"holds_images": True} if self.holds else {})

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """The spoiled answer to a request."""
        if path == "/info":
            return self.spoil(path, self.info())
        sent = body.get("images", [])
        new = [one for one in sent if isinstance(one, str)]
        prompts = body.get("prompts", [])
        pairs = len(sent) * len(prompts) if path in ("/labels", "/scores") else 0
        soft = len(body["classnames"]) * body["contexts"]["shape"][0] if path == "/soft" else 0
        self.requests.append((path, len(sent), len(prompts)))
        self.came.update(
            black_box_calls=1,
            image_encodings=len(new),
            text_encodings=len(prompts),
            soft_prompt_encodings=soft,
            pairs_scored=pairs,
        )
        images = self.pictures(sent)
        if images is None:
            return 409
        if path == "/labels":
            right = {"labels": pack_array(self.box.labels(images, prompts))}
        elif path == "/scores":
            right = {"scores": pack_array(self.box.scores(images, prompts))}
        elif path == "/images":
            right = {"features": pack_array(self.box.image_features(images))}
        elif path == "/texts":
            right = {"features": pack_array(self.box.text_features(prompts))}
        elif path == "/embed":
            right = {"vectors": pack_array(self.box.embed_text(body["text"]))}
        else:
            contexts = torch.from_numpy(unpack_array(body["contexts"]))
            features = self.box.soft_features(contexts, body["classnames"])
            right = {"features": pack_array(features.numpy())}
        return self.spoil(path, right)

    def pictures(self, sent: list[Any]) -> list[Any] | None:
        """The images of a request; None where one is named that is not held."""
        from llmopt.vision.wire import image_name

        found = []
        for one in sent:
            if isinstance(one, str):
                image = PixelImage(f"image {len(self.album)}", np.asarray(unpack_image(one)))
                if self.holds:
                    self.album[image_name(one)] = image
            elif one["sha256"] not in self.album:
                return None
            else:
                image = self.album[one["sha256"]]
            found.append(image)
        return found


@contextmanager
def listening(box: RemoteBox) -> Iterator[RemoteBox]:
    """The box, with its URL, as long as it is served."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet: two would wait for each other

        def do_GET(self) -> None:
            self.reply(box.answer(self.path, {}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(box.answer(self.path, body))

        def reply(self, told: Any) -> None:
            status = told if isinstance(told, int) else 200
            if isinstance(told, int):
                told = {"error": {"type": "forgotten" if told == 409 else "x", "message": "no"}}
            data = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """An answer was too long, and nobody read on."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    box.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield box
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
