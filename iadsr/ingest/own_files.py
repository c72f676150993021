"""A user's own data: a table of interactions and a table of items, each CSV or Parquet.

Texts are taken as they stand, on one line: `&amp;` in a title stays `&amp;`, since only its owner knows what it means.

The interactions may be tens of millions: their ids are read as categories, a number a row, and what is computed from a
column is computed piece by piece (polars' streaming engine), so that no intermediate column is ever whole in memory.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal

import numpy as np
import polars as pl
import pydantic

from iadsr import schemas
from iadsr.ingest.columns import Table, Wanted, titles
from iadsr.ingest.csv_files import AUTO
from iadsr.ingest.ids import cleaned
from iadsr.ingest.raw import (
    Item,
    ItemRows,
    Names,
    Raw,
    collapsed,
    raw_tables,
    without_empty_optionals,
)
from iadsr.ingest.rejects import Faults, Rejects
from iadsr.ingest.tables import read_table
from iadsr.ingest.times import Column, TimeRules, Unit, plausible, times
from iadsr.ingest.whole_rows import refuse_taken, whole_rows
from iadsr.ingest.written_dates import pattern_fault
from iadsr.params import Group

NO_TIMES = "no column of times, so the order of the file counts"


class Columns(Group):
    """params.yaml, `datasets.<name>.source.columns`: our name -> the name in the user's files.

    `item_id` is the item table's name for what the interactions call `item`, where the two differ. Without `timestamp`
    the order of the file counts.
    """

    user: str
    item: str
    timestamp: str | None = None
    rating: str | None = None
    is_noise: str | None = None
    item_id: str | None = None
    title: str = schemas.TITLE
    categories: str | None = None


def _one_character(separator: str) -> str:
    if separator == "\\t":
        return "\t"
    plain = len(separator) == 1 and separator.isascii() and not separator.isalnum() and separator not in '"\r\n\0.'
    if separator != AUTO and not plain:
        raise ValueError(
            'expected auto, or the one character that separates fields, in quotation marks, such as ";" or "\\t"'
        )
    return separator


def _of_dates(pattern: str | None) -> str | None:
    fault = pattern_fault(pattern) if pattern is not None else ""
    if fault:
        raise ValueError(fault)
    return pattern


class Reading(Group):
    """How a user's tables are read: the names of their columns, what separates fields, how times are written."""

    columns: Columns
    separator: Annotated[str, pydantic.AfterValidator(_one_character)] = AUTO
    unit: Unit = "auto"
    format: Annotated[str | None, pydantic.AfterValidator(_of_dates)] = None

    @pydantic.model_validator(mode="after")
    def _one_kind_of_time(self) -> Reading:
        if self.format is not None and self.unit != "auto":
            raise ValueError("`unit` is for numbers and `format` for dates: state one of them")
        return self


class Files(Reading):
    """params.yaml, `datasets.<name>.source`: two paths, relative to the project's root, and how they are read."""

    kind: Literal["files"]
    interactions: str = pydantic.Field(min_length=1)
    items: str = pydantic.Field(min_length=1)


def load(source: Files, rejects: Rejects, now: datetime | None = None) -> Raw:
    """Interactions in the order of their file, and the rows of the item table that occur in them.

    UserError for a missing or unreadable file or column, for a column named as those of verdicts, and for more bad
    rows, or items without a row in the item table, than tolerated. A rating that is no number is left empty; of several
    rows for an item the first counts. `now`: after it there are no times; None for the machine's.
    """
    rules = TimeRules(source.unit, source.format, now)
    interactions, notes = read_interactions(source, rules, rejects)
    items, more = read_items(source, rejects)
    columns = whole_rows(source.interactions, wanted_of(source), source.separator).schema.names
    refuse_taken(source.interactions, columns)  # with verdicts it goes back to its owner
    raw = raw_tables(interactions, items, Names(source.interactions, source.items), rejects)
    timed = source.columns.timestamp is not None
    if not timed:
        notes.append(f"{source.interactions}: {NO_TIMES}")
    return replace(raw, timed=timed, notes=(*notes, *more))


def read_interactions(source: Files, rules: TimeRules, rejects: Rejects) -> tuple[pl.DataFrame, list[str]]:
    """user, item, timestamp and, where mapped, rating and is_noise, without the bad rows; and notes.

    Where there are bad rows, the number of each other one in the file stands in the column row.
    """
    columns = wanted_of(source).columns
    table = read_table(source.interactions, Wanted(columns), source.separator)
    ids = [cleaned_ids(table, name) for name in (schemas.USER, schemas.ITEM)]
    typed = pl.DataFrame([*ids, *moments(table, rules)])
    optional = [name for name in schemas.RAW_INTERACTIONS_OPTIONAL if name in columns]
    typed = typed.with_columns(table.frame.select(optional))
    if schemas.IS_NOISE in optional:
        neither = typed[schemas.IS_NOISE].is_null().arg_true().to_numpy()
        table.faults.add(neither, f"{schemas.IS_NOISE} is neither true nor false")
    if not table.faults.found().is_empty():
        typed = typed.with_columns(pl.Series(schemas.ROW, np.arange(typed.height, dtype=np.uint32)))
    return without_empty_optionals(_set_aside(typed, table, rejects)), table.notes


def wanted_of(source: Files) -> Wanted:
    """The columns of the interactions."""
    names = (*schemas.RAW_INTERACTIONS, *schemas.RAW_INTERACTIONS_OPTIONAL)
    mapped = {name: getattr(source.columns, name) for name in names}
    return Wanted({ours: theirs for ours, theirs in mapped.items() if theirs is not None})


def read_items(source: Files, rejects: Rejects) -> tuple[ItemRows, list[str]]:
    """Item id -> its title and categories, either of them empty where the table has none; and notes."""
    names = source.columns
    wanted = {schemas.ITEM: names.item_id or names.item, schemas.TITLE: names.title}
    if names.categories is not None:
        wanted[schemas.CATEGORIES] = names.categories
    table = read_table(source.items, Wanted(wanted), source.separator)
    others = [titles(column) for column in table.frame.drop(schemas.ITEM)]
    typed = pl.DataFrame([cleaned_ids(table, schemas.ITEM).cast(pl.String), *others])
    items = ItemRows()
    for item, *texts in _set_aside(typed, table, rejects).iter_rows():
        items.add(item, Item(*map(collapsed, texts)))
    return items, table.notes


def cleaned_ids(table: Table, ours: str) -> pl.Series:
    return cleaned(table.frame[ours], ours, table.label(ours), table.faults)


def moments(table: Table, rules: TimeRules) -> pl.DataFrame:
    """timestamp and, where any time has a fraction of a second, nanosecond; without times the numbers of the rows."""
    if schemas.TIMESTAMP not in table.columns:
        return pl.DataFrame({schemas.TIMESTAMP: np.arange(table.frame.height)})
    values = table.frame[schemas.TIMESTAMP]
    column = Column(values, table.label(schemas.TIMESTAMP), rules, table.faults, table.decimal_comma, table.notes)
    if schemas.NANOSECOND in table.frame.columns:
        found = plausible(table.frame.select(schemas.TIMESTAMP, schemas.NANOSECOND), column)
    else:
        found = times(column)
    table.faults.add(found[schemas.TIMESTAMP].is_null().arg_true().to_numpy(), f"{schemas.TIMESTAMP} is missing")
    return found if (found[schemas.NANOSECOND] > 0).any() else found.drop(schemas.NANOSECOND)


def _set_aside(typed: pl.DataFrame, table: Table, rejects: Rejects) -> pl.DataFrame:
    """The good rows of `typed`; the others go to the rejects as they stand in the file."""
    good, found = without_faults(typed, table.faults)
    rejects.add_all(found, table.show)
    rejects.check()
    return good


def without_faults(typed: pl.DataFrame, faults: Faults) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows without a fault, and `Faults.found`."""
    found = faults.found()
    if found.is_empty():
        return typed, found
    good = np.ones(typed.height, dtype=bool)
    good[found["row"].to_numpy()] = False
    return typed.filter(pl.Series(good)), found
