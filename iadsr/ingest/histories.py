"""Histories to recommend for: a table of users and items, read as a log is, but never refused for a bad row."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.columns import Table, Wanted, titles
from iadsr.ingest.csv_files import AUTO
from iadsr.ingest.own_files import Columns, Files, Reading, cleaned_ids, moments
from iadsr.ingest.raw import collapsed
from iadsr.ingest.sources import chosen_source
from iadsr.ingest.tables import read_table
from iadsr.ingest.times import TimeRules, Unit
from iadsr.params import Params

OURS = Columns(user=schemas.USER, item=schemas.ITEM, timestamp=schemas.TIMESTAMP, title=schemas.TITLE)


class Histories(NamedTuple):
    """Users in the order of their first rows; of each the raw ids of items, oldest first, and their titles, if known.

    A user all of whose rows are bad has an empty history. `notes` are for the user of the program to read.
    """

    users: list[str]
    items: list[list[str]]
    titles: list[list[str | None]]
    notes: list[str]


def columns_of(params: Params) -> Reading:
    """How the chosen data set's own files are read; for another source our own names, and everything recognised."""
    source = chosen_source(params)
    if not isinstance(source, Files):
        return Reading(columns=OURS)
    return Reading(columns=source.columns, separator=source.separator, unit=source.unit, format=source.format)


def read_histories(
    name: str,
    columns: Columns,
    separator: str = AUTO,
    unit: Unit = "auto",
    format: str | None = None,
    now: datetime | None = None,
) -> Histories:
    """Read CSV or Parquet, a row an item; in Parquet item, title and time may also be lists, a row a whole history.

    Items stand by time where the table has the column, equal times as in the file, else all as in the file. Bad rows
    are left out and counted in a note, and so are times that cannot be understood. UserError for an unreadable file, a
    missing column of users or items, other types, or no row at all.
    """
    wanted = {ours: getattr(columns, ours) for ours in (*schemas.RAW_INTERACTIONS, schemas.TITLE)}
    named = {ours: theirs for ours, theirs in wanted.items() if theirs is not None}
    table = read_table(name, Wanted(named, optional=(schemas.TIMESTAMP, schemas.TITLE), lists=True), separator)
    if table.frame.is_empty():
        raise UserError(f"{name}: no row in it; give at least one user and item")
    ids = [cleaned_ids(table, ours) for ours in (schemas.USER, schemas.ITEM)]
    when, notes = moments_or_rows(table, TimeRules(unit, format, now), columns.timestamp)
    found = table.faults.found()
    rows = pl.DataFrame([*ids, *when, _titles(table)]).with_columns(
        pl.Series("bad", _places(found, table.frame.height))
    )
    return _collected(rows, [*table.notes, *notes, *_left_out(table, found)])


def moments_or_rows(table: Table, rules: TimeRules, theirs: str | None) -> tuple[pl.DataFrame, list[str]]:
    """Columns to sort by, and what to say of them; the numbers of the rows where there are no times to understand."""
    rows = pl.DataFrame({schemas.TIMESTAMP: np.arange(table.frame.height)})
    if schemas.TIMESTAMP not in table.columns:
        lacks = "no column of times" if theirs is None else f"no column {theirs!r}"
        return rows, [f"{table.name}: {lacks}, so the order of the file counts"]
    try:
        return moments(table, rules), []
    except UserError as error:
        return rows, [f"{error}; so the order of the file counts"]


def _titles(table: Table) -> pl.Series:
    if schemas.TITLE not in table.columns:
        return pl.repeat(None, table.frame.height, dtype=pl.String, eager=True).alias(schemas.TITLE)
    return titles(table.frame[schemas.TITLE])


def _places(found: pl.DataFrame, height: int) -> np.ndarray:
    bad = np.zeros(height, dtype=bool)
    bad[found["row"].to_numpy()] = True
    return bad


def _left_out(table: Table, found: pl.DataFrame) -> list[str]:
    """What to say of the bad rows."""
    if found.is_empty():
        return []
    row, reason = found.row(0)
    first = table.show([row if table.rows is None else int(table.rows[row])])[0]
    others = "" if first.file == table.name else f"{first.file}, "
    return [
        f"{table.name}: {found.height:,} of {table.frame.height:,} rows left out; first: {others}row {first.row}: "
        f"{reason}, found {first.text[:200]!r}"
    ]


def _collected(rows: pl.DataFrame, notes: list[str]) -> Histories:
    known = rows.filter(pl.col(schemas.USER).is_not_null()).with_columns(pl.col(schemas.USER).cast(pl.String))
    users = known[schemas.USER].unique(maintain_order=True).to_list()
    items: dict[str, list[str]] = {user: [] for user in users}
    titles: dict[str, list[str | None]] = {user: [] for user in users}
    good = known.filter(~pl.col("bad"))
    keys = [key for key in (schemas.TIMESTAMP, schemas.NANOSECOND) if key in good.columns]
    ordered = good.sort(keys, maintain_order=True).select(schemas.USER, schemas.ITEM, schemas.TITLE)
    for user, item, title in _texts(ordered):
        items[user].append(item)
        titles[user].append(title)
    return Histories(users, list(items.values()), list(titles.values()), notes)


def _texts(ordered: pl.DataFrame) -> Iterable[tuple[str, str, str | None]]:
    for user, item, title in ordered.iter_rows():
        yield user, item, (collapsed(title) if title else "") or None
