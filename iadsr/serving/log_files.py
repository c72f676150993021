"""A log with verdicts beside its own columns, written row by row, so that no file is ever whole in memory."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from jaxtyping import Bool, Float

from iadsr.artifacts import replacing
from iadsr.errors import UserError
from iadsr.ingest.whole_rows import csv_records, is_parquet, refuse_taken
from iadsr.schemas import KEEP, OF_VERDICTS
from iadsr.serving.judge import Decided

ROWS = 65_536  # of Parquet, written at once


def require_writable(log: Path, out: Path, separator: str) -> None:
    """UserError, before anything is judged, for another kind of file than the log, and for a log with such columns."""
    if is_parquet(log) != is_parquet(out):
        raise UserError(f"--out {out}: expected the kind of {log.name}, {'Parquet' if is_parquet(log) else 'CSV'}")
    if is_parquet(log):
        refuse_taken(str(log), pa.parquet.read_schema(log).names)
    else:
        refuse_taken(str(log), next(csv_records(log, separator)))


def write_judged(log: Path, out: Path, separator: str, verdicts: Decided, keep_only: bool) -> None:
    """Write the log's own columns, as they are, and the verdicts behind them; `keep_only`: only rows that are kept.

    UserError for a log that has changed.
    """
    with replacing(out) as temporary:
        if is_parquet(log):
            _write_parquet(log, temporary, verdicts, keep_only)
        else:
            _write_csv(log, temporary, separator, verdicts, keep_only)


def _write_csv(log: Path, out: Path, separator: str, verdicts: Decided, keep_only: bool) -> None:
    records = csv_records(log, separator)
    with open(out, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        writer.writerow([*next(records), *OF_VERDICTS])
        count = len(verdicts.keep)
        for row, fields in enumerate(records):
            if row == count and not any(fields):
                break  # empty lines at the end are no rows
            if row >= count:
                raise changed(log)
            if verdicts.keep[row] or not keep_only:
                writer.writerow([*fields, *cells(verdicts, row)])
        if row + 1 < count:
            raise changed(log)


def cells(verdicts: Decided, row: int) -> list[str]:
    """
    >>> cells(Decided(np.array([0.25, np.nan]), np.array([False, True]), ["unlike", ""], 0.2), 0)
    ['0.25', 'false', 'unlike']
    """
    noise = verdicts.noise[row]
    return ["" if np.isnan(noise) else f"{noise:.6g}", str(bool(verdicts.keep[row])).lower(), verdicts.reasons[row]]


def _write_parquet(log: Path, out: Path, verdicts: Decided, keep_only: bool) -> None:
    with pa.parquet.ParquetFile(log) as file:
        if file.metadata.num_rows != len(verdicts.keep):
            raise changed(log)
        schema = with_verdicts(file.schema_arrow)
        with pa.parquet.ParquetWriter(out, schema) as writer:
            for batch in _with_verdicts(file, verdicts, schema):
                writer.write_table(batch.filter(batch[KEEP]) if keep_only else batch)


def with_verdicts(schema: pa.Schema) -> pa.Schema:
    """The columns, and those of verdicts behind them."""
    for name, kind in zip(OF_VERDICTS, (pa.float32(), pa.bool_(), pa.string()), strict=True):
        schema = schema.append(pa.field(name, kind))
    return schema


def verdict_columns(
    noise: Float[np.ndarray, " rows"], keep: Bool[np.ndarray, " rows"], reasons: pa.Array
) -> list[pa.Array]:
    """What stands in them; NaN becomes null."""
    return [pa.array(noise.astype(np.float32), from_pandas=True), pa.array(keep), reasons]


def _with_verdicts(file: pa.parquet.ParquetFile, verdicts: Decided, schema: pa.Schema) -> Iterator[pa.Table]:
    first = 0
    for batch in file.iter_batches(ROWS):
        rows = slice(first, first + len(batch))
        first = rows.stop
        added = verdict_columns(verdicts.noise[rows], verdicts.keep[rows], pa.array(verdicts.reasons[rows]))
        yield pa.Table.from_arrays([*batch.columns, *added], schema=schema)


def changed(log: Path) -> UserError:
    return UserError(f"{log}: it has other rows now than when it was read; run the same command again")
