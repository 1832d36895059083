"""Exceptions of any origin become one typed failure with a scrubbed sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmopt import errors
from llmopt.language import failures
from llmopt.language.scrub import Scrubber

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


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"retry-after": "7"}, "", 7.0),
        ({"retry-after": " 0.5 "}, "", 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, "", 0.25),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            "",
            30.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, "", 0.0),
        ({}, "Please try again in 7.5s.", 7.5),
        ({}, "Please try again in 120ms.", 0.12),
        ({}, "try again in 2m", 120.0),
        ({}, "'retryDelay': '34s'", 34.0),
        ({}, "Please try again in 1h23m45.6s.", 5025.6),
        ({}, "try again in 2 days", 172800.0),
        ({}, "Please retry in 2.07s", 2.07),
        ({}, "come back in 1 hour, 30 minutes", 5400.0),
        ({}, "try again in 20 s, 3 of 5 are used", 20.0),
        ({}, "try again in a while", None),
        ({"retry-after": "2s"}, "", 2.0),
        ({"retry-after": "1m30s"}, "", 90.0),
        ({"retry-after": "soon"}, "try again in 4s", 4.0),
        ({"retry-after": "1e308"}, "", 31622400.0),
        ({"retry-after": "1000000001"}, "", 0.0),
        ({"retry-after-ms": "1e308"}, "", 31622400.0),
        ({"retry-after": "soon"}, "", None),
        ({"retry-after": "-1"}, "", None),
        ({"retry-after": "nan"}, "", None),
        ({"retry-after": "inf"}, "", None),
        ({"retry-after": "Wed, 99 Oct 2026 07:28:30 GMT"}, "", None),
        ({}, "", None),
    ],
)
def test_retry_after(headers: dict[str, str], text: str, seconds: float | None) -> None:
    assert failures.retry_after(headers, text) == seconds


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_wait_is_a_sane_number_or_none(header: str, text: str) -> None:
    for said in (text, f"try again in {text}", f"retry after {text}"):
        seconds = failures.retry_after({"retry-after": header}, said)
        assert seconds is None or 0 <= seconds <= 366 * 86400


SPANS = st.lists(
    st.tuples(st.integers(0, 99), st.sampled_from(["h", " minutes", "m", "s", " sec", "ms", "d"])),
    min_size=1,
    max_size=4,
)


@given(SPANS, st.sampled_from(["", " ", ", "]))
def test_spans_of_any_make_add_up(parts: list[tuple[int, str]], between: str) -> None:
    sizes = {"h": 3600, "minutes": 60, "m": 60, "s": 1, "sec": 1, "ms": 0.001, "d": 86400}
    text = between.join(f"{number}{unit}" for number, unit in parts)
    total = sum(number * sizes[unit.strip()] for number, unit in parts)
    assert failures.retry_after({}, f"Please try again in {text}") == pytest.approx(total)
    assert failures.retry_after({"retry-after": text}) == pytest.approx(total)


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


@pytest.mark.parametrize(
    ("status", "message", "name"),
    [
        (400, "Unsupported value: 'temperature' does not support 0.7", "temperature"),
        (400, "`temperature` is deprecated for this model.", "temperature"),
        (422, "body.seed: Extra inputs are not permitted (extra_forbidden: seed)", "seed"),
        (400, "'response_format' of type 'json_schema' is not supported", "response_format"),
        (400, "something else is invalid", None),
        (400, "the temperature in the room is nice", None),
        (500, "Unsupported value: 'temperature'", None),
    ],
)
def test_refused_parameter(status: int, message: str, name: str | None) -> None:
    sent = {"temperature": {}, "seed": {}, "response_format": {}}
    assert failures.refused_parameter(http_error(status, message=message), sent) == name


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
