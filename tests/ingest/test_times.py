"""What a column of times means, and what is refused; the present is 1 January 2026 throughout."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iadsr.errors import UserError
from iadsr.ingest.rejects import Faults
from iadsr.ingest.times import UNITS, Column, TimeRules, iso_dates, plausible, times

NOW = datetime(2026, 1, 1, tzinfo=UTC)
T = 1_400_000_000  # 2014-05-13 16:53:20
MAY = 1_430_143_500  # 2015-04-27 14:05
LOW, HIGH = 631_152_000, int(NOW.timestamp()) + 86_400  # 1990-01-01 and 2026-01-02


def column(values: list | pl.Series, comma: bool = False, **rules: Any) -> Column:
    series = values.alias("timestamp") if isinstance(values, pl.Series) else pl.Series("timestamp", values)
    return Column(series, "file, column 'when'", TimeRules(now=NOW, **rules), Faults(), comma)


def seconds(values: list | pl.Series, comma: bool = False, **rules: Any) -> list[int | None]:
    found = times(column(values, comma, **rules))
    assert found.schema == {"timestamp": pl.Int64, "nanosecond": pl.Int32}
    return found["timestamp"].to_list()


def faults(values: list, **rules: Any) -> dict[int, str]:
    """Row -> why it is bad; exactly these rows have no time."""
    asked = column(values, **rules)
    found = times(asked)
    bad = dict(asked.faults.found().rows())
    assert [row for row, value in enumerate(found["timestamp"]) if value is None] == list(bad)
    return {row: why.removeprefix("timestamp ") for row, why in bad.items()}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1400000000", " 1400000001 "], [T, T + 1]),
        (["1400000000000", "1400000001999"], [T, T + 1]),
        (["1400000000000000", "1400000001999999"], [T, T + 1]),
        (["1400000000000000000", "1400000001999999999"], [T, T + 1]),
        (["1400000000.0", "+1400000001.5", "1400000002."], [T, T + 1, T + 2]),
        (["2014-05-14", "2014-05-13T16:53:20", "2014-05-13 18:53:20+02:00"], [1_400_025_600, T, T]),
        (["2014-05-13T16:53:20Z", "2014-05-13T16:53:20.123456+00:00"], [T, T]),
        (["1400000000", "1400000001", "2014-05-14", "noon", ""], [T, T + 1, None, None, None]),
        (["2014-05-14", "2014-05-14", "1400000000", "nan"], [1_400_025_600, 1_400_025_600, None, None]),
        (["inf", "nan", "1e300", *["1400000000"] * 20], [None, None, None, *[T] * 20]),
        ([T, T + 1], [T, T + 1]),
        ([1.4e12, float("nan"), float("inf"), None], [T, None, None, None]),
        ([], []),
    ],
)
def test_times(values: list, expected: list) -> None:
    """One decision a column, null for what does not fit it; 2014-05-14 begins 25,600 s after T."""
    assert seconds(values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1400000000123", "1400000000124"], [123_000_000, 124_000_000]),
        (["1400000000.5", "x", "1400000011"], [500_000_000, None, 0]),
        (["2014-05-13T16:53:20.000250Z", "2014-05-13 16:53:20.9"], [250_000, 900_000_000]),
        (["1400000000123456789", "1400000000123456790"], [123_456_789, 123_456_790]),
        ([1400000000123456789, 1400000000123456790], [123_456_789, 123_456_790]),
        ([1400000000000001], [1000]),
        (["1400000000.123456789", "1400000000.1"], [123_456_789, 100_000_000]),
        (["1400000000.1234567891", "+1400000000.000000002", "1400000000"], [123_456_789, 2, 0]),
        (["1400000000123.456789", "1400000000123.5"], [123_456_789, 123_500_000]),
        (["1400000000123456.789", "1400000000123456."], [123_456_789, 123_456_000]),
        (["1400000000123456789.9"], [123_456_789]),
        (["2014-05-13T16:53:20.123456789Z", "2014-05-13 18:53:20,1234567+02:00"], [123_456_789, 123_456_700]),
        (["2014-05-13 16:53:20.1234567891", "x", "2014-05-13", "20140513T165320.00000001"], [123_456_789, None, 0, 10]),
    ],
)
def test_fractions_of_a_second(values: list, expected: list) -> None:
    """What is past the whole second below; of nanoseconds a float would hold no more than every 256th."""
    assert times(column(values))["nanosecond"].to_list() == expected


def test_different_doubles_of_one_second_stay_different() -> None:
    """Doubles near 1.4e9 are 2 ** -22 apart (238 ns): steps of that size must all be told apart, in order."""
    found = times(column([1.4e9 + step * 2.0**-22 for step in range(50)]))["nanosecond"]
    assert found.is_sorted() and found.n_unique() == 50


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(UNITS)),
    st.lists(st.integers(LOW, HIGH - 1), min_size=1, max_size=40),
    st.sampled_from(["text", "int", "float"]),
    st.booleans(),
)
def test_every_unit_is_recognised(unit: str, moments: list[int], kind: str, stated: bool) -> None:
    """Nanoseconds of the first months of 1990 are ticks of .NET unless the unit is stated."""
    assume(stated or unit != "nanoseconds" or max(moments) > LOW + 10_000_000)
    numbers = pl.Series([moment * UNITS[unit] for moment in moments], dtype=pl.Int64)
    given_as = numbers.cast({"text": pl.String, "int": pl.Int64, "float": pl.Float64}[kind])
    assert seconds(given_as, unit=unit if stated else "auto") == moments


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(10**19), 10**19), min_size=1, max_size=5), st.sampled_from(list(UNITS)))
def test_no_time_outside_the_range_is_ever_believed(strays: list[int], unit: str) -> None:
    """Each stray number beside 95 good ones gives no time, unless it is one in the unit of the column."""
    low, high = LOW * UNITS[unit], HIGH * UNITS[unit]
    found = seconds([str(T * UNITS[unit])] * 95 + [str(stray) for stray in strays])
    for stray, moment in zip(strays, found[95:], strict=True):
        assert moment == (stray // UNITS[unit] if low <= stray <= high else None)


@settings(max_examples=40, deadline=None)
@given(st.permutations([str(T * 1000 + step) for step in range(12)] + ["0", "", "1400000000", "x"]))
def test_the_decision_does_not_depend_on_the_order(texts: list[str]) -> None:
    """One of 14 numbers in seconds is more than a twentieth."""
    with pytest.raises(UserError, match="different units: 12 of 14 are in milliseconds, 1 in seconds"):
        times(column(texts))


@pytest.mark.parametrize(
    ("stray", "why"),
    [
        ("1400000000000", "would be in milliseconds where the column is in seconds"),
        ("1400000000000000", "would be in microseconds where the column is in seconds"),
        ("0", "is 0, which stands for a missing one"),
        ("-1", "is -1, which stands for a missing one"),
        ("-1.0", "is -1, which stands for a missing one"),
        ("17", "is before 1990"),
        ("631151999", "is before 1990"),
        ("-5000000000", "is before 1990"),
        ("1767312001", "is in the future (after 2026-01-02)"),
        ("99999999999", "is in the future (after 2026-01-02)"),
        ("1.40E+09", "is a number that a spreadsheet has rounded"),
        ("1,4E+09", "is a number that a spreadsheet has rounded"),
        ("1.4e9", "is a number that a spreadsheet has rounded"),
        ("", "is missing"),
        ("NULL", "is missing"),
        ("None", "is missing"),
        ("NaN", "is missing"),
        ("NaT", "is missing"),
        ("\\N", "is missing"),
        ("N/A", "is missing"),
        ("inf", "is no number, unlike the rest of its column"),
        ("2014-05-13", "is no number, unlike the rest of its column"),
        ("1,400,000,000", "is no number, unlike the rest of its column"),
        ("0x5371F0C0", "is no number, unlike the rest of its column"),
    ],
)
def test_a_value_unlike_its_column_is_a_bad_row(stray: str, why: str) -> None:
    """One of 21; 1767312000 s is midnight after 2026-01-01."""
    assert faults([*["1400000000"] * 20, stray]) == {20: why}


@pytest.mark.parametrize(
    ("stray", "why"),
    [
        ("0001-01-01", "is before 1990"),
        ("1970-01-01T00:00:00Z", "is before 1990"),
        ("1900-01-01", "is before 1990"),
        ("1989-12-31T23:59:59", "is before 1990"),
        ("9999-12-31", "is in the future (after 2026-01-02)"),
        ("2026-01-02T00:00:01", "is in the future (after 2026-01-02)"),
        ("2014-02-30", "is no ISO date, unlike the rest of its column"),
        ("13/05/2014", "is no ISO date, unlike the rest of its column"),
        ("1400000000", "is no date, unlike the rest of its column"),
        ("null", "is missing"),
    ],
)
def test_a_value_unlike_its_dates_is_a_bad_row(stray: str, why: str) -> None:
    assert faults([stray, *["2014-05-13"] * 20]) == {0: why}


def test_the_same_impossible_value_stands_for_none() -> None:
    said = "is 2147483647, which stands for a missing one"
    assert faults([*[T] * 50, 2147483647, 2147483647, 5]) == {50: said, 51: said, 52: "is before 1990"}


def test_numbers_of_parquet_that_are_none() -> None:
    found = faults([float("nan"), None, float("inf"), *[1.4e9] * 9])
    assert found == {0: "is missing", 1: "is missing", 2: "is not a finite number"}


def test_a_twentieth_in_another_unit_is_tolerated_and_more_is_not() -> None:
    """5 of 100 are a twentieth; 6 of 100 are more."""
    assert len(faults([T * 1000] * 95 + [T] * 5)) == 5
    said = r"94 of 100 are in milliseconds, 6 in seconds \(found 1400000000000, 1400000000\); write all in one unit"
    with pytest.raises(UserError, match=said):
        times(column([T * 1000] * 94 + [T] * 6))


@pytest.mark.parametrize(
    ("values", "rules", "message"),
    [
        ([1, 2, 3], {}, "no number is a time from 1990 to today in seconds, milli.*found 1, 2, 3.*`unit`.*`format`"),
        (["0", "-1"], {}, "found 0, -1.*leave out columns.timestamp, and the order of the file counts"),
        (["42121", "42122.5"], {}, "day numbers of a spreadsheet"),
        ([T, T], {"unit": "milliseconds"}, "no number is a time in milliseconds .*look like seconds, correct `unit`"),
        ([5, 6], {"unit": "seconds"}, "no number is a time from 1990 to today in seconds since 1970, found 5, 6"),
        (["1.60E+12", "1.60E+12"], {}, "2 of 2 times are numbers that a spreadsheet has rounded .found '1.60E.12'"),
        (["1,6E+12"], {}, "a spreadsheet has rounded"),
        (["1.6E+12"] + ["1400000000"] * 9, {}, "1 of 10 times are numbers that a spreadsheet has rounded"),
        (["noon", "soon", "noon"], {}, "no value is a time .found 'noon', 'soon'.; expected ISO dates or numbers"),
        (["noon\0" * 99], {}, "no value is a time"),
        (["1985-01-01", "1986-01-01"], {}, "no time lies between 1990 and today .found 1985-01-01 00:00:00, 1986-01"),
        ([None, None], {}, "no time in it; leave out columns.timestamp"),
        (["", "NULL"], {}, "no time in it; leave out columns.timestamp"),
        ([float("nan")], {}, "no time in it"),
        (["27.04.2015"], {"format": "%d-%m-%Y"}, "no value reads as '%d-%m-%Y' .found '27.04.2015'.; correct `format`"),
    ],
)  # fmt: skip
def test_a_column_that_is_refused(values: list, rules: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"^file, column 'when': .*{message}") as error:
        times(column(values, **rules))
    assert "\0" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("kind", [pl.String, pl.Int64, pl.Float64])
@pytest.mark.parametrize(
    ("number", "name"),
    [
        (635_658_051_000_000_000, "ticks of .NET"),
        (130_746_171_000_000_000, "FILETIME"),
        (13_074_617_100_000_000, "Chrome"),
        (451_836_300, "Cocoa"),
        (3_639_132_300, "NTP"),
        (42_121, "spreadsheet"),
        (2_457_140, "Julian"),
        (16_552, "days since 1970"),
        (397_262, "hours since 1970"),
    ],
)
def test_numbers_of_other_clocks_are_named(number: int, name: str, kind: pl.DataType) -> None:
    """The 27th of April 2015 by each of them, and a sentinel."""
    with pytest.raises(UserError, match=rf"file, column 'when': .*{name}.*`unit"):
        times(column(pl.Series([number, number + 1, 0]).cast(kind)))


def test_nanoseconds_of_1990_are_believed_where_the_unit_is_stated() -> None:
    """635,658,051 seconds after 1970 begins the 22nd of February 1990; with a later one no unit need be stated."""
    ticks = 635_658_051_000_000_000
    assert seconds([ticks], unit="nanoseconds") == [635_658_051]
    assert seconds([ticks, T * 10**9]) == [635_658_051, T]


@pytest.mark.parametrize("unit", ["auto", "seconds"])
def test_seconds_that_may_count_from_2001_are_noted(unit: str) -> None:
    """700,000,000 is a day of 1992, or of March 2023; the present in seconds since 2001 is a day of January 1995."""
    asked = column([700_000_000, 700_000_001], unit=unit)._replace(notes=[])
    assert times(asked)["timestamp"].to_list() == [700_000_000, 700_000_001]
    said = ["file, column 'when': all times lie before 1995-01-02; if they are seconds since 2001 (Cocoa, Apple), "
            "add 978307200 seconds to each, else state `unit: seconds`"]  # fmt: skip
    assert asked.notes == (said if unit == "auto" else [])
    times(late := column([T])._replace(notes=[]))
    assert late.notes == []


@pytest.mark.parametrize("kind", [pl.String, pl.Int64, pl.Float64])
@pytest.mark.parametrize(
    ("digits", "pattern"),
    [(20150427, "%Y%m%d"), (2015042714, "%Y%m%d%H"), (201504271405, "%Y%m%d%H%M"), (20150427140500, "%Y%m%d%H%M%S")],
)
def test_digits_that_are_dates(digits: int, pattern: str, kind: pl.DataType) -> None:
    """As seconds 20,150,427 is a day of August 1970; by the format that the message gives it is the date."""
    values = pl.Series([digits, digits + 1]).cast(kind)
    with pytest.raises(UserError, match=f'2015.* looks like a date; set `format: "{pattern}"` beside `columns`'):
        times(column(values))
    found = seconds(values[:1], format=pattern)[0]
    assert found is not None and str(datetime.fromtimestamp(found, UTC)).startswith("2015-04-27")


def test_numbers_near_dates_are_times() -> None:
    """Of 1,500,000,000 and its neighbours none is a date, whatever a part of them reads as."""
    values = list(range(1_500_000_000, 1_500_001_000))
    assert seconds(values) == values


@pytest.mark.parametrize(
    ("texts", "pattern"),
    [
        (["27-04-2015", "01-05-2015"], "%d-%m-%Y"),
        (["04/27/2015", "05/01/2015"], "%m/%d/%Y"),
        (["27.04.2015 14:05", "1.5.2015 7:30"], "%d.%m.%Y %H:%M"),
        (["4/27/2015 2:05:09 PM"], "%m/%d/%Y %I:%M:%S %p"),
        (["2015/04/27 14:05:00"], "%Y/%m/%d %H:%M:%S"),
        (["27 Apr 2015"], "%d %b %Y"),
        (["2015-04-27 9:05"], "%Y-%m-%d %H:%M"),
        (["2015-04-27 9:05", "2015-04-27 14:05", "2015-04-28 15:05"], "%Y-%m-%d %H:%M"),
        (["2015-04-27 9:05:01", "2015-04-27 14:05:07", "2015-04-28 15:05:00"], "%Y-%m-%d %H:%M:%S"),
        (["2015-04-27T9:05"], "%Y-%m-%dT%H:%M"),
        (["2015-4-7", "2015-04-27", "2015-12-27"], "%Y-%m-%d"),
        (["2015-04-27 14:05:00 UTC"], "%Y-%m-%d %H:%M:%S UTC"),
        (["Apr 27, 2015"], "%b %d, %Y"),
        (["April 27, 2015"], "%B %d, %Y"),
        (["27/Apr/2015:14:05:00 +0200"], "%d/%b/%Y:%H:%M:%S %z"),
        (["Mon Apr 27 14:05:00 +0000 2015"], "%a %b %d %H:%M:%S %z %Y"),
    ],
)
@pytest.mark.parametrize("comma", [False, True])
def test_dates_as_people_write_them(texts: list[str], pattern: str, comma: bool) -> None:
    """Refused with the format to set, by which they are read; shown as they stand, also beside decimal commas."""
    with pytest.raises(UserError, match=f"{re.escape(repr(texts[0]))} looks like a date; set `format: ") as error:
        times(column(texts, comma=comma))
    assert f'`format: "{pattern}"`' in str(error.value)
    expected = [datetime.strptime(text, pattern) for text in texts]
    whole = [int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) for moment in expected]
    assert seconds(texts, format=pattern) == whole


@pytest.mark.parametrize("texts", [["04/05/2015"], ["04/05/2015", "12/11/2015"]])
def test_ambiguous_dates_are_said_to_be_so(texts: list[str]) -> None:
    said = r'such as \'04/05/2015\'.* are ambiguous; set .* to "%d/%m/%Y" \(day first\) or "%m/%d/%Y" \(month first\)'
    with pytest.raises(UserError, match=said):
        times(column(texts))
    assert seconds(["04/05/2015"], format="%d/%m/%Y") == [1_430_697_600]  # 2015-05-04


def test_bad_rows_of_a_format() -> None:
    found = faults(["27-04-2015", "31-04-2015", "", "0", "01-01-1970", "null"], format="%d-%m-%Y")
    unread = "does not read as %d-%m-%Y"
    assert found == {1: unread, 2: "is missing", 3: unread, 4: "is before 1990", 5: "is missing"}


def test_zones_by_a_format() -> None:
    """14:05 two hours east of Greenwich is 12:05 there."""
    assert seconds(["27-04-2015 14:05 +0200", "27-04-2015 14:05 Z"], format="%d-%m-%Y %H:%M %z") == [MAY - 7200, MAY]


def test_decimal_commas_where_fields_have_other_separators() -> None:
    assert seconds(["1400000000,5"] * 2, comma=True) == [T, T]
    assert seconds(["2014-05-13 16:53:20,250"], comma=True) == [T]


def test_moments_of_parquet_have_the_same_range() -> None:
    """0001-01-01 and 9999-12-31 among twenty good ones; their nanoseconds go with them."""
    found = pl.DataFrame({"timestamp": [-62_135_596_800, 253_402_214_400, None, *[T] * 20]})
    found = found.with_columns(nanosecond=pl.lit(7, pl.Int32))
    asked = column(found["timestamp"])
    good = plausible(found, asked)
    assert good.rows()[:4] == [(None, None), (None, None), (None, None), (T, 7)]
    assert asked.faults.found()["reason"].to_list() == [
        "timestamp is before 1990",
        "timestamp is in the future (after 2026-01-02)",
    ]


def test_now_is_the_machine_s_unless_stated() -> None:
    soon = datetime.now(UTC) + timedelta(hours=23)
    late = datetime.now(UTC) + timedelta(hours=25)
    asked = column([soon.isoformat(), late.isoformat()])
    assert times(asked._replace(rules=TimeRules()))["timestamp"].is_null().to_list() == [False, True]


def _two(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    return numbers.map(lambda number: f"{number:02}")


days = st.tuples(st.sampled_from(["0000", "0001", "1969", "2024", "9999"]), *[_two(st.integers(0, 32))] * 2).map(
    "-".join
)
clocks = st.tuples(*[_two(st.integers(0, 61))] * 3).map(":".join)
dates = st.tuples(days, st.sampled_from("T t"), clocks, st.sampled_from(["", "Z", ".5", "+01:00", "x"])).map("".join)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(days | dates | st.sampled_from(["", "2024-02-29", "20240229", "2024-02-29T"]), min_size=1, max_size=200)
)
def test_dates_are_what_python_reads_in_them(texts: list[str]) -> None:
    """Most go through a quicker parser, which must accept nothing else: days and hours that exist, and those that do
    not, years 0 and 9999, leap seconds, other separators, zones."""

    def python(text: str) -> datetime | None:
        try:
            moment = datetime.fromisoformat(text)
            return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        except (ValueError, OverflowError):
            return None

    assert iso_dates(pl.Series("text", texts)).alias("date").to_list() == [python(text) for text in texts]


def test_a_date_of_python_is_the_day() -> None:
    assert str(date(2014, 5, 14)) == str(datetime.fromtimestamp(1_400_025_600, UTC).date())
