"""Small logs with a split, by hand and at random."""

from __future__ import annotations

import polars as pl
from hypothesis import strategies as st

from iadsr.filter.interactions import leave_one_out

histories_strategy = st.lists(st.lists(st.integers(1, 8), min_size=3, max_size=12, unique=True), min_size=1, max_size=6)


def sequences(*histories: list[int]) -> pl.DataFrame:
    """Indexed sequences with a split; the n-th interaction of each user is at time 10 n."""
    rows = [(user, item, 10 * n) for user, items in enumerate(histories) for n, item in enumerate(items)]
    schema = {"user": pl.Int32, "item": pl.Int32, "timestamp": pl.Int64}
    return leave_one_out(pl.DataFrame(rows, schema=schema, orient="row"))
