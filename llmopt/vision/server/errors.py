"""What a request is refused with: a status, a kind and a sentence, and nothing of the server's."""

from __future__ import annotations

import math
from typing import Any, Final

from llmopt.errors import BudgetExhausted, LlmoptError, UserError
from llmopt.vision.server.inference import Busy


class Refusal(Exception):
    """A request is not answered.

    Args:
        status: of HTTP.
        kind: one word for programs.
        message: for people.
        wait: seconds after which it may be tried again.
    """

    def __init__(self, status: int, kind: str, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.wait = status, kind, wait

    def content(self) -> dict[str, Any]:
        """As JSON."""
        return {"error": {"type": self.kind, "message": str(self)}}

    def headers(self) -> dict[str, str]:
        """``Retry-After``, where waiting helps."""
        return {} if self.wait is None else {"Retry-After": str(max(1, math.ceil(self.wait)))}


def of_bounds(what: str) -> Refusal:
    """Something is larger than this server takes."""
    return Refusal(413, "bounds", f"{what}; ask for less at a time")


def refusal(error: BaseException) -> Refusal:
    """What a client is told of an error."""
    match error:
        case Refusal():
            return error
        case Busy():
            return Refusal(503, "busy", str(error), wait=1)
        case TimeoutError():
            return Refusal(503, "busy", "the answer took too long; ask for less at a time", wait=1)
        case BudgetExhausted():
            return Refusal(403, "quota", f"the quota of this key is spent: {error}")
        case UserError() | ValueError() | TypeError():
            return Refusal(400, "request", f"{error}")
        case LlmoptError():
            return Refusal(502, "model", "the model gave an answer that cannot be used")
        case _:
            return Refusal(500, "server", "something went wrong; its trace is in the server's log")


STATUSES: Final = {
    400: "the body is not what the path takes",
    401: "a valid key is needed",
    403: "beyond the access level or the quota",
    404: "there is nothing here",
    408: "the request came too slowly",
    409: "an image or a list of prompts is not held any more: send it again",
    413: "more than this server takes",
    429: "too many requests: wait as long as Retry-After says",
    502: "the model's answer cannot be used",
    503: "too much is waiting: try again",
}
"""Refusals that a client may meet."""
