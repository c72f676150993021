"""What numbers look like that are no times since 1970: the ways in which other programs count time."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import polars as pl

DAY = 86_400
TENTH = 10**7  # of a microsecond, in a second


class Clock(NamedTuple):
    """How messages call it, its start in seconds since 1970, its steps in a second, and the first year that is meant.

    `what` to do about it.
    """

    name: str
    start: float
    steps: float
    first: int = 1990
    what: str = "convert them to seconds since 1970"

    def bounds(self, latest: datetime) -> tuple[float, float]:
        """The numbers of its first year and of `latest` (in UTC, without a zone)."""
        low, high = (_seconds(moment) - self.start for moment in (datetime(self.first, 1, 1), latest))
        return low * self.steps, high * self.steps


def _seconds(moment: datetime) -> float:
    return (moment - datetime(1970, 1, 1)).total_seconds()


TICKS = Clock("ticks of .NET (100 ns since the year 1)", _seconds(datetime(1, 1, 1)), TENTH, 2002)
COCOA = Clock("seconds since 2001 (Cocoa, Apple)", _seconds(datetime(2001, 1, 1)), 1, 2004)
SPREADSHEET = Clock(
    "day numbers of a spreadsheet", _seconds(datetime(1899, 12, 30)), 1 / DAY, 1980, "let it show them as dates"
)
CLOCKS = (
    TICKS,
    Clock("file times of Windows (FILETIME, 100 ns since 1601)", _seconds(datetime(1601, 1, 1)), TENTH),
    Clock("microseconds since 1601 (Chrome, WebKit)", _seconds(datetime(1601, 1, 1)), 10**6),
    COCOA,
    Clock("seconds since 1900 (NTP) or 1904 (Mac)", _seconds(datetime(1900, 1, 1)), 1),
    SPREADSHEET,
    Clock("Julian days", -2_440_587.5 * DAY, 1 / DAY),
    Clock("days since 1970", 0, 1 / DAY),
    Clock("hours since 1970", 0, 1 / 3600),
    Clock("minutes since 1970", 0, 1 / 60),
)


def looks_like(numbers: pl.Series, latest: datetime) -> Clock | None:
    """The clock by which all numbers, but 0 and -1, are times until `latest`."""
    given = numbers.filter((numbers != 0) & (numbers != -1))
    if given.is_empty():
        return None
    return next((clock for clock in CLOCKS if given.is_between(*clock.bounds(latest)).all()), None)


def before_cocoa(latest: datetime) -> float:
    """The second since 1970 before which all times may as well be seconds since 2001."""
    return COCOA.bounds(latest)[1]
