"""Exceptions of any origin become one typed failure with a scrubbed sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt import errors
from llmopt.language import remedies, room
from llmopt.remote import failures
from llmopt.remote.scrub import Scrubber

SCRUB = Scrubber(["the-secret-value"], environ={})


class Response:
    """As much of an HTTP response as errors carry."""

    def __init__(self, status: int, headers: dict[str, str] | None) -> None:
        self.status_code = status
        self.headers = headers or {}


class HttpError(Exception):
    """An error with the attributes that clients give theirs."""

    def __init__(self, message: str, response: Response, body: Any) -> None:
        super().__init__(message)
        self.message = message
        self.response = response
        self.body = body


def http_error(
    status: int, body: Any = None, headers: dict[str, str] | None = None, message: str = "no"
) -> Exception:
    return HttpError(message, Response(status, headers), body)


def kind_of(error: BaseException) -> type[errors.ServiceError]:
    return type(failures.as_service_error(error, "test:model", SCRUB))


@pytest.mark.parametrize(
    ("status", "body", "message", "kind"),
    [
        (400, None, "bad", errors.BadRequest),
        (400, {"code": "context_length_exceeded"}, "x", errors.ContextOverflow),
        (400, None, "prompt is too long: 9001 tokens > 8192 maximum", errors.ContextOverflow),
        (400, None, "the request exceeds the available context size", errors.ContextOverflow),
        (413, None, "Payload Too Large", errors.ContextOverflow),
        (400, {"code": "content_filter"}, "x", errors.ContentRefused),
        (400, None, "rejected by our safety system", errors.ContentRefused),
        (400, None, "Your credit balance is too low", errors.QuotaExhausted),
        (401, None, "x", errors.AuthenticationFailed),
        (402, None, "x", errors.QuotaExhausted),
        (403, None, "x", errors.AuthenticationFailed),
        (404, None, "x", errors.ServiceModelNotFound),
        (408, None, "x", errors.ServiceUnavailable),
        (409, None, "x", errors.ServiceUnavailable),
        (422, None, "x", errors.BadRequest),
        (425, None, "x", errors.ServiceUnavailable),
        (429, None, "x", errors.RateLimited),
        (429, {"code": "insufficient_quota"}, "x", errors.QuotaExhausted),
        (429, {"error": {"type": "insufficient_quota"}}, "x", errors.QuotaExhausted),
        (429, None, "You exceeded your current quota. retryDelay: '34s'", errors.RateLimited),
        (429, None, "Exceeded your current quota. Please retry in 2.07s.", errors.RateLimited),
        (429, None, "exceeded your current quota, come back in 3 minutes", errors.RateLimited),
        (429, None, "exceeded your current quota", errors.QuotaExhausted),
        (400, None, "exceeded your current quota, retry in 2 s", errors.QuotaExhausted),
        (500, None, "x", errors.ServiceUnavailable),
        (503, None, "x", errors.ServiceUnavailable),
        (529, None, "overloaded", errors.ServiceUnavailable),
    ],
)
def test_by_status_and_code(status: int, body: Any, message: str, kind: type) -> None:
    error = http_error(status, body, message=message)
    assert kind_of(error) is kind
    assert failures.as_service_error(error, "s", SCRUB).status == status


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ModelAuthenticationError", errors.AuthenticationFailed),
        ("ModelPermissionDeniedError", errors.AuthenticationFailed),
        ("ModelNotFoundError", errors.ServiceModelNotFound),
        ("ModelInvalidRequestError", errors.BadRequest),
        ("ModelRateLimitError", errors.RateLimited),
        ("ModelAPIError", errors.ServiceUnavailable),
        ("ModelConnectionError", errors.ConnectionLost),
        ("ModelTimeoutError", errors.ServiceTimeout),
        ("ContextOverflowError", errors.ContextOverflow),
    ],
)
def test_langchain_errors_of_any_provider(name: str, kind: type) -> None:
    from langchain_core import exceptions

    if not hasattr(exceptions, name):
        pytest.skip("this langchain-core has no such error yet")
    assert kind_of(getattr(exceptions, name)("x")) is kind


def test_errors_of_the_network() -> None:
    httpx = pytest.importorskip("httpx")

    assert kind_of(TimeoutError("x")) is errors.ServiceTimeout
    assert kind_of(httpx.ReadTimeout("x")) is errors.ServiceTimeout
    assert kind_of(ConnectionResetError("x")) is errors.ConnectionLost
    assert kind_of(httpx.RemoteProtocolError("x")) is errors.ConnectionLost


@pytest.mark.parametrize(
    "error",
    [
        json.JSONDecodeError("Expecting value", "<html>", 0),
        KeyError("choices"),
        TypeError("null choices"),
        IndexError("list index out of range"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        RuntimeError(""),
    ],
)
def test_what_a_client_trips_over_is_an_unreadable_answer(error: Exception) -> None:
    failure = failures.as_service_error(error, "test:model", SCRUB)
    assert type(failure) is errors.MalformedResponse
    assert type(error).__name__ in str(failure)


def test_the_message_is_one_short_scrubbed_line() -> None:
    page = "<html><style>b{}</style><body>\n<h1>Bad</h1> the-secret-value\n" + "x" * 999
    text = str(failures.as_service_error(http_error(502, message=page), "test:model", SCRUB))
    assert text.startswith("test:model: could not answer now, HTTP 502 (Bad [secret] xxx")
    assert "\n" not in text
    assert len(text) < 400


def test_a_service_error_stays_itself() -> None:
    error = errors.QuotaExhausted("x")
    assert failures.as_service_error(error, "s", SCRUB) is error


def test_a_quota_with_a_time_to_come_back_is_a_rate_limit() -> None:
    for headers in ({"Retry-After": "2"}, {"retry-after-ms": "900"}, {"Retry-After": "2s"}):
        error = http_error(429, headers=headers, message="You exceeded your current quota")
        assert kind_of(error) is errors.RateLimited


def test_retry_after_reaches_the_failure() -> None:
    error = http_error(429, headers={"Retry-After": "3"})
    failure = failures.as_service_error(error, "s", SCRUB)
    assert isinstance(failure, errors.RateLimited)
    assert failure.retry_after == 3.0
    assert "asks to wait 3 s" in str(failure)


def test_who_may_have_worked_for_it() -> None:
    billed = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, errors.ServiceError)
        and failures.may_be_billed(kind("x"))
    }
    assert billed == {
        "ServiceTimeout",
        "ConnectionLost",
        "ServiceUnavailable",
        "MalformedResponse",
        "ContentRefused",
    }


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("the model is loading", "the model is loading"),
        ({"error": "no such worker"}, "no such worker"),
        ({"detail": "queue full"}, "queue full"),
        ({"message": "told", "error": "less"}, "told"),
        ({"detail": [{"msg": "x"}]}, "Error code: 503"),
        (None, "Error code: 503"),
    ],
)
def test_a_bodys_own_words_are_told_whatever_its_shape(body: Any, says: str) -> None:
    error = http_error(503, body, message="Error code: 503")
    assert str(failures.as_service_error(error, "s", SCRUB)).endswith(f"({says})")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "status", "type", "message", "param", "body"]),
            inner
            | st.sampled_from(["the-secret-value", "max_tokens: 9 > 3", "roles must alternate"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@fuzz(
    status=st.integers(0, 999),
    body=_JSON,
    message=st.text(max_size=20) | _JSON,
    headers=st.dictionaries(
        st.sampled_from(["Retry-After", "Location", "date", "x-ratelimit-reset"]),
        st.text(max_size=9)
        | st.sampled_from(["http://[", "//u:the-secret-value@h/x?k=1", "1e308"]),
    ),
)
def test_any_error_body(status: int, body: Any, message: Any, headers: dict[str, str]) -> None:
    for error in (http_error(status, body, headers, message), ValueError(body)):
        failure = failures.as_service_error(error, "test:model", SCRUB)
        assert isinstance(failure, errors.ServiceError)
        assert "the-secret-value" not in str(failure)
        assert len(str(failure)) < 700
        assert remedies.find(error, remedies.REMEDIES) in {None, *remedies.REMEDIES}
        assert room.for_reply(failures.words_of(error), 4096) in {None, *range(256, 4096)}


def test_a_redirect_with_a_key_in_its_path_is_told_without_it() -> None:
    error = http_error(307, headers={"location": "http://other.example/the-secret-value/v1"})
    error.response.url = "http://here.example/v1/chat/completions"  # type: ignore[attr-defined]
    said = str(failures.as_service_error(error, "s", SCRUB))
    assert "http://other.example/[secret]/v1" in said
    assert "the-secret-value" not in said
