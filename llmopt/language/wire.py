"""What goes over the wire, in plain words: messages, parameters and answers of any provider.

Everything here only reads LangChain objects, by their attributes, so importing it costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmopt.remote.scrub import looks_secret

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, BaseMessage

_LENGTH = {"length", "max_tokens", "model_length", "max_output_tokens", "model_context_window"}
_FILTERED = {"content_filter", "refusal", "safety", "prohibited_content", "blocklist", "recitation"}
_REASONS = ("finish_reason", "stop_reason", "done_reason", "finishReason")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")

_SHAPING = (
    "model",
    "model_name",
    "temperature",
    "top_p",
    "seed",
    "max_tokens",
    "max_output_tokens",
    "num_predict",
    "reasoning_effort",
    "extra_body",
)


@dataclass(frozen=True)
class Usage:
    """Tokens as the service counted them; ``cached`` and ``written`` are part of the input."""

    tokens_in: int
    tokens_out: int
    cached: int = 0
    written: int = 0


def is_local(model: BaseChatModel) -> bool:
    """Whether a model runs in this process: it cannot hang, costs nothing and says the same again.

    Such a class says so by ``llmopt_local = True``. Its errors are bugs to show, and its replies
    need no cache.
    """
    return getattr(type(model), "llmopt_local", False) is True


def sha(text: str) -> str:
    """SHA-256 of a text, lone surrogates included."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def canonical(value: Any) -> str:
    """One text for one value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def plain_messages(messages: Sequence[BaseMessage]) -> list[list[Any]]:
    """Roles and contents; pictures and other bulk as their hashes."""
    return [[message.type, _plain(message.content)] for message in messages]


def fingerprint(messages: Sequence[BaseMessage]) -> str:
    """Tells conversations apart."""
    return sha(canonical(plain_messages(messages)))


def parameters(model: BaseChatModel) -> dict[str, Any]:
    """The parameters that shape a model's replies, where they are set.

    A list of our own, as what a class counts among its identifying parameters differs between
    providers and changes from version to version, and a resumed run must find its replies again.
    """
    found = {name: getattr(model, name, None) for name in _SHAPING}
    return {name: value for name, value in found.items() if value is not None}


def base_url(model: BaseChatModel) -> str:
    """The address a model is asked at, where it is not the provider's own."""
    for name in ("openai_api_base", "base_url", "endpoint", "anthropic_api_url"):
        value = getattr(model, name, None)
        if isinstance(value, str) and value:
            return value
    return ""


def secrets_of(model: BaseChatModel) -> set[str]:
    """The keys a model holds, so that they can be kept out of everything that is written."""
    found: set[str] = set()
    fields = getattr(type(model), "model_fields", {})
    for name in fields:
        value = getattr(model, name, None)
        reveal = getattr(value, "get_secret_value", None)
        if callable(reveal):
            found.add(str(reveal()))
        elif isinstance(value, str) and looks_secret(name):
            found.add(value)
    headers = getattr(model, "default_headers", None)
    if isinstance(headers, Mapping):
        found |= {v for k, v in headers.items() if looks_secret(k) or _looks_random(v)}
    return found


def finish_reason(message: AIMessage) -> str:
    """``stop``, ``length`` (cut off) or ``content_filter`` (withheld), in any provider's words."""
    metadata = message.response_metadata or {}
    for name in _REASONS:
        value = metadata.get(name)
        if isinstance(value, str):
            said = value.lower().removeprefix("finish_reason_")
            if said in _LENGTH:
                return "length"
            return "content_filter" if said in _FILTERED else "stop"
    return "stop"


def why_empty(message: AIMessage) -> str:
    """What an answer without text holds in its place, and how it ended, for people."""
    calls = [*message.tool_calls, *message.invalid_tool_calls]
    said = []
    if calls:
        names = ", ".join(f"'{str(call.get('name'))[:40]}'" for call in calls[:3])
        said.append(f"it calls the tool {names}, and none was offered")
    if any(message.additional_kwargs.get(name) for name in _THOUGHTS):
        said.append("it holds reasoning only")
    metadata = message.response_metadata or {}
    ended = [f"{name} '{str(metadata[name])[:40]}'" for name in _REASONS if metadata.get(name)]
    return f" ({'; '.join(said + ended)})" if said or ended else ""


def texts(messages: Sequence[BaseMessage]) -> Iterator[str]:
    """The texts of messages, and what came beside one: reasoning, a refusal, calls of tools."""
    for message in messages:
        yield str(message.text)
        # Some servers send the same reasoning under two names.
        yield from {v for v in message.additional_kwargs.values() if isinstance(v, str)}
        for name in ("tool_calls", "invalid_tool_calls"):
            yield from (canonical(call.get("args")) for call in getattr(message, name, ()))


def usage(message: AIMessage) -> Usage | None:
    """The service's count of tokens, however large; None where it is none."""
    told = message.usage_metadata
    if not isinstance(told, Mapping):
        return None
    tokens_in = _count(told.get("input_tokens"))
    tokens_out = _count(told.get("output_tokens"))
    if not tokens_in or tokens_out is None:
        return None
    found = told.get("input_token_details")
    details: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    cached, written = _count(details.get("cache_read")), _count(details.get("cache_creation"))
    return Usage(tokens_in, tokens_out, cached or 0, written or 0)


def _plain(content: Any) -> Any:
    if isinstance(content, str):
        return content
    parts: list[Any] = []
    for part in content:
        if isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") == "text"):
            parts.append(part)
        else:
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            parts.append({"type": kind, "sha256": sha(canonical(part))})
    return parts


def _looks_random(value: str) -> bool:
    return len(value) >= 16 and " " not in value


def _count(value: Any) -> int | None:
    sane = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return int(value) if sane else None


def close(model: BaseChatModel) -> None:
    """Close a model's connections; nothing can be asked afterwards."""
    for name in ("root_client", "_client", "client"):
        end = getattr(getattr(model, name, None), "close", None)
        if callable(end):
            end()
            return
