"""Times of a user's own log: what a column of them means, decided once for the whole of it.

Numbers since 1970 are in the unit (seconds, milli-, micro- or nanoseconds) in which most of them lie between 1990 and
tomorrow; no number lies there in two units. Texts are numbers, ISO 8601 dates (UTC unless they say otherwise), or dates
as people write them, by a `format` that the user states. Values that do not fit the decision, and times outside that
range, are bad rows; where a twentieth of the column is in another unit, or nothing fits, the column is refused.
Fractions of a second are kept beside the whole seconds, so that rows of the same second still sort by time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, NoReturn

import numpy as np
import polars as pl

from iadsr.errors import UserError
from iadsr.ingest.columns import nothing
from iadsr.ingest.other_clocks import COCOA, TICKS, before_cocoa, looks_like
from iadsr.ingest.rejects import Faults
from iadsr.ingest.written_dates import both_ways, fitting, moments
from iadsr.schemas import NANOSECOND, TIMESTAMP

Unit = Literal["auto", "seconds", "milliseconds", "microseconds", "nanoseconds"]
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}  # in a second
SECOND = UNITS["nanoseconds"]
EARLIEST = datetime(1990, 1, 1)
MIXED = 0.05  # the share of another unit from which a column is refused, whatever is tolerated
SAMPLE = 1000  # values that are looked at for advice
PYTHON_BATCH = 1 << 16  # rows that go through Python's own parser of dates at once
# Nearly all dates in the world: a day, or a day and a time in whole seconds, in UTC.
PLAIN_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}:[0-5][0-9]Z?)?$"
SCIENTIFIC = r"^[+-]?[0-9]+([.,][0-9]+)?[eE][+-]?[0-9]+$"
UNLIKE = "unlike the rest of its column"
LONG = 40  # characters of a value in a message
MOMENTS = {TIMESTAMP: pl.Int64, NANOSECOND: pl.Int32}
NO_TIMES = "leave out columns.timestamp, and the order of the file counts"


class TimeRules(NamedTuple):
    """What a user says of his times (`unit`, `format`), and the present, after which there are none."""

    unit: Unit = "auto"
    format: str | None = None
    now: datetime | None = None  # None: the machine's

    @property
    def latest(self) -> datetime:
        now = self.now or datetime.now(UTC)
        return now.astimezone(UTC).replace(tzinfo=None) + timedelta(days=1)

    def bounds(self) -> tuple[int, int]:
        """The first and the last second that is a time."""
        return _second(EARLIEST), _second(self.latest)


def _second(moment: datetime) -> int:
    return int(moment.replace(tzinfo=UTC).timestamp())


class Column(NamedTuple):
    """A column of times: its values, how messages name it, the rules for it, and where its bad rows go."""

    values: pl.Series
    label: str
    rules: TimeRules
    faults: Faults
    decimal_comma: bool = False
    notes: list[str] | None = None  # for the user to read; None: nobody asks


def times(column: Column) -> pl.DataFrame:
    """timestamp, whole seconds since 1970 by the rule of this module's docstring, and nanosecond, what is past it.

    Both are null where a value does not fit the rule. UserError if the rule does not fit the column.
    """
    values = column.values
    if values.is_empty():
        return pl.DataFrame(schema=MOMENTS)
    if values.dtype.is_float():
        column = column._replace(values=values.fill_nan(None))
    if column.rules.format is not None:
        return _by_format(column, column.rules.format)
    if values.dtype.is_numeric():
        exact = (lambda: pl.DataFrame({"whole": values.cast(pl.Int64)})) if values.dtype.is_integer() else None
        return _from_numbers(column, _finite(values.cast(pl.Float64)), exact)
    return _from_texts(column)


def plausible(found: pl.DataFrame, column: Column) -> pl.DataFrame:
    """Moments (columns as of `times`) without those before 1990 and after tomorrow, which are bad rows."""
    seconds, (low, high) = found[TIMESTAMP], column.rules.bounds()
    good = seconds.is_between(low, high)
    if good.all():  # nulls are ignored
        return found
    if not good.any():
        moments = (_written(second) for second in seconds.drop_nulls().head(3))
        raise UserError(
            f"{column.label}: no time lies between 1990 and today (found {', '.join(moments)}); correct the column, or "
            f"{NO_TIMES}"
        )
    wrong = (~good).fill_null(False).arg_true()
    early = seconds[wrong] < low
    column.faults.add(wrong.to_numpy(), _whether(early, _before(), _after(column)))
    return found.with_columns(pl.when(pl.lit(good)).then(pl.all()))


def _written(second: int) -> str:
    return str(np.datetime64(second, "s")).replace("T", " ")


def _whether(condition: pl.Series, yes: str, no: str) -> pl.Series:
    return pl.select(pl.when(condition).then(pl.lit(yes)).otherwise(pl.lit(no))).to_series()


def _before() -> str:
    return f"{TIMESTAMP} is before 1990"


def _after(column: Column) -> str:
    return f"{TIMESTAMP} is in the future (after {column.rules.latest:%Y-%m-%d})"


def _streamed(values: pl.Series, *expressions: pl.Expr) -> pl.DataFrame:
    """What is computed from one column, row by row, without holding anything between it and the results."""
    return values.to_frame().lazy().select(expressions).collect(engine="streaming")


def _finite(numbers: pl.Series) -> pl.Series:
    number = pl.col(numbers.name)
    return _streamed(numbers, pl.when(number.is_finite()).then(number))[numbers.name]


# --- dates ---


def _by_format(column: Column, pattern: str) -> pl.DataFrame:
    values = column.values
    if values.dtype.is_float():
        values = values.cast(pl.Int64, strict=False)
    texts = values.cast(pl.String).str.strip_chars()
    found = moments(texts, pattern.strip())
    if nothing(texts.fill_null("")).all():
        _refuse_empty(column)
    if not found.count():
        raise UserError(f"{column.label}: no value reads as {pattern!r} (found {_few(texts)}); correct `format`")
    _note_unread(column, texts, found.is_null(), f"{TIMESTAMP} does not read as {pattern}")
    return plausible(_split(found), column)


def _from_texts(column: Column) -> pl.DataFrame:
    """Numbers, if at least as many values read as numbers as read as ISO dates."""
    whole_numbers = _all_whole(column.values)
    if whole_numbers is not None:
        return times(column._replace(values=whole_numbers))
    numbers = _streamed(column.values, _number(_text(column)).alias("number"))["number"]
    others = numbers.is_null().arg_true()
    if not len(others):
        return _from_number_texts(column, numbers)
    texts = _streamed(column.values[others], _stripped(column).alias("text"))["text"]
    dates = iso_dates(texts)
    unread = texts.filter(dates.is_null() & ~nothing(texts))
    _refuse_unreadable(column, unread, numbers.count(), dates.count())
    if len(unread) > MIXED * dates.count():
        _refuse_nearly_iso(column, unread, texts.filter(dates.is_not_null()))
    if dates.count() > numbers.count():
        column.faults.add(numbers.is_not_null().arg_true().to_numpy(), f"{TIMESTAMP} is no date, {UNLIKE}")
        _note_unread(column, texts, dates.is_null(), f"{TIMESTAMP} is no ISO date, {UNLIKE}", others)
        whole = pl.repeat(None, len(numbers), dtype=dates.dtype, eager=True)
        none = pl.repeat(0, len(numbers), dtype=pl.Int32, eager=True)
        return plausible(_split(whole.scatter(others, dates), none.scatter(others, _beyond(texts))), column)
    _note_unread(column, texts, pl.repeat(True, len(texts), eager=True), f"{TIMESTAMP} is no number, {UNLIKE}", others)
    return _from_number_texts(column, numbers)


def _all_whole(texts: pl.Series) -> pl.Series | None:
    """The texts as integers if they all are, as in most logs; what else they might be need not be asked then."""
    if texts.head(SAMPLE).cast(pl.Int64, strict=False).null_count():
        return None
    numbers = texts.cast(pl.Int64, strict=False)
    return None if numbers.null_count() else numbers


def _refuse_unreadable(column: Column, unread: pl.Series, numbers: int, dates: int) -> None:
    """UserError if numbers were rounded by a spreadsheet, or if most values are neither numbers nor ISO dates."""
    given = len(unread) + numbers + dates
    if not given:
        _refuse_empty(column)
    rounded = unread.filter(unread.str.contains(SCIENTIFIC))
    if len(rounded) > MIXED * given:
        raise UserError(
            f"{column.label}: {len(rounded):,} of {given:,} times are numbers that a spreadsheet has rounded (found "
            f"{_few(rounded)}); let it show the column as whole numbers, and save again"
        )
    if len(unread) > max(numbers, dates):
        _refuse_written(column, unread)
    if given and not numbers and not dates:
        raise UserError(
            f"{column.label}: no value is a time (found {_few(unread)}); expected ISO dates or numbers since 1970, or "
            f"dates for which `format` states the pattern, or {NO_TIMES}"
        )


def _refuse_nearly_iso(column: Column, unread: pl.Series, dates: pl.Series) -> None:
    """UserError if a `format` reads the unread texts and the ISO dates beside them: an hour of one digit, `9:05`."""
    if len(dates):
        fit = fitting(sample(unread), EARLIEST, column.rules.latest)
        beside = sample(dates)
        _refuse_fitting(column, unread, [pattern for pattern in fit if moments(beside, pattern).count() == len(beside)])


def _refuse_empty(column: Column) -> NoReturn:
    raise UserError(f"{column.label}: no time in it; {NO_TIMES}")


def _refuse_written(column: Column, texts: pl.Series) -> None:
    """UserError if these texts are dates as people write them: which `format` reads them?"""
    _refuse_fitting(column, texts, fitting(sample(texts), EARLIEST, column.rules.latest))


def _refuse_fitting(column: Column, texts: pl.Series, fit: list[str]) -> None:
    if len(fit) == 1:
        raise UserError(
            f'{column.label}: {_few(texts, 1)} looks like a date; set `format: "{fit[0]}"` beside `columns` in '
            "params.yaml"
        )
    if fit:
        raise UserError(
            f"{column.label}: dates such as {_few(texts)} are ambiguous; set `format` beside `columns` in params.yaml "
            f"to {' or '.join(both_ways(fit))}"
        )


def sample(values: pl.Series) -> pl.Series:
    """Some of the values, from the whole of the column."""
    return values.gather_every(-(-len(values) // SAMPLE)) if len(values) else values


def _few(values: pl.Series, count: int = 3) -> str:
    """The first different ones of some values, none of them long."""
    different = values.drop_nulls().head(SAMPLE).unique(maintain_order=True).head(count)
    return ", ".join(repr(value[:LONG]) if isinstance(value, str) else _digits(value) for value in different)


def _digits(number: float) -> str:
    """A number as a message shows it: of one that is whole and not too long all digits."""
    return f"{number:.0f}" if abs(number) < 2**64 and number == int(number) else f"{number:.15g}"


def _stripped(column: Column) -> pl.Expr:
    return pl.col(column.values.name).cast(pl.String).str.strip_chars().fill_null("")


def _text(column: Column) -> pl.Expr:
    text = _stripped(column)
    return text.str.replace(",", ".", literal=True) if column.decimal_comma else text


def _number(text: pl.Expr) -> pl.Expr:
    """A plain number, null for anything else, also for one in the notation of a spreadsheet."""
    number = text.cast(pl.Float64, strict=False)
    exponent = text.str.contains("e", literal=True) | text.str.contains("E", literal=True)
    return pl.when(number.is_finite() & ~exponent).then(number)


def _note_unread(
    column: Column, texts: pl.Series, unread: pl.Series, why: str | pl.Series, rows: pl.Series | None = None
) -> None:
    """Add what could not be read to the faults; `rows` are the places of the texts in the column."""
    places = unread.arg_true()
    if not len(places):
        return
    found = texts[places]
    reasons = pl.select(
        pl.when(nothing(found.fill_null("")))
        .then(pl.lit(f"{TIMESTAMP} is missing"))
        .when(found.str.contains(SCIENTIFIC))
        .then(pl.lit(f"{TIMESTAMP} is a number that a spreadsheet has rounded"))
        .otherwise(pl.lit(why) if isinstance(why, str) else why[places])
    ).to_series()
    column.faults.add((places if rows is None else rows[places]).to_numpy(), reasons)


def _split(dates: pl.Series, beyond: pl.Series | int = 0) -> pl.DataFrame:
    """`beyond`: nanoseconds after the microseconds of the dates."""
    return pl.DataFrame({TIMESTAMP: dates.dt.epoch("s"), NANOSECOND: dates.dt.nanosecond() + beyond})


def _beyond(texts: pl.Series) -> pl.Series:
    """The nanoseconds after the microseconds in ISO dates, which Python leaves out."""
    digits = texts.str.extract("[.,][0-9]{6}([0-9]{1,3})")
    return digits.str.pad_end(3, "0").cast(pl.Int32).fill_null(0)


def iso_dates(texts: pl.Series) -> pl.Series:
    """The moment of each ISO date, else null: polars, which is quick, reads the plain forms, Python the others."""
    text = pl.col(texts.name)
    whole = pl.when(text.str.contains(PLAIN_DATE)).then(text.str.head(10) + "T" + text.str.slice(11, 8))
    moment = whole.str.replace("T$", "T00:00:00").str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
    known = pl.when(moment.dt.year() > 0).then(moment)  # Python, and we, know no year 0
    dates = _streamed(texts, known.alias("date"))["date"]
    others = dates.is_null().arg_true()
    slices = (texts[others[start : start + PYTHON_BATCH]] for start in range(0, len(others), PYTHON_BATCH))
    parsed = [pl.Series([_iso_time(text) for text in piece], dtype=pl.Datetime("us")) for piece in slices]
    return dates.scatter(others, pl.concat(parsed)) if parsed else dates


def _iso_time(text: str) -> datetime | None:
    """The moment without its zone, which is UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


# --- numbers ---


def _from_number_texts(column: Column, numbers: pl.Series) -> pl.DataFrame:
    def exact() -> pl.DataFrame:
        text = _text(column)
        whole = text.str.extract(r"^\+?(-?[0-9]+)(\.[0-9]*)?$").cast(pl.Int64, strict=False)
        return _streamed(column.values, whole.alias("whole"), text.str.extract(r"\.([0-9]+)$").alias("fraction"))

    return _from_numbers(column, numbers, exact)


def _from_numbers(column: Column, numbers: pl.Series, exact: Callable[[], pl.DataFrame] | None = None) -> pl.DataFrame:
    """What `times` gives for finite numbers; `exact` gives their integers, and the digits after the point if any."""
    if not numbers.count():
        _refuse_empty(column)
    unit = _unit(column, numbers)
    missing = column.values.is_null().arg_true()
    column.faults.add(missing.to_numpy(), f"{TIMESTAMP} is missing")
    known = _streamed(numbers, _between(column, numbers, unit).fill_null(False).alias("known"))["known"]
    wrong = (~known).arg_true()
    if len(wrong):
        column.faults.add(wrong.to_numpy(), _reasons(column, numbers[wrong], unit))
        numbers = numbers.set(~known, None)
    _note_early(column, numbers, unit)
    # of nanoseconds a float holds no more than every 256th, of seconds no less than 238 nanoseconds
    if exact and (unit == "nanoseconds" or (numbers != numbers.floor()).any()):
        return _exactly(exact(), known, UNITS[unit])
    return _in_seconds(numbers, UNITS[unit])


def _note_early(column: Column, numbers: pl.Series, unit: str) -> None:
    """Say so where all times are early enough to count from 2001."""
    end = before_cocoa(column.rules.latest)
    if column.notes is not None and column.rules.unit == "auto" and (numbers < end * UNITS[unit]).all():
        column.notes.append(
            f"{column.label}: all times lie before {_written(int(end))[:10]}; if they are {COCOA.name}, add "
            f"{COCOA.start:.0f} seconds to each, else state `unit: {unit}`"
        )


def _exactly(parts: pl.DataFrame, known: pl.Series, unit: int) -> pl.DataFrame:
    """As `_in_seconds`, from integers and the digits of their fractions."""
    scale = SECOND // unit
    digits = len(str(scale)) - 1
    past = pl.col("whole") % unit * scale
    if "fraction" in parts.columns and digits:
        past += pl.col("fraction").str.head(digits).str.pad_end(digits, "0").cast(pl.Int64).fill_null(0)
    columns = {TIMESTAMP: pl.col("whole") // unit, NANOSECOND: past.cast(pl.Int32)}
    good = parts.with_columns(known=known).lazy()
    return good.select(pl.when("known").then(each).alias(ours) for ours, each in columns.items()).collect(
        engine="streaming"
    )


def _between(column: Column, numbers: pl.Series, unit: str) -> pl.Expr:
    low, high = column.rules.bounds()
    return pl.col(numbers.name).is_between(low * UNITS[unit], high * UNITS[unit])


def _in_seconds(numbers: pl.Series, unit: int) -> pl.DataFrame:
    number = pl.col(numbers.name)
    whole = number // unit if numbers.dtype.is_integer() else (number / unit).floor()
    # the difference is exact, so different numbers of one second stay different
    past = (number - whole * unit) * (SECOND // unit)
    if not numbers.dtype.is_integer():
        past = past.floor()
    columns = {TIMESTAMP: whole.cast(pl.Int64), NANOSECOND: past.cast(pl.Int32)}
    return _streamed(numbers, *(expression.alias(ours) for ours, expression in columns.items()))


def _unit(column: Column, numbers: pl.Series) -> str:
    """The unit that is stated, else that of most numbers; UserError if it fits none, or if others are many."""
    fits = [_between(column, numbers, unit).sum().alias(unit) for unit in UNITS]
    counts = dict(zip(UNITS, _streamed(numbers, *fits).row(0), strict=True))
    stated = column.rules.unit
    unit = max(counts, key=counts.__getitem__) if stated == "auto" else stated
    if counts[unit] < numbers.count() / 2:
        digits = sample(numbers.drop_nulls()).cast(pl.Int64, strict=False).cast(pl.String).drop_nulls()
        _refuse_written(column, digits)
    others = {other: count for other, count in counts.items() if other != unit and count}
    if not counts[unit]:
        _refuse_no_unit(column, numbers, others)
    if sum(others.values()) > MIXED * numbers.count():
        first = [_few(numbers.filter(numbers.is_between(*_range(column, other))), 1) for other in (unit, *others)]
        raise UserError(
            f"{column.label}: times in different units: {counts[unit]:,} of {numbers.count():,} are in {unit}, "
            f"{' and '.join(f'{count:,} in {other}' for other, count in others.items())} (found {', '.join(first)}); "
            "write all in one unit"
        )
    if stated == "auto" and unit == "nanoseconds":
        _refuse_ticks(column, numbers)
    return unit


def _refuse_ticks(column: Column, numbers: pl.Series) -> None:
    """UserError for ticks of .NET, which as nanoseconds lie in a few months of 1990."""
    known = numbers.filter(numbers.is_between(*_range(column, "nanoseconds")))
    if known.is_between(*TICKS.bounds(column.rules.latest)).all():
        raise UserError(
            f"{column.label}: times such as {_few(known, 1)} look like {TICKS.name}; {TICKS.what}, or state `unit: "
            "nanoseconds` beside `columns` in params.yaml if they count from 1970"
        )


def _range(column: Column, unit: str) -> tuple[int, int]:
    low, high = column.rules.bounds()
    return low * UNITS[unit], high * UNITS[unit]


def _refuse_no_unit(column: Column, numbers: pl.Series, others: dict[str, int]) -> None:
    """UserError for numbers none of which is a time in the unit stated, or in any."""
    stated = column.rules.unit
    if others:
        raise UserError(
            f"{column.label}: no number is a time in {stated} (found {_few(numbers)}); they look like "
            f"{max(others, key=others.__getitem__)}, correct `unit` beside `columns` in params.yaml"
        )
    clock = looks_like(numbers, column.rules.latest)
    hint = f" ({clock.name}? {clock.what})" if clock else ""
    units = "seconds, milliseconds, microseconds or nanoseconds" if stated == "auto" else stated
    raise UserError(
        f"{column.label}: no number is a time from 1990 to today in {units} since 1970, found {_few(numbers)}{hint}; "
        f"state `unit` or `format` beside `columns` in params.yaml where it is another, or {NO_TIMES}"
    )


def _reasons(column: Column, numbers: pl.Series, unit: str) -> pl.Series:
    """Why each of these numbers, null for none, is no time."""
    number = pl.col(numbers.name)
    repeated = numbers.drop_nulls().value_counts(name="count").filter(pl.col("count") >= max(2, len(numbers) / 10))
    stand_ins = sorted({0.0, -1.0, *repeated[numbers.name]})
    finite = (number.is_null(), f"{TIMESTAMP} is not a finite number")
    said = f"where the column is in {unit}"
    units = ((_between(column, numbers, other), f"{TIMESTAMP} would be in {other} {said}") for other in UNITS)
    empty = (
        (number == value, f"{TIMESTAMP} is {_digits(value)}, which stands for a missing one") for value in stand_ins
    )
    early = (number < column.rules.bounds()[0] * UNITS[unit], _before())
    whys = [pl.when(test).then(pl.lit(why)) for test, why in (finite, *units, *empty, early)]
    return numbers.to_frame().select(pl.coalesce(*whys, pl.lit(_after(column)))).to_series()
