"""How much room a model leaves for a reply, read from what it says when there is too little."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

LEAST: Final = 256
"""Tokens; a reply with less room is not asked for. The few templates of a turn need about that."""
LIMIT: Final = "max_tokens"
"""What a lowered limit goes by in the journal, whatever the service calls it."""

STATUSES: Final = (None, 400, 413, 422, 500)
"""HTTP statuses that services say it with; None stands for an error without one."""

_ASKED = r"['\"`]?max[_ ]?(?:completion|output|new)?_?tokens['\"`]?"
_NUMBERS = {name: rf"(?P<{name}>\d[\d,]*)" for name in ("context", "prompt", "most", "above")}


def _shape(text: str) -> re.Pattern[str]:
    for name, pattern in {"asked": _ASKED, **_NUMBERS}.items():
        text = text.replace(f"{{{name}}}", pattern)
    return re.compile(text, re.IGNORECASE)


_SHAPES: Final = tuple(
    _shape(text)
    for text in (
        # OpenAI, DeepSeek, llama-cpp-python, vLLM to 0.9
        r"maximum context length (?:is|of) {context} tokens.{0,60}requested [\d,]+ tokens"
        r" \({prompt} (?:in|from|of) ",
        # vLLM from 0.10, and from 0.12
        r"maximum context length (?:is|of) {context} tokens and your request has {prompt} input",
        r"maximum context length (?:is|of) {context} tokens.{0,90}prompt contains"
        r" (?:at least )?{prompt} input",
        # SGLang
        r"maximum context length (?:is|of) {context} tokens.{0,60}tokens: {prompt} tokens from",
        # text-generation-inference
        r"must be <= {context}\. Given: {prompt} `?inputs",
        # Anthropic
        r"exceed context limit: {prompt} \+ [\d,]+ > {context}",
        # Limits of the reply alone: OpenAI, Anthropic, DeepSeek, Groq, Google
        r"{asked} is too large: [\d,]+\. This model supports at most {most} ",
        r"{asked}: [\d,]+ > {most}",
        r"range of {asked} is \[[\d,]+, ?{most}\]",
        r"{asked} must be (?:less than or equal to|<=|at most) `?{most}",
        r"{asked}.{0,60}supported range is from .{0,30} to {above} \(exclusive\)",
    )
)
"""What services say, with the context, the prompt, or the most of a reply in tokens."""
# Without numbers, half is tried.
_TOO_MANY = re.compile(
    rf"{_ASKED}\W.{{0,60}}(?:too (?:large|big|high|many)|exceed|greater|out of range)"
    rf"|(?:too (?:large|big|high)|exceed|reduce|lower|decrease).{{0,60}}{_ASKED}",
    re.IGNORECASE,
)


def for_reply(words: str, asked: int) -> int | None:
    """Tokens that a reply may have, fewer than were asked for; None where that is no way out.

    Args:
        words: of a refusal.
        asked: the limit that was sent.
    """
    room = next(_told(words), None)
    if room is None and _TOO_MANY.search(words):
        room = max(LEAST, asked // 2)
    return room if room is not None and LEAST <= room < asked else None


def _told(words: str) -> Iterator[int]:
    for shape in _SHAPES:
        if match := shape.search(words):
            told = {k: int(v.replace(",", "")[:9]) for k, v in match.groupdict().items()}
            if "most" in told:
                yield told["most"]
            elif "above" in told:
                yield told["above"] - 1
            else:
                yield told["context"] - told["prompt"]


def limit_of(model: BaseChatModel) -> int | None:
    """The most tokens of a reply that a model's requests ask for."""
    found = _places(model)
    return min(found.values()) if found else None


def limited(model: BaseChatModel, most: int) -> dict[str, Any]:
    """The fields to set for replies of at most so many tokens."""
    changes: dict[str, Any] = {}
    for (field, key), _ in _places(model).items():
        changes[field] = {**getattr(model, field), key: most} if key else most
    return changes


def _places(model: BaseChatModel) -> dict[tuple[str, str], int]:
    """Where a model keeps that limit: field, and key in it where it is a table."""
    found: dict[tuple[str, str], Any] = {}
    extra = getattr(model, "extra_body", None) or {}
    for name in (LIMIT, "max_completion_tokens", "max_output_tokens", "num_predict"):
        found[name, ""] = getattr(model, name, None)
        found["extra_body", name] = extra.get(name)
    return {place: value for place, value in found.items() if isinstance(value, int)}
