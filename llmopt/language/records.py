"""What the journal keeps of a call: the intent before it is sent, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmopt.errors import (
    ContentRefused,
    ContextOverflow,
    FormRefused,
    RunFolderError,
    ServiceError,
)
from llmopt.language import wire
from llmopt.language.prices import Bound
from llmopt.spend.currency import amounts

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage, BaseMessage

MAX_CHARS = 1_000_000
"""Of a reply, its reasoning included; no sane limit of tokens is longer."""
_MAX_NAME = 200

INTENT = "llm_intent"
REPLY = "llm_reply"
# Failures that belong to the course of a search: the optimizer reacts, so a resumed run must too.
COURSE = (ContextOverflow, ContentRefused)
# The parts of an answer that make the same reply of it in another run.
ANSWER = {"text": str, "finish_reason": str, "model": str, "estimated": bool, "charged": dict}
_PLACE = {"turn": int, "sample": int, "attempt": int, "request": str}
_ERROR = {"type": str, "message": str, "status": (int, type(None)), "dropped": str}


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        messages: the whole conversation.
        plain: the same as roles and contents.
        stream, turn: where in the run it stands.
        sample: how often the same was asked there before.
        bound: tokens at most.
        upper: what it may cost at most, by currency.
        text: all that decides what the reply may be.
    """

    messages: Sequence[BaseMessage]
    plain: list[list[Any]]
    stream: str
    turn: int
    sample: int
    bound: Bound
    upper: dict[str, float]
    text: str

    def key(self, number: int) -> str:
        """The journal's key of try ``number``."""
        return wire.sha(wire.canonical([self.text, self.stream, self.turn, self.sample, number]))

    def place(self, number: int) -> dict[str, Any]:
        """Where in the run try ``number`` stands, and what it asks."""
        request = wire.sha(wire.canonical(self.plain))
        return {"turn": self.turn, "sample": self.sample, "attempt": number, "request": request}


def spend(tokens_in: int, tokens_out: int, usd: float, calls: int = 1) -> dict[str, float]:
    """One call in the ledger's currencies; none where nothing was sent."""
    return {
        "llm_calls": calls,
        "llm_tokens_in": tokens_in,
        "llm_tokens_out": tokens_out,
        "llm_usd": usd,
    }


def lost(bound: Mapping[str, float]) -> dict[str, float]:
    """A call that never came back: nothing is known of it but what it cost at most."""
    return {
        "llm_calls_lost": 1,
        "llm_tokens_lost": bound["llm_tokens_in"] + bound["llm_tokens_out"],
        "llm_usd_lost": bound["llm_usd"],
    }


def answer(message: AIMessage, charged: dict[str, float], estimated: bool) -> dict[str, Any]:
    """The record of a call that was answered."""
    metadata = message.response_metadata or {}
    return {
        "text": str(message.text)[:MAX_CHARS],
        "finish_reason": wire.finish_reason(message),
        "model": str(metadata.get("model_name") or metadata.get("model") or "")[:_MAX_NAME],
        "fingerprint": str(metadata.get("system_fingerprint") or "")[:_MAX_NAME],
        "estimated": estimated,
        "charged": charged,
    }


def failure(error: ServiceError, charged: dict[str, float]) -> dict[str, Any]:
    """The record of a failed call."""
    dropped = error.dropped if isinstance(error, FormRefused) else ""
    return {
        "error": {
            "type": "BadRequest" if dropped else type(error).__name__,
            "message": str(error),
            "status": error.status,
            "dropped": dropped,
        },
        "charged": charged,
    }


def is_answer(record: Mapping[str, Any]) -> bool:
    """Whether a cached record is what this version writes."""
    try:
        _check(record, ANSWER)
        _check_call(record["charged"])
    except ValueError:
        return False
    return True


def checked(kind: str, record: dict[str, Any], path: Path) -> dict[str, Any]:
    """A journal's record of a call, once it is known to be one.

    Raises:
        RunFolderError: it is not what :class:`MeteredChat` writes.
    """
    try:
        _check(record, _PLACE)
        if kind == INTENT:
            _check_call(record.get("bound"))
            return record
        if "error" in record:
            _check(record["error"], _ERROR)
        else:
            _check(record, ANSWER)
        _check_call(record.get("charged"))
    except ValueError as error:
        raise RunFolderError(
            f"{path} is damaged (in a record '{kind}', {error}); restore it from a copy, or start "
            "another run"
        ) from None
    return record


def _check(record: Any, kinds: Mapping[str, Any]) -> None:
    if not isinstance(record, Mapping):
        raise ValueError(f"{record!r:.40} is no table")
    for name, kind in kinds.items():
        value = record.get(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"'{name}' cannot be {value!r:.40}")


def _check_call(charged: Any) -> None:
    if missing := spend(0, 0, 0).keys() - amounts(charged).keys():
        raise ValueError(f"'{min(missing)}' is missing")


def scrubbed(value: Any, scrub: Callable[[str], str]) -> Any:
    """A record with the secrets in its texts masked."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {key: scrubbed(item, scrub) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [scrubbed(item, scrub) for item in value]
    return value
