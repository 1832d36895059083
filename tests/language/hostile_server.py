"""A local server that speaks OpenAI's protocol, well or badly, as a script says.

Each request takes the next act of the script; when it is used up, requests are answered well. The
reply to a conversation depends on nothing but its messages, as with a deterministic model.
"""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Act = Callable[["Handler", dict[str, Any]], None]

WORDS = ("tiny", "small", "large", "red", "blue", "striped", "blurry", "bright", "distant")


class HostileServer(ThreadingHTTPServer):
    """Serves until the ``with`` block ends, and then leaves no thread or socket behind."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, script: Iterable[str] = (), latency: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script = list(script)
        self.latency = latency
        self.context = 300
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.requests = 0
        self.seen: list[dict[str, Any]] = []
        self.authorizations: set[str] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """The base URL for clients."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next_act(self, body: dict[str, Any], authorization: str) -> str:
        """Count a request and say how to treat it."""
        with self.lock:
            self.requests += 1
            self.seen.append(body)
            self.authorizations.add(authorization)
            return self.script[self.requests - 1] if self.requests <= len(self.script) else "ok"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the play."""

    def __enter__(self) -> HostileServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each body waits 40 ms for its headers
    # Both sides of an idle connection belong to the test; it ends long before this.
    timeout = 60
    server: HostileServer

    def do_POST(self) -> None:
        """Play one act."""
        raw = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(raw)
        act = self.server.next_act(body, self.headers.get("authorization", ""))
        self.server.stopping.wait(self.server.latency)
        try:
            ACTS[act](self, body)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def send(
        self,
        payload: bytes,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        claim: int | None = None,
    ) -> None:
        """A response; ``claim`` is the length to announce instead of the true one."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(payload) if claim is None else claim))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if claim is not None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(payload)
        self.wfile.flush()

    def send_json(
        self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """A JSON response."""
        self.send(json.dumps(value).encode(), status, headers)


# ------------------------------------------------------------------------------- good answers


def reply_to(body: dict[str, Any]) -> str:
    """Five templates that depend on the conversation alone."""
    digest = hashlib.sha256(json.dumps(body["messages"]).encode()).digest()
    return "\n".join(f"- a {WORDS[b % len(WORDS)]} photo {b} of a {{}}." for b in digest[:5])


def completion(body: dict[str, Any], content: Any = None, **changes: Any) -> dict[str, Any]:
    """A chat completion as OpenAI sends it."""
    content = reply_to(body) if content is None else content
    tokens_in = sum(len(str(m.get("content"))) // 4 + 4 for m in body["messages"])
    # No tokenizer takes fewer than one a word.
    tokens_out = max(len(str(content)) // 4 + 1, len(str(content).split()))
    answer: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": f"{body['model']}-0001",
        "system_fingerprint": "fp_1",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content},
            }
        ],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    }
    answer.update(changes)
    return answer


def choice(content: Any, finish_reason: Any = "stop", **more: Any) -> list[dict[str, Any]]:
    """The choices of a completion, with a message of any shape."""
    message = {"role": "assistant", "content": content, **more}
    return [{"index": 0, "finish_reason": finish_reason, "message": message}]


def _ok(handler: Handler, body: dict[str, Any]) -> None:
    handler.send_json(completion(body))


def _with(**changes: Any) -> Act:
    return lambda handler, body: handler.send_json(completion(body, **changes))


def _thinking(handler: Handler, body: dict[str, Any]) -> None:
    handler.send_json(completion(body, f"<think>- a wrong {{}}</think>\n{reply_to(body)}"))


def _reasoning_field(handler: Handler, body: dict[str, Any]) -> None:
    content = reply_to(body)
    choices = choice(content, reasoning_content="- a wrong {}", reasoning="- a wrong {}")
    handler.send_json(completion(body, content, choices=choices))


def _no_usage(handler: Handler, body: dict[str, Any]) -> None:
    answer = completion(body)
    del answer["usage"]
    handler.send_json(answer)


def _slow(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.stopping.wait(0.05)
    _ok(handler, body)


def _drip(pause: float, pieces: int) -> Act:
    """A good answer in small pieces; a read timeout never sees it stand still."""

    def act(handler: Handler, body: dict[str, Any]) -> None:
        payload = json.dumps(completion(body)).encode()
        size = len(payload) // pieces + 1
        handler.send(b"", claim=len(payload))
        for start in range(0, len(payload), size):
            if handler.server.stopping.wait(pause):
                return
            handler.wfile.write(payload[start : start + size])
            handler.wfile.flush()

    return act


# ------------------------------------------------------------------------------------ refusals


def _error(
    status: int,
    message: str,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    param: str | None = None,
) -> Act:
    error = {"message": message, "type": code or "error", "code": code, "param": param}
    return lambda handler, body: handler.send_json({"error": error}, status, headers)


def _later(handler: Handler, body: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    headers = {
        "Retry-After": format_datetime(now + timedelta(seconds=1), usegmt=True),
    }
    handler.send_json({"error": {"message": "slow down", "code": "rate_limit"}}, 429, headers)


def _redirect(status: int, location: str | None) -> Act:
    """Send the client on; a place with another scheme or host is given in full."""
    headers = {} if location is None else {"Location": location}
    return lambda handler, body: handler.send(b"", status, headers)


def _html(status: int) -> Act:
    page = b"<!doctype html><html><head><title>Oh no</title></head><body>Bad gateway</body></html>"
    return lambda handler, body: handler.send(page, status, content_type="text/html")


def _refuse_parameter(name: str) -> Act:
    """Say no to an optional parameter, but only where it was sent."""

    def act(handler: Handler, body: dict[str, Any]) -> None:
        if name not in body:
            _ok(handler, body)
            return
        message = f"Unsupported parameter: '{name}' is not supported with this model."
        _error(400, message, "unsupported_parameter", param=name)(handler, body)

    return act


def _other_name(handler: Handler, body: dict[str, Any]) -> None:
    if "max_tokens" not in body:
        _ok(handler, body)
        return
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead."
    )
    _error(400, message, "unsupported_parameter", param="max_tokens")(handler, body)


def _two_roles(status: int, message: str) -> Act:
    """Take user and assistant in turns, and nothing else."""

    def act(handler: Handler, body: dict[str, Any]) -> None:
        turns = itertools.cycle(["user", "assistant"])
        if any(m["role"] != next(turns) for m in body["messages"]):
            _error(status, message)(handler, body)
        else:
            _ok(handler, body)

    return act


def _context(says: str, status: int) -> Act:
    """Hold what the context holds, prompt and reply together; a word is a token."""

    def act(handler: Handler, body: dict[str, Any]) -> None:
        asked = body.get("max_tokens") or body.get("max_completion_tokens")
        prompt = sum(len(str(m["content"]).split()) for m in body["messages"])
        size = handler.server.context
        if prompt + asked <= size:
            _ok(handler, body)
            return
        told = {"context": size, "prompt": prompt, "asked": asked, "sum": prompt + asked}
        _error(status, says.format(**told))(handler, body)

    return act


def _echo_key(status: int) -> Act:
    """Repeat what the client is allowed to nobody else."""

    def act(handler: Handler, body: dict[str, Any]) -> None:
        key = handler.headers.get("authorization", "")
        message = f"Incorrect API key provided: {key}. Headers were {dict(handler.headers)}"
        _error(status, message, "invalid_api_key")(handler, body)

    return act


def _key_in_reply(handler: Handler, body: dict[str, Any]) -> None:
    key = handler.headers.get("authorization", "")
    handler.send_json(completion(body, f"{reply_to(body)}\n(your header was {key})"))


# ------------------------------------------------------------------------------ broken answers


def _json(value: Any) -> Act:
    return lambda handler, body: handler.send_json(value)


def _bytes(payload: bytes, **options: Any) -> Act:
    return lambda handler, body: handler.send(payload, **options)


def _half(handler: Handler, body: dict[str, Any]) -> None:
    payload = json.dumps(completion(body)).encode()
    handler.send(payload[: len(payload) // 2], claim=len(payload))


def _half_closed(handler: Handler, body: dict[str, Any]) -> None:
    """Announce an answer, stop speaking, but go on listening."""
    handler.send(b'{"id": "', claim=500)
    with suppress(OSError):
        handler.connection.shutdown(socket.SHUT_WR)
    handler.server.stopping.wait(0.05)


def _hang_up(handler: Handler, body: dict[str, Any]) -> None:
    handler.close_connection = True


def _reset(handler: Handler, body: dict[str, Any]) -> None:
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.close_connection = True


def _hang(handler: Handler, body: dict[str, Any]) -> None:
    handler.server.stopping.wait(3.0)
    handler.close_connection = True


def _not_http(handler: Handler, body: dict[str, Any]) -> None:
    handler.wfile.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
    handler.close_connection = True


def _big(handler: Handler, body: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 400, "total_tokens": 450}
    handler.send_json(completion(body, "{[<'\"" * 200_000, usage=usage))


def _counts(tokens_in: int, tokens_out: int) -> Act:
    """A good answer, and a count of tokens as told."""
    total = tokens_in + tokens_out
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": total}
    return _with(usage=usage)


SMALL: dict[str, Act] = {
    f"small context {name}": _context(says, status)
    for name, says, status in (
        (
            "openai",
            "This model's maximum context length is {context} tokens. However, you requested {sum} "
            "tokens ({prompt} in the messages, {asked} in the completion). Please reduce the "
            "length of the messages or completion.",
            400,
        ),
        (
            "vllm",
            "'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum "
            "context length is {context} tokens and your request has {prompt} input tokens "
            "({asked} > {context} - {prompt}). None",
            400,
        ),
        (
            "tgi",
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= {context}. "
            "Given: {prompt} `inputs` tokens and {asked} `max_new_tokens`",
            422,
        ),
        ("half", "max_tokens is too large for this model", 500),
    )
}
GOOD: dict[str, Act] = {
    "ok": _ok,
    "slow": _slow,
    "drip": _drip(0.01, 12),
    "thinking": _thinking,
    "reasoning field": _reasoning_field,
    "no usage": _no_usage,
    "usage null": _with(usage=None),
    "usage zero": _with(usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "usage absurd": _with(
        usage={"prompt_tokens": 10**15, "completion_tokens": -4, "total_tokens": 0}
    ),
    "usage words": _with(
        usage={"prompt_tokens": "ten", "completion_tokens": [], "total_tokens": 1}
    ),
    "odd finish": _with(choices=choice("- a {} there", finish_reason="eos")),
    "no finish": _with(choices=choice("- a {} there", finish_reason=None)),
    "cut off": _with(choices=choice("- a photo of a {}\n- a ph", finish_reason="length")),
    "all thought": _with(choices=choice("", finish_reason="length")),
    "prose": _with(content="I would look at the light and the distance."),
    "two slots": _with(content="- a {} and a {}\n- a photo of a {}"),
    "counts low": _counts(1, 0),
    "counts nothing written": _counts(400, 0),
    "limits": lambda handler, body: handler.send_json(
        completion(body),
        headers={
            "x-ratelimit-limit-requests": "100000",
            "x-ratelimit-remaining-requests": "99999",
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-limit-tokens": "-1",
            "x-ratelimit-remaining-tokens": "nonsense",
        },
    ),
    "key in reply": _key_in_reply,
    "no temperature": _refuse_parameter("temperature"),
    "no seed": _refuse_parameter("seed"),
    "other name": _other_name,
    **SMALL,
    "no system": _two_roles(400, "Developer instruction is not enabled for models/gemma-3-27b-it"),
    "two roles": _two_roles(
        500, "jinja: Conversation roles must alternate user/assistant/user/assistant/..."
    ),
}
RETRYABLE: dict[str, Act] = {
    "429": _error(429, "slow down", "rate_limit_exceeded"),
    "429 seconds": _error(429, "slow down", "rate_limit", {"Retry-After": "0.05"}),
    "429 milliseconds": _error(429, "slow down", "rate_limit", {"retry-after-ms": "30"}),
    "429 words": _error(429, "Rate limit reached. Please try again in 20ms.", "rate_limit"),
    "429 odd": _error(429, "slow down", None, {"Retry-After": "soon"}),
    "408": _error(408, "too slow"),
    "409": _error(409, "conflict"),
    "500": _error(500, "oops", "server_error"),
    "502": _html(502),
    "503": _error(503, "loading model"),
    "529": _error(529, "overloaded", "overloaded_error"),
    "rate limit in 200": _json({"error": {"message": "slow down", "code": 429}}),
    "rate limit word in 200": _json({"error": {"message": "no", "code": "rate_limit_exceeded"}}),
    "rate limit text in 200": _json({"error": "Rate limit reached, slow down"}),
    "rate limit flat in 200": _json({"object": "error", "message": "x", "code": "429"}),
    "rate limit choice in 200": _with(
        choices=[{"index": 0, "finish_reason": "error", "error": {"message": "x", "code": 429}}]
    ),
    "error in 200": _json({"error": {"message": "worker died", "code": 500}}),
    "error text in 200": _json({"error": "worker died"}),
    "error flat in 200": _json({"object": "error", "message": "worker died", "code": 50001}),
    "html": _html(200),
    "empty body": _bytes(b""),
    "not json": _bytes(b"{'id': 1,}"),
    "not utf-8": _bytes(b'{"id": "\xff\xfe"}'),
    "list": _json([]),
    "string": _json("hello"),
    "number": _json(7),
    "null": _json(None),
    "empty object": _json({}),
    "no choices": _with(choices=[]),
    "choices null": _with(choices=None),
    "choices text": _with(choices="none"),
    "choices object": _with(choices={"0": {}}),
    "choices numbers": _with(choices=[1, 2]),
    "no message": _with(choices=[{"index": 0, "finish_reason": "stop"}]),
    "message text": _with(choices=[{"index": 0, "finish_reason": "stop", "message": "hi"}]),
    "content null": _with(choices=choice(None)),
    "tool call": _with(
        choices=choice(
            None,
            "tool_calls",
            tool_calls=[
                {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
            ],
        )
    ),
    "huge": _bytes(b'{"choices": "' + b"x" * 9 * 2**20 + b'"}'),
    "bomb": _bytes(gzip.compress(b"[" * 2**26), headers={"Content-Encoding": "gzip"}),
    "content empty": _with(choices=choice("  ")),
    "content number": _with(choices=choice(12)),
    "content object": _with(choices=choice({"text": "- a {}"})),
    "usage text": _with(usage="many"),
    "half": _half,
    "half closed": _half_closed,
    "hang up": _hang_up,
    "reset": _reset,
    "not http": _not_http,
    "bad encoding": _bytes(b"plain text", headers={"Content-Encoding": "gzip"}),
}
# These take a second or two each, so scripts use them sparingly.
SLOW: dict[str, Act] = {
    "hang": _hang,
    "drip for ever": _drip(0.1, 100),
    "429 date": _later,
}
COURSE: dict[str, Act] = {
    "too long": _error(
        400,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9001 tokens. Please reduce the length of the messages.",
        "context_length_exceeded",
    ),
    "too long elsewhere": _error(
        400, "the request exceeds the available context size. try increasing it", "invalid_request"
    ),
    "filtered": _error(
        400, "The response was filtered by our content management policy", "content_filter"
    ),
    "withheld": _with(choices=choice("", finish_reason="content_filter")),
    "declined": _with(choices=choice(None, refusal="I will not write templates.")),
}
FATAL: dict[str, Act] = {
    "401": _error(401, "Incorrect API key provided: sk-abc*****xyz.", "invalid_api_key"),
    "401 echo": _echo_key(401),
    "403": _error(403, "Country not supported", "unsupported_country_region_territory"),
    "402": _error(402, "Insufficient Balance", "insufficient_balance"),
    "402 in 200": _json({"error": {"message": "Insufficient credits", "code": 402}}),
    "quota": _error(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
    ),
    "402 word in 200": _json({"error": {"message": "no", "type": "insufficient_quota"}}),
    "402 text in 200": _json({"error": "You are out of credits", "code": "402"}),
    "402 flat in 200": _json({"object": "error", "message": "Insufficient balance", "code": 402}),
    "402 flag in 200": _json({"error": True, "message": "pay first", "status": "402"}),
    "402 choice in 200": _with(
        choices=[{"index": 0, "message": None, "error": {"message": "broke", "code": 402}}]
    ),
    "moved": _redirect(301, "/v2/chat/completions"),
    "found": _redirect(302, "http://localhost:9/v1/chat/completions"),
    "see other": _redirect(303, "https://me:pass-phrase@other.example/v1?api_key=pass-phrase"),
    "loop": _redirect(307, "/v1/chat/completions"),
    "moved for good": _redirect(308, "//other.example/v1/chat/completions"),
    "moved far": _redirect(307, f"https://other.example/{'x' * 9_000}"),
    "moved to a secret": _redirect(307, "https://other.example/sk-abcdefgh12345678/v1"),
    "moved nowhere": _redirect(307, None),
    "429 endless": _error(429, "slow down", None, {"Retry-After": "1e308"}),
    "429 for good": _error(
        429, "slow down", None, {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}
    ),
    "no model": _error(404, "The model `x` does not exist", "model_not_found"),
    "bad request": _error(400, "'messages' must contain the word json", "invalid_request_error"),
    "400 echo": _echo_key(400),
}
# More than was reserved for the call.
BEYOND: dict[str, Act] = {
    "dear": _counts(50, 90_000),
    "a little dear": _counts(50, 450),
    "dear to ask": _counts(50_000, 10),
    "dear both ways": _counts(50_000, 90_000),
    "beyond belief": _counts(50, 10**15),
    "megabyte": _big,
    "dear refusal": _with(
        choices=choice(None, refusal="I will not."),
        usage={"prompt_tokens": 50, "completion_tokens": 90_000, "total_tokens": 90_050},
    ),
}
ACTS: dict[str, Act] = {**GOOD, **RETRYABLE, **SLOW, **COURSE, **FATAL, **BEYOND}


def wait_until_idle(server: HostileServer, patience: float = 5.0) -> int:
    """The count of requests once no more of them arrive."""
    before, end = -1, time.monotonic() + patience
    while time.monotonic() < end and before != server.requests:
        before = server.requests
        time.sleep(0.02)
    return server.requests
