"""Reading answers of a bounded size, whatever a server sends and however it is packed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openai import DefaultHttpxClient

from llmopt.errors import MalformedResponse

if TYPE_CHECKING:
    from httpx2 import Request, Response

MAX_BYTES = 8 * 2**20
"""Of an answer, unpacked; ten times what any sane limit of tokens comes to."""

_PACKING = ("content-encoding", "content-length", "transfer-encoding")


def bounded_client(service: str, **options: Any) -> DefaultHttpxClient:
    """OpenAI's own HTTP client, which gives up answers above :data:`MAX_BYTES`.

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
            return type(answer)(
                answer.status_code,
                headers=[(k, v) for k, v in answer.headers.multi_items() if k not in _PACKING],
                content=bytes(body),
                request=answer.request,
                extensions=answer.extensions,
                history=answer.history,
            )

    return Client(**options)
