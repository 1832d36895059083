"""Reading answers: of a bounded size, from where they were asked for, and as what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openai import DefaultHttpxClient

from llmopt.errors import MalformedResponse
from llmopt.remote.failures import INSIDE, status_in

if TYPE_CHECKING:
    from httpx2 import Request, Response

MAX_BYTES = 8 * 2**20
"""Of an answer, unpacked; ten times what any sane limit of tokens comes to."""

_PACKING = ("content-encoding", "content-length", "transfer-encoding")


def bounded_client(service: str, **options: Any) -> DefaultHttpxClient:
    """OpenAI's own HTTP client, made careful.

    It gives up answers above :data:`MAX_BYTES`, follows no redirects (the key and the prompt would
    go with them), and gives an error that came with status 200 the status it should have had.

    Args:
        service: what is asked, for people.
        options: of the client.
    """

    class Client(DefaultHttpxClient):
        def send(self, request: Request, *, stream: bool = False, **how: Any) -> Response:
            answer = super().send(request, stream=True, **how)
            if stream:
                return answer
            body = bytearray()
            try:
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > MAX_BYTES:
                        raise MalformedResponse(
                            f"{service}: the answer is longer than {MAX_BYTES / 2**20:.0f} MiB",
                            service=service,
                        )
            finally:
                answer.close()
            status, content = answer.status_code, bytes(body)
            inside = error_inside(body) if status == 200 else None
            if inside is not None:
                status, content = status_in(inside), json.dumps({"error": inside}).encode()
            return type(answer)(
                status,
                headers=[(k, v) for k, v in answer.headers.multi_items() if k not in _PACKING],
                content=content,
                request=answer.request,
                extensions={**answer.extensions, INSIDE: inside is not None},
                history=answer.history,
            )

    return Client(follow_redirects=False, **options)


def error_inside(body: bytes | bytearray) -> Mapping[str, Any] | None:
    """The error that an answer holds in place of a reply; None for none."""
    if b'"error"' not in body:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, Mapping):
        return None
    choices = found.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if isinstance(first, Mapping):
        message = first.get("message")
        if isinstance(message, Mapping) and message.get("content"):
            return None  # there is a reply, and it is paid for
        found = first
    error = found.get("error")
    if found.get("object") == "error" or error is True:
        error = found
    if not error:
        return None
    return error if isinstance(error, Mapping) else {**found, "error": None, "message": str(error)}
