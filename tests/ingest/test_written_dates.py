"""The quick reading of dates by a pattern against Python's strptime."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadsr.ingest.written_dates import RUNS_OF_DIGITS, USUAL, _quick, by_pattern, fitting, moments, pattern_fault

PATTERNS = (
    *("%d-%m-%Y", "%m/%d/%y", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M:%S %p", "%Y%m%d%H%M%S", "%y%m%d", "%d%m%Y %H%M"),
    *(
        "%d %b %Y",
        "%B %d, %Y",
        "%d/%b/%Y:%H:%M:%S %z",
        "%Y-%m-%dT%H:%M:%S.%f%z",
        "%d-%m-%Y %H:%M:%S.%f",
        "%Y.%m.%d %p%I",
    ),
    *("%Y%m%d%f", "%Y-%j", "%a %d %b %Y", "%G-W%V-%u", "%d%%%m%%%Y", "%H:%M %d.%m.%Y", "%x"),
)
MOMENTS = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
CHANGES = st.sampled_from(
    ["", "0", " ", "-", "1", "60", "61", "99", "AM", "pm", "Z", "+24:00", "-0130", "\n", "\u0665"]
)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A pattern, and texts of it: some as they should be, some without leading zeros, some changed at one place."""
    pattern = draw(st.sampled_from(PATTERNS))
    texts = []
    for moment in draw(st.lists(MOMENTS, min_size=1, max_size=12)):
        text = moment.replace(tzinfo=UTC).strftime(pattern)
        if draw(st.booleans()):
            text = text.replace("/0", "/").replace("-0", "-").replace(".0", ".").lstrip("0")
        if draw(st.booleans()):
            place = draw(st.integers(0, len(text)))
            text = text[:place] + draw(CHANGES) + text[place + draw(st.integers(0, 2)) :]
        texts.append(text.upper() if draw(st.integers(0, 5)) == 0 else text)
    return pattern, texts


@settings(max_examples=150, deadline=None)
@given(written())
def test_what_strptime_reads(case: tuple[str, list[str]]) -> None:
    pattern, texts = case
    assert moments(pl.Series(texts), pattern).to_list() == [by_pattern(text, pattern) for text in texts]


def test_missing_texts_are_no_dates() -> None:
    assert moments(pl.Series([None, "27-04-2015"]), "%d-%m-%Y").is_null().to_list() == [True, False]
    assert moments(pl.Series([None, "2015-117"]), "%Y-%j").to_list() == [None, datetime(2015, 4, 27)]


@pytest.mark.parametrize("pattern", [*PATTERNS, *USUAL, *(each for few in RUNS_OF_DIGITS.values() for each in few)])
def test_the_usual_patterns_are_whole(pattern: str) -> None:
    assert pattern_fault(pattern) == ""


@pytest.mark.parametrize(
    "pattern", ["%Y", "%m-%Y", "%H:%M", "%d.%m.", "", "Y-m-d", "%Y-%m-%d %Z", "%k", "%", "%s", "%d%d%m%Y"]
)
def test_patterns_that_are_none(pattern: str) -> None:
    assert pattern_fault(pattern)


@pytest.mark.parametrize("pattern", ["%d-%m-%Y", "%m/%d/%Y %H:%M:%S", "%Y%m%d%H%M%S", "%d/%b/%Y:%H:%M:%S %z"])
def test_common_patterns_are_quick(pattern: str) -> None:
    assert _quick(pattern)


def test_what_fits() -> None:
    """Of 4 May, or 5 April, both; a 27th of April tells them apart, although a third text is none."""
    texts, low, high = pl.Series(["04/05/2015", "04/27/2015", "?"]), datetime(1990, 1, 1), datetime(2026, 1, 1)
    assert fitting(texts[:1], low, high) == ["%d/%m/%Y", "%m/%d/%Y"]
    assert fitting(texts, low, high) == ["%m/%d/%Y"]
    assert fitting(texts[2:], low, high) == []
