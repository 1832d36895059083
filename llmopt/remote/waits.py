"""How long a service asks to wait, in all the ways that services say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST: Final = 366 * 86400.0
"""Seconds; nobody waits longer, whatever is asked for."""

UNITS: Final = {
    0.001: ("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"),
    1.0: ("", "s", "sec", "secs", "second", "seconds"),
    60.0: ("m", "min", "mins", "minute", "minutes"),
    3600.0: ("h", "hr", "hrs", "hour", "hours"),
    86400.0: ("d", "day", "days"),
}
"""Names of units by their seconds."""
# From these numbers to ten times them: a point in time since 1970, in seconds or parts of one.
_EPOCHS: Final = {1e9: 1.0, 1e12: 1e3, 1e15: 1e6, 1e18: 1e9}
# When a used-up limit fills again, and what is left of it.
_RESETS: Final = (
    "x-ratelimit-{}-requests", "x-ratelimit-{}-tokens", "anthropic-ratelimit-requests-{}",
    "anthropic-ratelimit-tokens-{}", "x-ratelimit-{}", "ratelimit-{}",
)  # fmt: skip

_SECONDS = {name: seconds for seconds, names in UNITS.items() for name in names}
_PIECE = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]*)")
_SPAN = r"\d+(?:\.\d+)? ?[a-z]*(?: ?\d+(?:\.\d+)? ?[a-z]+)*"
_BETWEEN = re.compile(r"(?:\s|,(?!\d)|(?<=\s)and(?=\s))+")
_WHOLE_SPAN = re.compile(_SPAN)
_TRY_AGAIN = re.compile(
    r"(?:(?:try again|retry|come back|available(?: again)?|resets?|wait) (?:in|after|for|at least)?"
    rf"|retry[-_]?delay\W{{1,8}}|retry[-_]?after\W{{1,8}}) ?({_SPAN})"
)


def asked(headers: Mapping[str, str], text: str = "") -> float | None:
    """Seconds a refusal asks to wait, at most :data:`LONGEST`; None if it does not say.

    Args:
        headers: of the answer, names in lower case.
        text: its words.
    """
    now = headers.get("date", "")
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return min(milliseconds / 1000, LONGEST)
    said = seconds(headers.get("retry-after", ""), now)
    if said is None and (found := _TRY_AGAIN.search(_even(text))):
        said = seconds(found[1])
    if said is None:
        resets = [
            seconds(headers[form.format("reset")], now)
            for form in _RESETS
            if form.format("reset") in headers
            and not _number(headers.get(form.format("remaining"), ""))
        ]
        said = max((one for one in resets if one is not None), default=None)
    return said


def seconds(text: str, now: str = "") -> float | None:
    """Seconds from now, at most :data:`LONGEST`; None if unclear.

    Args:
        text: a number of seconds, a span such as ``1h23m45.6s`` or ``2 days``, a date, or a point
            in time since 1970 in seconds or less.
        now: what time the service has, as a date; by default the time here.
    """
    number = _number(text)
    if number is None and _WHOLE_SPAN.fullmatch(span := _even(text)):
        number = _span(span)
    elif number is None:
        number = _until(text, now)
    else:
        for start, parts in _EPOCHS.items():
            if start <= number < 10 * start:
                number = max(0.0, number / parts - _clock(now).timestamp())
    return None if number is None else min(number, LONGEST)


def human(wait: float) -> str:
    """A wait for people: ``2.5 s``, ``5 min``, ``3.2 h``, ``366 days``."""
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if wait >= 2 * size:
            return f"{wait / size:.3g} {name}"
    return f"{wait:.0f} s" if wait >= 10 else f"{wait:.2g} s"


def _even(text: str) -> str:
    """In lower case, with one blank between pieces."""
    return _BETWEEN.sub(" ", text.lower()).strip()


def _number(text: str) -> float | None:
    """A finite number from 0, however large; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _span(text: str) -> float | None:
    """The sum of its pieces up to the first whose unit is none."""
    total = None
    for number, unit in _PIECE.findall(text):
        if unit not in _SECONDS:
            break
        total = (total or 0.0) + float(number) * _SECONDS[unit]
    return total


def _until(date: str, now: str) -> float | None:
    then = _date(date)
    return None if then is None else max(0.0, (then - _clock(now)).total_seconds())


def _clock(now: str) -> datetime:
    return _date(now) or datetime.now(UTC)


def _date(text: str) -> datetime | None:
    """A date as HTTP or ISO 8601 write it."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(text)
            return date if date.tzinfo else date.replace(tzinfo=UTC)
        except (TypeError, ValueError, OverflowError):
            continue
    return None
