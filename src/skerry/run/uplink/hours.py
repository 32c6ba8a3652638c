"""Quiet hours: spans of the local day at which nothing is sent."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

from skerry.spec.errors import SpecError

Span = tuple[int, int]
"""From and to, in minutes after midnight; one that ends before it begins goes over midnight."""

_DAY = 24 * 60
_SPAN = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)\s*-\s*([01]?\d|2[0-3]):([0-5]\d)")


def read_hours(texts: Sequence[str], *, where: str = "") -> tuple[Span, ...]:
    """Read spans such as ``22:00-06:00``; raises ``SpecError`` for anything else.

    >>> read_hours(["22:00-06:00"])
    ((1320, 360),)
    """
    return tuple(_span(text, where) for text in texts)


def _span(text: str, where: str) -> Span:
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise SpecError(f"{text!r} are no quiet hours", where=where, expected="a span of the day, such as 22:00-06:00")
    hours = [int(part) for part in match.groups()]
    begin, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if begin == end:
        raise SpecError(f"the quiet hours {text!r} end when they begin", where=where, expected="a span of the day")
    return begin, end


def quiet_for(spans: Sequence[Span], minute: float) -> float:
    """Return for how many minutes more it is quiet at ``minute`` of the day; 0 when it is not.

    Spans that follow on each other count as one: whoever waits for the end of one must not wake into the next.

    >>> quiet_for([(1320, 360)], 1380)
    420.0
    """
    total, moved = 0.0, True
    while moved and total < _DAY:
        moved = False
        for begin, end in spans:
            at = (minute + total) % _DAY
            length = (end - begin) % _DAY
            since = (at - begin) % _DAY
            if since < length:
                total += length - since
                moved = True
    return min(total, float(_DAY))


def local_minute() -> float:
    """Return the minutes since midnight, local time."""
    now = time.localtime()
    return now.tm_hour * 60 + now.tm_min + now.tm_sec / 60
