"""Dates as people write them, `27-04-2015`: what Python's strptime reads in them, by polars wherever that is the same.

A pattern of the directives below becomes a regular expression whose groups are put together as an ISO date. Texts that
it does not match, and patterns with other directives, go through strptime itself, which reads a hundred times slower.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise, product
from typing import NamedTuple

import polars as pl

DIGIT = "9"
BATCH = 1 << 16  # rows that go through Python at once
DIGITS = {"d": 2, "m": 2, "Y": 4, "y": 2, "H": 2, "I": 2, "M": 2, "S": 2, "f": 6}  # directive -> at most so many
WORDS = {"b": "[A-Za-z]{3}", "B": "[A-Za-z]{3,9}", "p": "[AaPp][Mm]", "z": "Z|[+-][0-9]{2}:?[0-5][0-9]"}
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
DAYS = (
    *[f"%d{s}%m{s}%Y" for s in "-/. "],
    *[f"%m{s}%d{s}%Y" for s in "-/. "],
    *[f"%Y{s}%m{s}%d" for s in "-/."],
    *[f"%d{s}%m{s}%y" for s in "-/."],
    *[f"%m{s}%d{s}%y" for s in "-/."],
    *("%d %b %Y", "%d-%b-%Y", "%d/%b/%Y", "%d-%b-%y", "%d. %b %Y", "%b %d %Y", "%b %d, %Y"),
    *("%d %B %Y", "%d. %B %Y", "%B %d %Y", "%B %d, %Y", "%a, %d %b %Y", "%a %d %b %Y"),
)
CLOCKS = (
    *("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p", ", %H:%M", ", %H:%M:%S"),
    *("T%H:%M:%S", " %H:%M:%S %z", ":%H:%M:%S %z", ":%H:%M:%S", " %H.%M"),
    *("T%H:%M", " %H:%M UTC", " %H:%M:%S UTC", " %H:%M:%S.%f UTC", " %H:%M:%S GMT"),
)
USUAL = (*map("".join, product(DAYS, CLOCKS)), "%a %b %d %H:%M:%S %Y", "%a %b %d %H:%M:%S %z %Y")
RUNS_OF_DIGITS = {
    8: ("%Y%m%d", "%d%m%Y", "%m%d%Y"),
    10: ("%Y%m%d%H",),
    12: ("%Y%m%d%H%M",),
    14: ("%Y%m%d%H%M%S",),
    17: ("%Y%m%d%H%M%S%f",),  # of milliseconds
    20: ("%Y%m%d%H%M%S%f",),
}
ZONED = datetime(2015, 4, 27, 14, 5, tzinfo=UTC)


class Quick(NamedTuple):
    """A pattern as a regular expression, and the directive of each of its groups."""

    regex: str
    directives: list[str]


def pattern_fault(pattern: str) -> str:
    """Why strptime could not read whole dates by this pattern; nothing if it can."""
    if "%" not in pattern:
        return "expected a pattern of strptime, such as %d-%m-%Y for 27-04-2015"
    if "%Z" in pattern:
        return "names of time zones (%Z) are ambiguous; expected %z, or none for UTC"
    try:
        found = datetime.strptime(ZONED.strftime(pattern), pattern)
    except (ValueError, re.error):
        return "strptime cannot read dates by this pattern; expected one such as %d-%m-%Y"
    if found.date() != ZONED.date():
        return "expected day, month and year in it, such as %d-%m-%Y"
    return ""


def by_pattern(text: str, pattern: str) -> datetime | None:
    """The moment in UTC, without a zone, that strptime reads in a text; None for none."""
    try:
        moment = datetime.strptime(text, pattern)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


def moments(texts: pl.Series, pattern: str) -> pl.Series:
    """What `by_pattern` reads in each of the texts (microseconds); null where that is nothing."""
    quick = _quick(pattern)
    if quick is None:
        return _by_python(texts, pattern)
    groups = texts.str.extract_groups(quick.regex).struct.unnest()
    groups.columns = quick.directives
    found = groups.lazy().select(_moment(quick.directives)).collect().to_series()
    others = groups.to_series().is_null().arg_true()
    return found.scatter(others, _by_python(texts[others], pattern)) if len(others) else found


def _by_python(texts: pl.Series, pattern: str) -> pl.Series:
    found = [pl.Series([], dtype=pl.Datetime("us"))]
    for start in range(0, len(texts), BATCH):
        piece = texts[start : start + BATCH]
        read = {text: by_pattern(text, pattern) for text in piece.unique() if text is not None}
        found.append(pl.Series([read.get(text) for text in piece], dtype=pl.Datetime("us")))
    return pl.concat(found)


def _quick(pattern: str) -> Quick | None:
    """None where the expression might read a text otherwise than strptime."""
    parts = [part for part in re.split(r"(%.)", pattern) if part]
    directives = [part[1:] for part in parts if part.startswith("%") and part != "%%"]
    literals = [part for part in parts if not part.startswith("%")]
    known = set(directives) <= {*DIGITS, *WORDS} and len(set(directives)) == len(directives)
    whole = {"d"} <= set(directives) and len({"m", "b", "B"} & set(directives)) == len(
        {"Y", "y"} & set(directives)
    ) == 1
    clock = ("I" in directives) == ("p" in directives) and not {"H", "I"} <= set(directives)
    if not (known and whole and clock) or any(character.isdigit() for text in literals for character in text):
        return None
    touching = {place for pair in pairwise(range(len(parts))) if _digits(parts, *pair) for place in pair}
    return Quick(f"^{''.join(_expression(part, place in touching) for place, part in enumerate(parts))}$", directives)


def _digits(parts: list[str], *places: int) -> bool:
    return all(parts[place].startswith("%") and parts[place][1:] in DIGITS for place in places)


def _expression(part: str, touching: bool) -> str:
    """A part of a pattern as a regular expression; where digits touch digits, only all of them are told apart."""
    if not part.startswith("%") or part == "%%":
        return re.escape(part.replace("%%", "%"))
    if part[1:] in WORDS:
        return f"({WORDS[part[1:]]})"
    most = DIGITS[part[1:]]
    return f"([0-9]{{{most}}})" if touching or part in ("%Y", "%y") else f"([0-9]{{1,{most}}})"


def _moment(directives: list[str]) -> pl.Expr:
    """The moment of the groups' texts, null for one that does not exist."""
    day = pl.col("d").str.zfill(2)
    iso = pl.concat_str(_year(directives), _month(directives), day, separator="-")
    clock = [_hour(directives), *[pl.col(each).str.zfill(2) if each in directives else pl.lit("00") for each in "MS"]]
    moment = pl.concat_str(iso, pl.concat_str(clock, separator=":"), separator="T").str.to_datetime(
        "%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us"
    )
    if "S" in directives:
        moment = pl.when(pl.col("S").cast(pl.Int32) < 60).then(moment)
    moment = pl.when(moment.dt.year() > 0).then(moment)
    if "f" in directives:
        moment += pl.duration(microseconds=pl.col("f").str.pad_end(6, "0").cast(pl.Int64), time_unit="us")
    if "z" in directives:
        moment = _in_utc(moment)
    return pl.when(moment.dt.year().is_between(1, 9999)).then(moment)


def _year(directives: list[str]) -> pl.Expr:
    if "Y" in directives:
        return pl.col("Y")
    century = pl.when(pl.col("y").cast(pl.Int32) < 69).then(pl.lit("20")).otherwise(pl.lit("19"))
    return century + pl.col("y").str.zfill(2)


def _month(directives: list[str]) -> pl.Expr:
    if "m" in directives:
        return pl.col("m").str.zfill(2)
    name = "b" if "b" in directives else "B"
    numbers = {month[:3] if name == "b" else month: f"{place:02}" for place, month in enumerate(MONTHS, 1)}
    return pl.col(name).str.to_lowercase().replace_strict(numbers, default=None, return_dtype=pl.String)


def _hour(directives: list[str]) -> pl.Expr:
    if "H" in directives:
        return pl.col("H").str.zfill(2)
    if "I" not in directives:
        return pl.lit("00")
    hour = pl.col("I").cast(pl.Int32)
    afternoon = pl.col("p").str.to_lowercase() == "pm"
    whole = hour % 12 + pl.when(afternoon).then(12).otherwise(0)
    return pl.when(hour.is_between(1, 12)).then(whole.cast(pl.String).str.zfill(2))


def _in_utc(moment: pl.Expr) -> pl.Expr:
    zone = pl.col("z").str.replace("Z", "+00:00", literal=True).str.replace(":", "", literal=True)
    hours, minutes = (zone.str.slice(start, 2).cast(pl.Int64) for start in (1, 3))
    east = pl.when(zone.str.starts_with("-")).then(-1).otherwise(1) * (hours * 60 + minutes)
    return pl.when(hours < 24).then(moment - pl.duration(minutes=east, time_unit="us"))


def fitting(texts: pl.Series, earliest: datetime, latest: datetime) -> list[str]:
    """Of the usual patterns those by which most of the texts, and equally many, are dates in the range.

    None below half of the texts, and of several that read the same in them the first.
    """
    found = {pattern: moments(texts, pattern) for pattern in _alike(texts)}
    counts = {pattern: int(read.is_between(earliest, latest).sum()) for pattern, read in found.items()}
    best = max(counts.values(), default=0)
    fit: list[str] = []
    for pattern in found:
        if counts[pattern] == best > len(texts) / 2 and not any(found[pattern].equals(found[each]) for each in fit):
            fit.append(pattern)
    return fit


def _alike(texts: pl.Series) -> list[str]:
    """The usual patterns that look as one of the first texts does; of digits alone their number tells."""
    first = texts.head(5).to_list()
    looks = {_look(text) for text in first}
    runs = [pattern for length in sorted({len(text) for text in first}) for pattern in RUNS_OF_DIGITS.get(length, ())]
    return [pattern for pattern in USUAL if _look(ZONED.strftime(pattern)) in looks] + (runs if DIGIT in looks else [])


def _look(text: str) -> str:
    """A text with all its numbers and words the same, and zones as if they were west of Greenwich."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"[0-9]+", DIGIT, text)).replace("+", "-")


def both_ways(patterns: list[str]) -> Iterator[str]:
    """The patterns with what comes first in them, in words."""
    for pattern in patterns:
        first = {"d": "day", "m": "month", "Y": "year", "y": "year"}.get(pattern[1], "name")
        yield f'"{pattern}" ({first} first)'
