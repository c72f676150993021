"""A log whose rows are to be judged: who, which item, in which order; whatever a row holds, none is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Int

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.columns import Wanted
from iadsr.ingest.histories import moments_or_rows
from iadsr.ingest.own_files import Reading, cleaned_ids
from iadsr.ingest.tables import read_table
from iadsr.ingest.times import TimeRules


class Coded(NamedTuple):
    """A column of ids: the different ones, and for each row the place of its own; -1: the row has none."""

    ids: list[str]
    places: Int[np.ndarray, " rows"]


class LogRows(NamedTuple):
    """The rows of a log as they stand: who, which item, in which order; and what is wrong with some of them."""

    users: Coded
    items: Coded
    order: Int[np.ndarray, " rows"]  # all rows, oldest first
    faults: Mapping[int, str]
    notes: Sequence[str] = ()  # on how a file was read
    separator: str = ""  # of a CSV's fields


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
    order = when.select(pl.arg_sort_by(when.columns, maintain_order=True)).to_series().to_numpy().astype(np.int64)
    found = table.faults.found()
    faults = dict(zip(found["row"].to_list(), found["reason"].cast(pl.String).to_list(), strict=True))
    users, items = (_coded(column) for column in ids)
    return LogRows(users, items, order, faults, [*table.notes, *notes], table.separator)


def _coded(column: pl.Series) -> Coded:
    known = column.drop_nulls().unique(maintain_order=True)
    places = known.to_physical().to_numpy().argsort()
    sorted_codes, codes = np.sort(known.to_physical().to_numpy()), column.to_physical().fill_null(0).to_numpy()
    at = np.searchsorted(sorted_codes, codes).clip(max=max(0, len(sorted_codes) - 1))
    found = places[at] if len(places) else np.zeros(len(column), dtype=np.int64)
    return Coded(known.cast(pl.String).to_list(), np.where(column.is_null().to_numpy(), -1, found))
