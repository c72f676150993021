"""Ranges of times, ties and who is decided by the file, against a plain count."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadsr.ingest.order import order_of

T = 1_400_000_000


def log(rows: list[tuple[str, int, int]], fractions: bool = True) -> pl.DataFrame:
    schema = {"user": pl.Categorical, "timestamp": pl.Int64, "nanosecond": pl.Int32}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame if fractions else frame.drop("nanosecond")


def test_by_hand() -> None:
    """u: T, T, T + 1: one of two pairs is tied. v: one pair, not tied. w: none. So 1 of 3 pairs and of 3 users."""
    rows = [("u", T + 1, 0), ("v", T, 0), ("u", T, 0), ("w", T, 0), ("u", T, 0), ("v", T + 60, 0)]
    found = order_of(log(rows, fractions=False))
    assert found == ("2014-05-13 16:53:20", "2014-05-13 16:54:20", 1 / 3, 1 / 3)


def test_one_row_has_no_neighbours() -> None:
    assert order_of(log([("u", T, 0)]))[2:] == (0.0, 0.0)


@pytest.mark.parametrize("moment", [-(2**55), 2**55])
def test_any_second_can_be_written(moment: int) -> None:
    """Official files keep their own rules for times."""
    assert order_of(log([("u", moment, 0), ("v", 0, 0)])).tied == 0.0


users, places = st.sampled_from("uvwxyz"), st.integers(0, 3)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(users, places, places), min_size=1, max_size=30),
    st.sampled_from([1, 1000, 10**9, 2**55]),
    st.sampled_from([1, 1000, 1_000_000]),
)
def test_against_a_plain_count(rows: list[tuple[str, int, int]], second: int, fraction: int) -> None:
    """Times of all ranges and fractions, so that each way to compare them is taken."""
    scaled = [(user, whole * second, past * fraction) for user, whole, past in rows]
    pairs = [
        one == other
        for user in sorted({row[0] for row in rows})
        for one, other in pairwise(sorted(row for row in scaled if row[0] == user))
    ]
    undecided = {row[0] for row in scaled if scaled.count(row) > 1}
    found = order_of(log(scaled))
    assert found.tied == pytest.approx(sum(pairs) / max(1, len(pairs)))
    assert found.undecided == pytest.approx(len(undecided) / len({row[0] for row in rows}))
