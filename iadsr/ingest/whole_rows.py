"""All columns of a user's table as they stand, piece by piece, so that no table is ever whole in memory."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from iadsr.errors import UserError
from iadsr.ingest.columns import Wanted
from iadsr.ingest.csv_files import AUTO, separator_of
from iadsr.ingest.parquet_files import SUFFIXES, Part, opened, parts_of
from iadsr.schemas import OF_VERDICTS

ROWS = 65_536  # of a piece
VIEWS = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}  # of which pyarrow takes no rows


class WholeRows(NamedTuple):
    """The columns of a table, and its rows in their order, some at a time."""

    schema: pa.Schema
    pieces: Iterator[pa.Table]


def whole_rows(name: str, wanted: Wanted, separator: str = AUTO) -> WholeRows:
    """A CSV's columns are text. Of two with one name the second gets a number. `wanted` helps to find the separator.

    Rows have the numbers under which `read_table` knows them. Where the parts of a folder have a column of unlike
    types, it is as wide as both, or text. UserError where it can be neither.
    """
    path = Path(name)
    if path.is_dir() or is_parquet(path):
        return _of_parts(name)
    found = separator_of(name, wanted, separator)
    return WholeRows(
        pa.schema([(each, pa.string()) for each in _told_apart(next(csv_records(path, found)))]),
        _pieces_of_csv(path, found),
    )


def refuse_taken(log: str, names: Sequence[str]) -> None:
    """UserError where a log has a column of a verdict's name."""
    if taken := [name for name in OF_VERDICTS if name in names]:
        raise UserError(f"{log}: it has a column {taken[0]!r} already, as verdicts have; rename it, or drop it")


def is_parquet(path: Path) -> bool:
    """By its name."""
    return path.suffix.lower() in SUFFIXES


def csv_records(path: Path, separator: str) -> Iterator[list[str]]:
    """The names of the columns, then the rows, of which short ones are filled up with nothing.

    UserError for bytes that are no text.
    """
    csv.field_size_limit(1 << 30)
    with open(path, encoding="utf-8-sig", newline="") as given:
        records = csv.reader(given, delimiter=separator)
        try:
            header = next(records)
            yield header
            for fields in records:
                yield [*fields, *[""] * (len(header) - len(fields))]
        except UnicodeDecodeError:
            raise UserError(f"{path}: not valid UTF-8; save the file as UTF-8") from None


def _pieces_of_csv(path: Path, separator: str) -> Iterator[pa.Table]:
    records = csv_records(path, separator)
    names = _told_apart(next(records))
    while some := [fields[: len(names)] for fields in islice(records, ROWS)]:
        columns = [pa.array(column, pa.string()) for column in zip(*some, strict=True)]
        yield pa.Table.from_arrays(columns, names=names)


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
    columns: dict[str, pa.DataType] = {}
    for part in parts:
        for column, kind in _columns(part).items():
            columns[column] = _common(columns.get(column, kind), kind)
    schema = pa.schema(list(columns.items()))
    return WholeRows(schema, (piece for part in parts for piece in _pieces_of(part, schema)))


def _columns(part: Part) -> dict[str, pa.DataType]:
    with opened(part) as file:
        schema = file.schema_arrow
    found = dict(zip(_told_apart(schema.names), schema.types, strict=True))
    return {**dict.fromkeys(part.folders, pa.string()), **{name: VIEWS.get(kind, kind) for name, kind in found.items()}}


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both as they are; text where no other does.

    >>> _common(pa.int64(), pa.int32()), _common(pa.int64(), pa.float64()), _common(pa.null(), pa.bool_())
    (DataType(int64), DataType(string), DataType(bool))
    """
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    same = (pa.types.is_signed_integer, pa.types.is_unsigned_integer, pa.types.is_floating)
    if any(check(one) and check(other) for check in same):
        return max(one, other, key=lambda kind: kind.bit_width)
    return pa.large_string() if pa.large_string() in (one, other) else pa.string()


def _pieces_of(part: Part, schema: pa.Schema) -> Iterator[pa.Table]:
    for batch in _batches(part):
        columns = [_column(batch, part, field) for field in schema]
        yield pa.Table.from_arrays(columns, schema=schema)


def _batches(part: Part) -> Iterator[pa.RecordBatch]:
    with opened(part) as file:
        for batch in file.iter_batches(ROWS):
            yield batch.rename_columns(_told_apart(batch.schema.names))


def _column(batch: pa.RecordBatch, part: Part, field: pa.Field) -> pa.Array:
    place = batch.schema.get_field_index(field.name)
    if place < 0:
        return pa.array([part.folders.get(field.name)] * batch.num_rows, field.type)
    try:
        return batch.column(place).cast(field.type)
    except pa.ArrowException:
        found = batch.column(place).type
        raise UserError(
            f"{part.name}, column {field.name!r}: of the type {found}, which goes with no column of this name in other "
            "parts; write all parts the same"
        ) from None
