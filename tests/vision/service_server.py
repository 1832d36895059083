"""Services that give features or scores, on 127.0.0.1: each as its public reference describes it.

What stands behind them is the tests' own small world. They hold requests to their limits and
forms, refuse the rest as the services do, and count what they answered.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from llmopt.errors import DatasetError
from llmopt.images import PixelImage, decode
from llmopt.testing.world import FakeBox
from llmopt.vision.base import Access

TOKENS = {"text": 7, "image": 50}
"""What each text and each picture is counted as."""
TIMES = {"roboflow": {"x-processing-time": "0.0001"}, "hf": {"x-compute-time": "0.0001"}}
"""Seconds that each answer is told to have taken."""


class Refuse(Exception):
    """A status and a message."""


class ServiceServer:
    """One service.

    Args:
        kind: as ``--blackbox`` calls it; ``openai-embeddings`` with a dialect after a slash.
        spoil: from the number of a request, from 1, and the right answer, to what is sent in its
            place: a status, or bytes.
        key: that must come, if any.

    Attributes:
        asked: texts and pictures answered, by what they are, as often as they were.
        sizes: items in each request.
        times: headers that tell the time of an answer, by name.
    """

    def __init__(
        self, kind: str, spoil: Callable[[int, Any], Any] | None = None, key: str = ""
    ) -> None:
        self.kind, _, self.dialect = kind.partition("/")
        self.spoil, self.key = spoil, key
        self.asked: Counter[tuple[str, str]] = Counter()
        self.sizes: list[int] = []
        self.times = dict(TIMES.get(self.kind, {}))
        self.requests = 0
        self.refused: list[int] = []
        self._box = FakeBox(Access.SOFT)
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """What ``base_url`` takes."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> ServiceServer:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each body waits 40 ms for its headers

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, told = server.answer(self.path, dict(self.headers), body)
                content = told if isinstance(told, bytes) else json.dumps(told).encode()
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "0.02")
                for name, seconds in server.times.items():
                    self.send_header(name, seconds)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str, headers: dict[str, str], body: Any) -> tuple[int, Any]:
        """Status and body of an answer."""
        with self._lock:
            self.requests += 1
            try:
                if self.key and self.key not in "\n".join(headers.values()):
                    raise Refuse(401, "no such key")
                read = getattr(self, self.kind.replace("-", "_"))
                answered: list[tuple[str, str]] = []
                right = read(path, body, answered)
            except (KeyError, TypeError, IndexError, AssertionError) as error:
                self.refused.append(422)
                return 422, {"detail": f"{type(error).__name__}: {error}"}
            except Refuse as refused:
                self.refused.append(refused.args[0])
                return refused.args[0], {"error": {"message": refused.args[1]}}
            sent = right if self.spoil is None else self.spoil(self.requests, right)
            if isinstance(sent, int):
                return sent, {"error": {"message": f"status {sent}"}}
            if sent is right:
                self.asked.update(answered)
                self.sizes.append(len(answered))
            return 200, sent

    # ------------------------------------------------------------------------------- services

    def cohere(self, path: str, body: Any, answered: list[tuple[str, str]]) -> Any:
        """Texts up to 96 a call, or one picture."""
        assert path == "/embed"
        assert body["model"] == "embed-v4.0"
        assert body["embedding_types"] == ["float"]
        if "images" in body:
            assert body["input_type"] == "image"
            self._limit(body["images"], 1)
            rows = self._pictures(body["images"], answered)
            units = {"images": len(rows)}
        else:
            assert body["input_type"] in ("search_query", "search_document", "classification")
            self._limit(body["texts"], 96)
            rows = self._texts(body["texts"], answered)
            units = {"input_tokens": TOKENS["text"] * len(rows)}
        return {"id": "x", "embeddings": {"float": rows}, "meta": {"billed_units": units}}

    def voyage(self, path: str, body: Any, answered: list[tuple[str, str]]) -> Any:
        """Inputs of one part each; answers in no order but that of their index."""
        assert path == "/multimodalembeddings"
        self._limit(body["inputs"], 1000)
        rows = []
        for one in body["inputs"]:
            (part,) = one["content"]
            if part["type"] == "text":
                rows += self._texts([part["text"]], answered)
            else:
                rows += self._pictures([part["image_base64"]], answered)
        data = [{"object": "embedding", "embedding": row, "index": n} for n, row in enumerate(rows)]
        used = sum(TOKENS[kind] for kind, _ in answered)
        return {"object": "list", "data": data[::-1], "usage": {"total_tokens": used}}

    def gemini(self, path: str, body: Any, answered: list[tuple[str, str]]) -> Any:
        """A batch, of at most six pictures."""
        assert path == "/models/gemini-embedding-2:batchEmbedContents"
        found = []
        for one in body["requests"]:
            assert one["model"] == "models/gemini-embedding-2"
            (part,) = one["content"]["parts"]
            if "text" in part:
                found += self._texts([part["text"]], answered)
            else:
                found += self._pictures([part["inline_data"]["data"]], answered)
        self._limit([1 for kind, _ in answered if kind == "image"], 6)
        return {"embeddings": [{"values": row} for row in found]}

    def vertex(self, path: str, body: Any, answered: list[tuple[str, str]]) -> Any:
        """One instance; at most 32 tokens of text."""
        assert path == "/multimodalembedding@001:predict"
        (one,) = body["instances"]
        if "text" in one:
            if len(one["text"].split()) > 32:
                raise Refuse(400, "Text field must be smaller than 32 tokens")
            return {"predictions": [{"textEmbedding": self._texts([one["text"]], answered)[0]}]}
        rows = self._pictures([one["image"]["bytesBase64Encoded"]], answered)
        return {"predictions": [{"imageEmbedding": rows[0]}], "deployedModelId": "1"}

    def roboflow(self, path: str, body: Any, answered: list[tuple[str, str]]) -> Any:
        """Two paths; at most eight in a call."""
        assert body["clip_version_id"] == "ViT-B-16"
        self._limit(body.get("text", body.get("image")), 8)
        if path == "/clip/embed_text":
            return {"embeddings": self._texts(body["text"], answered), "time": 0.1}
        assert path == "/clip/embed_image"
        assert {one["type"] for one in body["image"]} == {"base64"}
        rows = self._pictures([one["value"] for one in body["image"]], answered)
        return {"embeddings": rows, "time": 0.1}

    def hf(self, path: str, body: Any, answered: list[tuple[str, str]]) -> Any:
        """Probabilities of candidate labels, the likeliest first."""
        assert path == "/"
        labels, sentence = (body["parameters"][name] for name in
                            ("candidate_labels", "hypothesis_template"))  # fmt: skip
        assert sentence.count("{}") == 1
        pictures: list[tuple[str, str]] = []
        visual = np.array(self._pictures([body["inputs"]], pictures))
        answered.append(("pairs", f"{pictures[0][1]} {sentence} {labels}"))
        text = np.array(self._texts([sentence.replace("{}", label) for label in labels], []))
        logits = 10 * (visual @ text.T)[0]
        odds = np.exp(logits - logits.max())
        order = np.argsort(-odds)
        return [{"label": labels[n], "score": float(odds[n] / odds.sum())} for n in order]

    def openai_embeddings(self, path: str, body: Any, answered: list[tuple[str, str]]) -> Any:
        """Each dialect takes its own form of pictures, and refuses or misreads the others'."""
        assert path == "/embeddings"
        if self.dialect == "vllm" and "messages" in body:
            (message,) = body["messages"]
            (part,) = message["content"]
            rows = self._pictures([part["image_url"]["url"]], answered)
        elif self.dialect == "jina":
            rows = []
            for one in body["input"]:
                if "image" in one:
                    rows += self._pictures([one["image"]], answered)
                else:
                    rows += self._texts([one["text"]], answered)
        else:
            inputs = body["input"]
            assert all(isinstance(one, str) for one in inputs)
            self._limit(inputs, 32)
            images = body.get("modality") == "image" and self.dialect == "infinity"
            images |= self.dialect == "litellm" and inputs[0].startswith("data:image")
            rows = (self._pictures if images else self._texts)(inputs, answered)
        data = [{"object": "embedding", "embedding": row, "index": n} for n, row in enumerate(rows)]
        used = sum(TOKENS[kind] for kind, _ in answered)
        usage = {"prompt_tokens": used, "total_tokens": used}
        return {"object": "list", "data": data, "model": body["model"], "usage": usage}

    # ------------------------------------------------------------------------------- features

    def _limit(self, items: list[Any], most: int) -> None:
        if len(items) > most:
            raise Refuse(400, f"at most {most} inputs, not {len(items)}")

    def _texts(self, texts: list[str], answered: list[tuple[str, str]]) -> Any:
        answered += [("text", text) for text in texts]
        return (2.5 * self._box.text_features(texts)).tolist()

    def _pictures(self, sent: list[str], answered: list[tuple[str, str]]) -> Any:
        images = []
        for one in sent:
            content = one.partition("base64,")[2] or one
            try:
                picture = decode(io.BytesIO(base64.b64decode(content)), "sent", ("PNG", "JPEG"))
            except (DatasetError, binascii.Error) as error:
                raise Refuse(400, f"no picture: {error}") from error
            pixels = np.asarray(picture)
            images.append(PixelImage("sent", pixels))
            answered.append(("image", PixelImage("sent", pixels).key()))
        return (3.5 * self._box.image_features(images)).tolist()
