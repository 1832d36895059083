"""From whatever a client of a service raises to one typed failure.

LangChain, the providers' own clients and the HTTP libraries below them all have exceptions of their
own, and few agree. They are told apart here by status, error code, class name and words, so that no
provider's package has to be imported. The result carries a scrubbed, short message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from llmopt.errors import (
    AuthenticationFailed,
    BadRequest,
    ConnectionLost,
    ContentRefused,
    ContextOverflow,
    MalformedResponse,
    NotConnected,
    QuotaExhausted,
    RateLimited,
    Redirected,
    RetryableError,
    ServiceError,
    ServiceModelNotFound,
    ServiceTimeout,
    ServiceUnavailable,
)
from llmopt.remote import waits


@dataclass(frozen=True)
class Ways:
    """What people change where a service does not know what it is asked for.

    Attributes:
        named: the options that name it.
        address: the option that takes another address.
        path: what the client adds to an address.
    """

    named: str
    address: str
    path: str = ""


CHAT: Final = Ways("--llm and --llm-base-url", "--llm-base-url", "/chat/completions")
BOX: Final = Ways("--blackbox", "--blackbox")

_MAX_MESSAGE = 300
_MAX_READ = 20_000

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
    r"context[ _](?:length|window|size|limit)|maximum context|prompt (?:is )?too long"
    r"|too many (?:input )?tokens|`inputs` tokens"
    r"|exceeds? the (?:maximum|available|model'?s?)[^.]{0,40}(?:tokens|context)"
    r"|reduce the length of the (?:messages|prompt)",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"content (?:management )?policy|content[ _]filter|safety system|flagged as (?:potentially )?"
    r"violating|usage polic(?:y|ies)",
    re.IGNORECASE,
)
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
# Of these nothing was sent: no address, nobody there, no free connection.
_UNSENT_NAMES: Final = {
    "ConnectError",
    "ConnectTimeout",
    "PoolTimeout",
    "ProxyError",
    "UnsupportedProtocol",
    "ConnectionRefusedError",
    "NewConnectionError",
    "gaierror",
}
_LIMITED = re.compile(r"rate.?limit|too many requests", re.IGNORECASE)
INSIDE: Final = "llmopt_error_inside"
"""Marks, among the extensions of a response, an error that came with status 200."""
# Where an error says what it is.
_FILED: Final = ("code", "status", "type")
# Errors that come inside an answer with status 200 have a code and no status.
_STATUS_OF_CODE = {
    "rate_limit": 429, "rate_limit_exceeded": 429, "rate_limit_error": 429,
    "too_many_requests": 429, "resource_exhausted": 429, "invalid_api_key": 401,
    "authentication_error": 401, "model_not_found": 404, "invalid_request_error": 400,
    "server_error": 500, "overloaded_error": 529, **dict.fromkeys(_QUOTA_CODES, 402),
    **dict.fromkeys(_REFUSAL_CODES, 400),
}  # fmt: skip
# What clients stumble over, in words.
_STUMBLES = (
    (re.compile(r"^IndexError|choices"), "it holds no choices, so neither a reply nor an error"),
    (re.compile(r"^JSONDecodeError|Unexpected response type"), "it is not JSON"),
)


def as_service_error(
    error: BaseException, service: str, scrub: Callable[[str], str], ways: Ways = CHAT
) -> ServiceError:
    """The failure behind an exception that a call to ``service`` raised.

    What is not recognised counts as an answer that could not be read: a client that trips over a
    field of the wrong type raises anything from ``KeyError`` to a validation error.
    """
    for cause in _causes(error):
        if isinstance(cause, ServiceError):
            return cause
    status, words = status_of(error), words_of(error)
    pause = waits.asked(_headers(error), words)
    kind = _kind(error, status, words, comes_back=pause is not None)
    if kind is NotConnected:
        words = words_of(_unsent(error) or error)  # the client says no more than "connection error"
    detail = scrub(words)
    if len(detail) > _MAX_MESSAGE:
        detail = detail[: _MAX_MESSAGE - 1] + "…"
    if kind is Redirected:
        detail = scrub(_target(error, ways))
    elif kind is MalformedResponse:
        said = (meaning for pattern, meaning in _STUMBLES if pattern.search(detail))
        detail = next((f"{meaning}; {type(error).__name__}" for meaning in said), detail)
    text = f"{service}: {_sentence(kind, status, ways)}{f' ({detail})' if detail else ''}"
    if issubclass(kind, RetryableError):
        text += f"; it asks to wait {waits.human(pause)}" if pause else ""
        failure: ServiceError = kind(text, service=service, status=status, retry_after=pause)
    else:
        failure = kind(text, service=service, status=status)
    failure.unpaid = _came_inside(error)
    return failure


def never_came_back(error: ServiceError) -> bool:
    """Whether a call was sent and not answered: only what it cost at most is known."""
    return isinstance(error, (ServiceTimeout, ConnectionLost)) and not isinstance(
        error, NotConnected
    )


def may_be_billed(error: ServiceError) -> bool:
    """Whether a failed call may have cost tokens.

    A service that turns a request away has not worked on it, nor has one that answers with an error
    in place of a reply. One that broke off, timed out or sent rubbish may have, so its call is
    charged at the upper bound.
    """
    if error.unpaid or isinstance(error, NotConnected):
        return False
    return isinstance(
        error,
        (ServiceTimeout, ConnectionLost, ServiceUnavailable, MalformedResponse, ContentRefused),
    )


def _kind(
    error: BaseException, status: int | None, detail: str, comes_back: bool
) -> type[ServiceError]:
    names = _names(error)
    codes = _codes(error)
    if status is not None and 400 <= status < 500:
        kind = _rejected(status, names, codes, detail, comes_back)
        if kind is not None:
            return kind
    if status is not None and 300 <= status < 400:
        return Redirected
    if "ContextOverflowError" in names:
        return ContextOverflow
    if codes & _REFUSAL_CODES or "ContentFilterFinishReasonError" in names:
        return ContentRefused
    if status is not None and (status >= 500 or status in (408, 409, 425)):
        return ServiceUnavailable
    if _unsent(error) is not None:
        return NotConnected
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


def _sentence(kind: type[ServiceError], status: int | None, ways: Ways) -> str:
    said = {
        RateLimited: "asks for fewer requests",
        ServiceUnavailable: "could not answer now",
        ServiceTimeout: "did not answer in time",
        ConnectionLost: "the connection failed or broke",
        NotConnected: "the connection failed, nothing was sent",
        Redirected: "sends to another address, which is not followed",
        MalformedResponse: "the answer could not be read",
        AuthenticationFailed: "the key is missing, wrong or lacks permission; check it",
        QuotaExhausted: "the account is out of credit; top it up, then resume",
        ServiceModelNotFound: f"does not know this model or address; check {ways.named}",
        ContextOverflow: "the conversation is too long for the model",
        ContentRefused: "refuses the content",
        BadRequest: "rejects the request",
    }[kind]
    return f"{said}, HTTP {status}" if status is not None else said


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error, or the one that its code amounts to."""
    response = getattr(error, "response", None)
    for value in (
        getattr(error, "status_code", None),
        getattr(response, "status_code", None),
        getattr(error, "code", None),
        getattr(error, "status", None),
    ):
        if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
            return value
    inside = _inside(error)
    return status_in(inside) if inside else None


def status_in(error: Mapping[str, Any]) -> int:
    """The HTTP status that an error in the body of an answer amounts to; 500 if it doesn't say."""
    filed = [str(error.get(name)).strip().lower() for name in _FILED]
    for text in filed:
        if re.fullmatch(r"[45]\d\d", text):
            return int(text)
    for text in filed:
        if text in _STATUS_OF_CODE:
            return _STATUS_OF_CODE[text]
    words = str(error.get("message"))[:_MAX_READ]
    return 402 if _QUOTA.search(words) else 429 if _LIMITED.search(words) else 500


def words_of(error: BaseException) -> str:
    """The error's own words on one line, without the markup of an error page."""
    body = getattr(error, "body", None)
    told = body if isinstance(body, Mapping) else {"error": body}
    said = [told.get(name) for name in ("message", "error", "detail")]
    said += [getattr(error, "message", None), _inside(error).get("message")]
    own = next((text for text in said if text and isinstance(text, str)), "")
    text = (own or str(error))[:_MAX_READ]
    text = re.sub(r"<(script|style)\b.*?(?:</\1>|\Z)", " ", text, flags=re.S | re.I)
    text = " ".join(re.sub(r"<[^<>]*>", " ", text).split())
    name = type(error).__name__
    return text if own and text else f"{name}: {text}" if text else name


def _inside(error: BaseException) -> Mapping[str, Any]:
    """An error that came as the body of an answer, which clients raise as it is."""
    inside = error.args[0] if error.args else None
    return inside if isinstance(inside, Mapping) else {}


def _unsent(error: BaseException) -> BaseException | None:
    """The cause by which nothing was sent, if that is so."""
    return next((cause for cause in _causes(error) if _UNSENT_NAMES & _names(cause)), None)


def _came_inside(error: BaseException) -> bool:
    """Whether an error was the body of an answer with status 200."""
    extensions = getattr(getattr(error, "response", None), "extensions", None)
    marked = isinstance(extensions, Mapping) and extensions.get(INSIDE) is True
    return marked or bool(_inside(error))


def _names(error: BaseException) -> set[str]:
    return {base.__name__ for base in type(error).__mro__}


def _target(error: BaseException, ways: Ways) -> str:
    """Where a redirect leads, without what may be secret in it, and what to do about it."""
    response = getattr(error, "response", None)
    try:
        to = urlsplit(urljoin(str(response.url), _headers(error)["location"]))  # type: ignore[union-attr]
        place = f"{to.scheme}://{to.netloc.rpartition('@')[2]}{to.path}"[:_MAX_MESSAGE]
    except (AttributeError, KeyError, ValueError):
        return "it does not say where"
    base = place.removesuffix(ways.path)
    return f"{place}; if you trust it, give that address: {ways.address} {base}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(10):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _codes(error: BaseException) -> set[str]:
    """Whatever words the service filed the error under."""
    body = getattr(error, "body", None)
    places: list[Any] = [error, body, _inside(error)]
    if isinstance(body, Mapping):
        places.append(body.get("error"))
    found = set()
    for place in places:
        for name in _FILED:
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
