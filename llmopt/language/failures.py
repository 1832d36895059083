"""From whatever a chat model raises to one typed failure.

LangChain, the providers' own clients and the HTTP libraries below them all have exceptions of their
own, and few agree. They are told apart here by status, error code, class name and words, so that no
provider's package has to be imported. The result carries a scrubbed, short message.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from llmopt.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionLost,
    ContentRefused,
    ContextOverflow,
    MalformedResponse,
    QuotaExhausted,
    RateLimited,
    RetryableError,
    ServiceError,
    ServiceModelNotFound,
    ServiceTimeout,
    ServiceUnavailable,
)

_MAX_MESSAGE = 300

_QUOTA_CODES = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "account_deactivated",
    "access_terminated",
    "insufficient_balance",
}
_REFUSAL_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
_QUOTA = re.compile(
    r"exceeded your current quota|credit balance is too low|insufficient (?:quota|balance|credit)"
    r"|out of credits?|billing hard limit",
    re.IGNORECASE,
)
_OVERFLOW = re.compile(
    r"context[ _](?:length|window|size)|maximum context|prompt (?:is )?too long"
    r"|too many (?:input )?tokens"
    r"|exceeds? the (?:maximum|available|model'?s?)[^.]{0,40}(?:tokens|context)"
    r"|reduce the length of the (?:messages|prompt)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"content (?:management )?policy|content[ _]filter|safety system|flagged as (?:potentially )?"
    r"violating|usage polic(?:y|ies)",
    re.IGNORECASE,
)
_SPAN = r"\d+(?:\.\d+)?\s*(?:[a-z]+)?(?:[\s,]*\d+(?:\.\d+)?\s*[a-z]+)*"
_TRY_AGAIN = re.compile(
    r"(?:(?:try again|retry|come back) (?:in|after)|retrydelay\W{1,8}|retry-after\W{1,3})"
    rf"\s*({_SPAN})",
    re.IGNORECASE,
)
_WHOLE_SPAN = re.compile(_SPAN, re.IGNORECASE)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_UNITS = {
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 0.001),
    **dict.fromkeys(("", "s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86400.0),
}
# Nobody waits longer; whatever is beyond is noise.
_LONGEST = 366 * 86400.0
# Seconds since 1970 in place of seconds from now.
_EPOCH = 1e9
_TIMEOUT_NAMES = {"ModelTimeoutError", "APITimeoutError", "TimeoutException", "TimeoutError"}
_CONNECTION_NAMES = {
    "ModelConnectionError",
    "APIConnectionError",
    "TransportError",
    "ConnectionError",
    "IncompleteRead",
    "RemoteDisconnected",
    "SSLError",
}
_UNSUPPORTED = re.compile(
    r"unsupported|not support|does ?n.t support|only the default|unrecognized|unknown|not permitted"
    r"|not allowed|extra_forbidden|deprecated|invalid|unexpected",
    re.IGNORECASE,
)


def as_service_error(
    error: BaseException, service: str, scrub: Callable[[str], str]
) -> ServiceError:
    """The failure behind an exception that a call to ``service`` raised.

    What is not recognised counts as an answer that could not be read: a client that trips over a
    field of the wrong type raises anything from ``KeyError`` to a validation error.
    """
    if isinstance(error, ServiceError):
        return error
    status = _status(error)
    detail = scrub(_message(error))
    kind = _kind(error, status, detail)
    text = f"{service}: {_sentence(kind, status)}{f' ({detail})' if detail else ''}"
    if issubclass(kind, RetryableError):
        pause = retry_after(_headers(error), detail)
        text += f"; it asks to wait {pause:.0f} s" if pause else ""
        return kind(text, service=service, status=status, retry_after=pause)
    return kind(text, service=service, status=status)


def may_be_billed(error: ServiceError) -> bool:
    """Whether a failed call may have cost tokens.

    A service that turns a request away has not worked on it. One that broke off, timed out or sent
    rubbish may have, so its call is charged at the upper bound.
    """
    return isinstance(
        error,
        (ServiceTimeout, ConnectionLost, ServiceUnavailable, MalformedResponse, ContentRefused),
    )


def refused_parameter(error: BaseException, parameters: Mapping[str, Any]) -> str | None:
    """The request parameter a service does not take, if that is why it said no."""
    if _status(error) not in (400, 422):
        return None
    named = getattr(error, "param", None)
    text = _message(error)
    for name in parameters:
        mentioned = named == name or re.search(rf"\b{re.escape(name)}\b", text) is not None
        if mentioned and (named == name or _UNSUPPORTED.search(text)):
            return name
    return None


def retry_after(headers: Mapping[str, str], text: str = "") -> float | None:
    """Seconds a service asks to wait: from its headers, as seconds or a date, or from its words."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, _LONGEST)
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None and _EPOCH <= seconds < 10 * _EPOCH:
        seconds = max(0.0, seconds - datetime.now(UTC).timestamp())
    if seconds is None and value:
        date = _until(value, headers.get("date"))
        seconds = date if date is not None or not _WHOLE_SPAN.fullmatch(value) else _span(value)
    if seconds is None and (match := _TRY_AGAIN.search(text)):
        seconds = _span(match[1])
    return None if seconds is None else min(seconds, _LONGEST)


def _span(text: str) -> float | None:
    """Seconds in a span such as ``1h23m45.6s``, ``2 days`` or ``34``; None if it is none."""
    pieces = []
    for number, unit in _PIECE.findall(text):
        if unit.lower() not in _UNITS:
            break
        pieces.append(float(number) * _UNITS[unit.lower()])
    return sum(pieces) if pieces else None


def _kind(error: BaseException, status: int | None, detail: str) -> type[ServiceError]:
    names = {base.__name__ for base in type(error).__mro__}
    codes = _codes(error)
    if status is not None and 400 <= status < 500:
        comes_back = retry_after(_headers(error), detail) is not None
        kind = _rejected(status, names, codes, detail, comes_back)
        if kind is not None:
            return kind
    if "ContextOverflowError" in names:
        return ContextOverflow
    if codes & _REFUSAL_CODES or "ContentFilterFinishReasonError" in names:
        return ContentRefused
    if status is not None and (status >= 500 or status in (408, 409, 425)):
        return ServiceUnavailable
    if names & _TIMEOUT_NAMES:
        return ServiceTimeout
    if names & _CONNECTION_NAMES:
        return ConnectionLost
    by_name: dict[str, type[ServiceError]] = {
        "ModelAuthenticationError": AuthenticationFailed,
        "ModelPermissionDeniedError": AuthenticationFailed,
        "ModelNotFoundError": ServiceModelNotFound,
        "ModelRateLimitError": RateLimited,
        "ModelInvalidRequestError": BadRequest,
        "ModelAPIError": ServiceUnavailable,
    }
    return next((kind for name, kind in by_name.items() if name in names), MalformedResponse)


def _rejected(
    status: int, names: set[str], codes: set[str], detail: str, comes_back: bool
) -> type[ServiceError] | None:
    """The kind of a 4xx answer, or None for one that is worth another try."""
    # Some services call an ordinary rate limit a quota; those say when to come back.
    limited = status == 429 and comes_back
    if status == 402 or codes & _QUOTA_CODES or (_QUOTA.search(detail) and not limited):
        return QuotaExhausted
    if status == 429:
        return RateLimited
    if status in (408, 409, 425):
        return None
    overflow = "ContextOverflowError" in names or "context_length_exceeded" in codes
    if overflow or status == 413 or (status in (400, 422) and _OVERFLOW.search(detail)):
        return ContextOverflow
    if codes & _REFUSAL_CODES or (status in (400, 403) and _REFUSAL.search(detail)):
        return ContentRefused
    if status in (401, 403):
        return AuthenticationFailed
    return ServiceModelNotFound if status == 404 else BadRequest


def _sentence(kind: type[ServiceError], status: int | None) -> str:
    said = {
        RateLimited: "asks for fewer requests",
        ServiceUnavailable: "could not answer now",
        ServiceTimeout: "did not answer in time",
        ConnectionLost: "the connection failed or broke",
        MalformedResponse: "the answer could not be read",
        AuthenticationFailed: "the key is missing, wrong or lacks permission; check it",
        QuotaExhausted: "the account is out of credit; top it up, then resume",
        ServiceModelNotFound: "does not know this model or address; check --llm and --llm-base-url",
        ContextOverflow: "the conversation is too long for the model",
        ContentRefused: "refuses the content",
        BadRequest: "rejects the request",
    }[kind]
    return f"{said}, HTTP {status}" if status is not None else said


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    for value in (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
        getattr(error, "status", None),
    ):
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
            return value
    return None


def _codes(error: BaseException) -> set[str]:
    """Whatever words the service filed the error under."""
    body = getattr(error, "body", None)
    places: list[Any] = [error, body]
    if isinstance(body, Mapping):
        places.append(body.get("error"))
    found = set()
    for place in places:
        for name in ("code", "type"):
            value = place.get(name) if isinstance(place, Mapping) else getattr(place, name, None)
            if isinstance(value, str):
                found.add(value.lower())
    return found


def _headers(error: BaseException) -> dict[str, str]:
    raw = getattr(getattr(error, "response", None), "headers", None)
    try:
        return {str(k).lower(): str(v) for k, v in dict(raw or {}).items()}
    except (TypeError, ValueError):
        return {}


def _message(error: BaseException) -> str:
    """The error's own words on one line, without the markup of an error page."""
    text = getattr(error, "message", None)
    text = text if isinstance(text, str) and text else str(error)
    text = re.sub(r"<(script|style)\b.*?(?:</\1>|\Z)", " ", text[:20_000], flags=re.S | re.I)
    text = re.sub(r"<[^<>]*>", " ", text)
    text = " ".join(text.split())
    name = type(error).__name__
    if not text or not isinstance(getattr(error, "message", None), str):
        text = f"{name}: {text}" if text else name
    return text if len(text) <= _MAX_MESSAGE else text[: _MAX_MESSAGE - 1] + "…"


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(date: str, now: str | None) -> float | None:
    """Seconds until a date, by the service's own clock where it says what time it has."""
    try:
        then = parsedate_to_datetime(date)
        start = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return max(0.0, (_aware(then) - _aware(start)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
