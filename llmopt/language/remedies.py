"""What to change when a service refuses the form of a question and not the question itself.

Each model takes a little less than the protocol allows: no temperature, another name for the limit
of a reply, no system role. What was refused once is changed for the rest of the run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from llmopt.remote import failures

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

SYSTEM_ROLE: Final = "system role"

_UNSUPPORTED = (
    r"unsupported|not support|n['’]t support|only the default|unrecognized|unknown|not permitted"
    r"|not allowed|extra_forbidden|deprecated|invalid|unexpected|cannot both"
)


@dataclass(frozen=True)
class Remedy:
    """A refusal and what helps against it.

    Attributes:
        name: of what is refused.
        says: what the service says then.
        statuses: HTTP statuses it says it with; None stands for an error without one.
        doing: for people, after the model's name.
    """

    name: str
    says: re.Pattern[str]
    statuses: Collection[int | None]
    doing: str


def _remedy(name: str, says: str, doing: str = "", *statuses: int | None) -> Remedy:
    doing = doing or f"takes no {name}: asking without it"
    return Remedy(
        name, re.compile(says, re.IGNORECASE | re.MULTILINE), {400, 422, *statuses}, doing
    )


def _left_out(name: str) -> Remedy:
    return _remedy(name, rf"\A(?=.*\b{name}\b)(?=.*(?:{_UNSUPPORTED}))|^\S* {name}\Z")


REMEDIES: Final = {
    remedy.name: remedy
    for remedy in (
        _remedy(
            SYSTEM_ROLE,
            # Chat templates raise it while the prompt is made, which some servers call their fault.
            r"roles? must alternate|must alternate between"
            r"|\b(?:system|developer)\W{1,3}(?:role|message|prompt|instruction)s?\b[^.]{0,40}\bnot\b"
            r"|(?:not|n['’]t) support\w*\W{1,3}(?:the |a |an )?\W?(?:system|developer)\b"
            r"|(?:only|should be|must be)\b[^.]{0,40}\buser\W{1,3}(?:and|or)?\W{0,2}assistant\b"
            r"|(?:unexpected|invalid|unsupported|unknown)\b[^.]{0,20}\brole\b"
            r"|(?:first message|start with)\b[^.]{0,40}\buser\b",
            "knows no system role: its text goes before the first question",
            *(None, 500, 501),
        ),
        _remedy(
            "max_tokens",
            r"(?:use|favou?r of|replaced by|renamed to)\W{1,3}max_completion_tokens"
            r"|max_completion_tokens\W{1,3}instead|^unsupported_parameter max_tokens\Z",
            "takes max_completion_tokens in place of max_tokens: asking so",
        ),
        _remedy(
            "max_completion_tokens",
            rf"\A(?=.*\bmax_completion_tokens\b)(?=.*(?:{_UNSUPPORTED}))",
            "takes max_tokens in place of max_completion_tokens: asking so",
        ),
        *map(_left_out, ("temperature", "seed", "top_p", "response_format", "reasoning_effort")),
    )
}
"""By name, in the order they are tried."""


def find(error: BaseException, possible: Collection[str]) -> str | None:
    """The name of the remedy for what a call raised, among those that can still be taken."""
    status = failures.status_of(error)
    filed = f"{getattr(error, 'code', None) or '-'} {getattr(error, 'param', None) or '-'}"
    words = f"{failures.words_of(error)}\n{filed}"
    for name, remedy in REMEDIES.items():
        if name in possible and status in remedy.statuses and remedy.says.search(words):
            return name
    return None


def changes(model: BaseChatModel) -> dict[str, dict[str, Any]]:
    """What can be changed about a model's requests: by what is refused, the fields to set."""
    extra = dict(getattr(model, "extra_body", None) or {})
    found: dict[str, dict[str, Any]] = {}
    limit = getattr(model, "max_tokens", None)
    if limit is not None and hasattr(model, "extra_body"):
        for name, other in (
            ("max_tokens", "max_completion_tokens"),
            ("max_completion_tokens", "max_tokens"),
        ):
            found[name] = {"max_tokens": None, "extra_body": {**extra, other: limit}}
    for name in REMEDIES:
        if name in extra:
            rest = {key: value for key, value in extra.items() if key != name}
            found[name] = {"extra_body": rest or None}
        elif name not in found and getattr(model, name, None) is not None:
            found[name] = {name: None}
    return found


def two_roles(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The same conversation for models that know two roles, which take turns."""
    from langchain_core.messages import HumanMessage

    turns: list[BaseMessage] = []
    for message in messages:
        turn = HumanMessage(message.content) if message.type == "system" else message
        if turns and turns[-1].type == turn.type:
            turn = type(turn)(_joined(turns.pop().content, turn.content))
        turns.append(turn)
    return turns


def _joined(first: str | list[Any], second: str | list[Any]) -> str | list[Any]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    parts = ([{"type": "text", "text": c}] if isinstance(c, str) else c for c in (first, second))
    return [part for content in parts for part in content]
