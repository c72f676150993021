"""Reading a log whose rows are to be judged; whatever a row holds, none is left out."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.columns import Wanted
from iadsr.ingest.histories import moments_or_rows
from iadsr.ingest.own_files import Reading, cleaned_ids
from iadsr.ingest.tables import read_table
from iadsr.ingest.times import TimeRules
from iadsr.serving.coded import Coded, LogRows


def read_log(name: str, how: Reading, now: datetime | None = None) -> LogRows:
    """Read CSV or Parquet, a row an interaction; without times that can be read the order of the file counts.

    UserError for an unreadable file, a folder, a missing column of users or items, or no row at all.
    """
    wanted = {ours: getattr(how.columns, ours) for ours in schemas.RAW_INTERACTIONS}
    named = {ours: theirs for ours, theirs in wanted.items() if theirs is not None}
    table = read_table(name, Wanted(named, optional=(schemas.TIMESTAMP,)), how.separator)
    if table.rows is not None or table.frame.is_empty():
        what = "no row in it" if table.frame.is_empty() else "several files"
        raise UserError(f"{name}: {what}; give one file with a row an interaction")
    ids = [cleaned_ids(table, ours) for ours in (schemas.USER, schemas.ITEM)]
    when, notes = moments_or_rows(table, TimeRules(how.unit, how.format, now), how.columns.timestamp)
    order = when.select(pl.arg_sort_by(when.columns, maintain_order=True)).to_series().to_numpy().astype(np.int32)
    found = table.faults.found()
    faults = dict(zip(found["row"].to_list(), found["reason"].cast(pl.String).to_list(), strict=True))
    users, items = (coded_column(column) for column in ids)
    return LogRows(users, items, order, faults, [*table.notes, *notes], table.separator)


def coded_column(column: pl.Series) -> Coded:
    """Of categories."""
    known = column.drop_nulls().unique(maintain_order=True)
    codes = known.to_physical().to_numpy()
    nobody = int(codes.max()) + 1 if len(codes) else 0
    place_of = np.full(nobody + 1, -1, dtype=np.int32)
    place_of[codes] = np.arange(len(codes))
    found = place_of[column.to_physical().fill_null(nobody).to_numpy()]
    return Coded(known.cast(pl.String).to_list(), found)
