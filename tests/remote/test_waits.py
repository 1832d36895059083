"""How long to wait is read from whatever a service says, and is never senseless."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from fuzz import fuzz
from hypothesis import strategies as st

from llmopt.remote import waits

HEADERS = st.sampled_from(
    ["retry-after", "retry-after-ms", "date", "x-ratelimit-reset-tokens", "x-ratelimit-reset",
     "x-ratelimit-remaining-tokens", "anthropic-ratelimit-requests-reset", "ratelimit-reset"]
)  # fmt: skip
PIECES = st.sampled_from(
    ["1e308", "-1", "nan", "inf", "9" * 400, "1764201600", "1764201600000", "2s", "1h23m", "and",
     ",", " ", ".", "0", "7", "days", "ms", "try again in ", "retry after ", "resets ", "wait ",
     "Wed, 21 Oct 2026 07:28:30 GMT", "2026-10-21T07:28:30Z", "0001-01-01", "9999-12-31T23:59",
     "retryDelay: '", "+99:99", "\u0663", "\n"]
)  # fmt: skip
WORDS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join))


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
    assert waits.asked(headers, text) == seconds


@fuzz(headers=st.dictionaries(HEADERS, WORDS), text=WORDS)
def test_any_wait_is_a_sane_number_or_none(headers: dict[str, str], text: str) -> None:
    for said in (text, f"try again in {text}", f"retry after {text}"):
        seconds = waits.asked(headers, said)
        assert seconds is None or 0 <= seconds <= waits.LONGEST
        assert seconds is None or len(waits.human(seconds)) < 12


UNITS = st.sampled_from([(n, size) for size, names in waits.UNITS.items() for n in names if n])
NUMBERS = st.one_of(st.integers(0, 99), st.floats(0, 99).map(lambda x: round(x, 2)))
PHRASES = st.sampled_from(
    ["Please try again in {}.", "retry after {}", "'retryDelay': '{}'", "It resets in {}!",
     "Rate limit reached: come back in {}, please", "You must wait {} more"]
)  # fmt: skip


@fuzz(
    parts=st.lists(st.tuples(NUMBERS, UNITS), min_size=1, max_size=4),
    gap=st.sampled_from(["", " "]),
    between=st.sampled_from(["", " ", ", ", " and "]),
    phrase=PHRASES,
    upper=st.booleans(),
)
def test_spans_of_any_make_add_up(
    parts: list[tuple[float, tuple[str, float]]], gap: str, between: str, phrase: str, upper: bool
) -> None:
    span = between.join(f"{number}{gap}{unit}" for number, (unit, _) in parts)
    total = pytest.approx(sum(number * size for number, (_, size) in parts))
    span = span.upper() if upper else span
    assert waits.asked({}, phrase.replace("{}", span)) == total
    for name in ("retry-after", "x-ratelimit-reset-tokens", "ratelimit-reset"):
        assert waits.asked({name: span}) == total


@fuzz(
    ahead=st.integers(0, 86400),
    write=st.sampled_from(
        [lambda t: format_datetime(t, usegmt=True), datetime.isoformat,
         lambda t: str(int(t.timestamp())), lambda t: f"{t.timestamp():.1f}",
         lambda t: str(int(t.timestamp()) * 1000), lambda t: str(int(t.timestamp()) * 10**6)]
    ),
    header=st.sampled_from(["retry-after", "ratelimit-reset", "anthropic-ratelimit-tokens-reset"]),
)  # fmt: skip
def test_points_in_time_of_any_make(ahead: int, write, header: str) -> None:
    now = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
    then = write(now + timedelta(seconds=ahead))
    assert waits.asked({header: then, "date": format_datetime(now, usegmt=True)}) == ahead


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x-ratelimit-reset-requests": "2s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-remaining-tokens": "500",
                "x-ratelimit-reset-tokens": "6m0s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "2s",
            },
            2.0,
        ),
        ({"x-ratelimit-reset-requests": "soon"}, None),
        ({"retry-after": "1", "x-ratelimit-reset-requests": "6m"}, 1.0),
    ],
)
def test_a_limit_that_is_used_up_says_when_it_fills(
    headers: dict[str, str], wait: float | None
) -> None:
    assert waits.asked(headers) == wait


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.25, "0.25 s"), (2.5, "2.5 s"), (34, "34 s"), (300, "5 min"), (5025.6, "83.8 min"),
     (40_000, "11.1 h"), (waits.LONGEST, "366 days")],
)  # fmt: skip
def test_waits_for_people(seconds: float, said: str) -> None:
    assert waits.human(seconds) == said
