"""All columns of a user's table as they stand, piece by piece, so that no table is ever whole in memory."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from iadsr.errors import UserError
from iadsr.ingest.columns import Wanted
from iadsr.ingest.csv_files import AUTO, separator_of
from iadsr.ingest.parquet_files import SUFFIXES, Part, opened, parts_of

ROWS = 65_536  # of a piece


class WholeRows(NamedTuple):
    """The columns of a table, and its rows in their order, some at a time."""

    schema: pa.Schema
    pieces: Iterator[pa.Table]


def whole_rows(name: str, wanted: Wanted, separator: str = AUTO) -> WholeRows:
    """A CSV's columns are text. Of two with one name the second gets a number. `wanted` helps to find the separator.

    Rows have the numbers under which `read_table` knows them. UserError for parts of a folder that do not go together.
    """
    path = Path(name)
    if path.is_dir() or path.suffix.lower() in SUFFIXES:
        return _of_parts(name)
    return _of_csv(path, separator_of(name, wanted, separator))


def _of_csv(path: Path, separator: str) -> WholeRows:
    with open(path, encoding="utf-8-sig", newline="") as given:
        names = next(csv.reader(given, delimiter=separator))
    schema = pa.schema([(name, pa.string()) for name in _told_apart(names)])
    return WholeRows(schema, _pieces_of_csv(path, separator, schema))


def _pieces_of_csv(path: Path, separator: str, schema: pa.Schema) -> Iterator[pa.Table]:
    csv.field_size_limit(1 << 30)
    width = len(schema.names)
    with open(path, encoding="utf-8-sig", newline="") as given:
        records = csv.reader(given, delimiter=separator)
        next(records)
        while some := [[*fields, *[""] * (width - len(fields))][:width] for fields in islice(records, ROWS)]:
            columns = [pa.array(column, pa.string()) for column in zip(*some, strict=True)]
            yield pa.Table.from_arrays(columns, schema=schema)


def _told_apart(names: list[str]) -> list[str]:
    """
    >>> _told_apart(["user", "", "", "user"])
    ['user', '', ' 2', 'user 2']
    """
    found: list[str] = []
    for name in names:
        free = (f"{name} {number}" for number in range(2, len(names) + 2))
        found.append(name if name not in found else next(each for each in free if each not in (*found, *names)))
    return found


def _of_parts(name: str) -> WholeRows:
    parts = parts_of(name)[0]
    schemas = [_schema(part) for part in parts]
    try:
        schema = pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{name}: its parts have columns of unlike types ({error}); write them the same") from None
    return WholeRows(schema, (piece for part in parts for piece in _pieces_of(part, schema)))


def _schema(part: Part) -> pa.Schema:
    with opened(part) as file:
        schema = pa.schema(list(file.schema_arrow))
    schema = pa.schema([field.with_name(name) for name, field in zip(_told_apart(schema.names), schema, strict=True)])
    for key in part.folders:
        schema = schema if key in schema.names else schema.append(pa.field(key, pa.string()))
    return schema


def _pieces_of(part: Part, schema: pa.Schema) -> Iterator[pa.Table]:
    with opened(part) as file:
        for read in file.iter_batches(ROWS):
            batch = read.rename_columns(_told_apart(read.schema.names))
            columns = [_column(batch, part, field) for field in schema]
            yield pa.Table.from_arrays(columns, schema=schema)


def _column(batch: pa.RecordBatch, part: Part, field: pa.Field) -> pa.Array:
    place = batch.schema.get_field_index(field.name)
    if place < 0:
        return pa.array([part.folders.get(field.name)] * batch.num_rows, field.type)
    return batch.column(place).cast(field.type)
