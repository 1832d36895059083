"""A chat model that sees, over HTTP in OpenAI's dialect: ``shapes-tiny`` behind words.

It looks at the picture and at the sentence with its gap, chooses as ``shapes-tiny`` scores, and now
and then says so in another way than it was asked to, or says something else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from llmopt.images import PixelImage, decode
from llmopt.vision.openclip import OpenClipBlackBox

ODD: tuple[Callable[[str, str], str], ...] = (
    lambda first, second: f"The object in the picture is a **{first}**.",
    lambda first, second: f"{first}s",
    lambda first, second: f"1. {first}\n2. {second}",
    lambda first, second: f'```json\n{{"answer": "{first.upper()}"}}\n```',
    lambda first, second: f"It's not a {second}. Answer: {first}",
    lambda first, second: "I'm sorry, I can't help with identifying that.",
    lambda first, second: "a blob",
    lambda first, second: "",
)
"""Other ways to say it, and other things to say."""


class SeeingServer:
    """Listens on 127.0.0.1.

    Args:
        odd: share of the replies that are odd.
        spoil: from the number of a request, from 1, and the right answer, to what is sent in its
            place: a status, a status with a message, or bytes.

    Attributes:
        asked: what was answered, by what was asked; how often is the length of a list.
        most: requests in progress at a time.
    """

    def __init__(self, odd: float = 0.0, spoil: Callable[[int, Any], Any] | None = None) -> None:
        self.odd, self.spoil = odd, spoil
        self.asked: dict[str, list[str]] = {}
        self.bodies: list[dict[str, Any]] = []
        self.requests = self.most = self._now = 0
        self.latency = 0.0
        self.tokens = (0, 0)
        self._box = OpenClipBlackBox("shapes-tiny", device="cpu")
        self._seen: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """What ``base_url`` takes."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> SeeingServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each body waits 40 ms for its headers

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told = server.answer(body)
                status, said = told if isinstance(told, tuple) else (told, f"status {told}")
                if isinstance(status, int):
                    told = {"error": {"message": said}}
                else:
                    status = 200
                content = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                if status == 429:
                    self.send_header("Retry-After", "0.05")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # the client went away

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, body: dict[str, Any]) -> Any:
        """What one request is answered with."""
        with self._lock:
            self.requests += 1
            number = self.requests
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            time.sleep(self.latency)
            with self._lock:
                told, key, reply = self._told(body)
            sent = told if self.spoil is None else self.spoil(number, told)
            if sent is told:
                with self._lock:
                    self.asked.setdefault(key, []).append(reply)
                    used = told["usage"]
                    self.tokens = (
                        self.tokens[0] + used["prompt_tokens"],
                        self.tokens[1] + used["completion_tokens"],
                    )
            return sent
        finally:
            with self._lock:
                self._now -= 1

    def _told(self, body: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
        self.bodies.append(body)
        (message,) = body["messages"]
        words = next(part["text"] for part in message["content"] if part["type"] == "text")
        uri = next(p["image_url"]["url"] for p in message["content"] if p["type"] == "image_url")
        options = [line[2:] for line in words.splitlines() if line.startswith("- ")]
        sentence = next((line for line in words.splitlines() if "___" in line), "___")
        scores = self._scores(uri, [sentence.replace("___", option) for option in options])
        order = [options[n] for n in np.argsort(-scores, kind="stable")]
        first, second = order[0], order[min(1, len(order) - 1)]
        key = hashlib.sha256(f"{uri}\n{words}".encode())
        draw = int.from_bytes(key.digest()[:8], "big") / 2**64
        reply = first
        if " options, spelled" in words:
            reply = "\n".join(order[: int(words.split(" options, spelled")[0].split()[-1])])
        if draw < self.odd:
            reply = ODD[key.digest()[9] % len(ODD)](first, second)
        elif body.get("response_format"):
            reply = json.dumps({"answer": reply.split("\n") if "\n" in reply else reply})
        used = 300 + len(words) // 4, 1 + len(reply) // 4
        right = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": reply},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": used[0],
                "completion_tokens": used[1],
                "total_tokens": sum(used),
            },
        }
        return right, key.hexdigest(), reply

    def _scores(self, uri: str, prompts: list[str]) -> Any:
        if uri not in self._seen:
            raw = base64.b64decode(uri.partition("base64,")[2])
            picture = decode(io.BytesIO(raw), "sent", ("PNG", "JPEG"))
            image = PixelImage("sent", np.asarray(picture))
            self._seen[uri] = self._box.image_features([image])
        text = "\n".join(prompts)
        if text not in self._seen:
            self._seen[text] = self._box.text_features(prompts)
        return self._box.logits(self._seen[uri], self._seen[text])[0]
