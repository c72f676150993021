"""The one reader of every table that a user hands in: CSV, Parquet, or a folder of Parquet parts.

Paths are taken literally: `log[1].csv` is one file, whatever lies beside it.
"""

from __future__ import annotations

from pathlib import Path

from iadsr.errors import UserError
from iadsr.ingest.columns import Table, Wanted
from iadsr.ingest.csv_files import AUTO, read_csv
from iadsr.ingest.parquet_files import SUFFIXES, read_parquet

CSV = (".csv", ".tsv", ".txt")


def read_table(name: str, wanted: Wanted, separator: str = AUTO) -> Table:
    """The mapped columns of a table; `separator` is one character of a CSV, or auto: what the header shows.

    UserError if it cannot be read, lacks a column, or has one of a type that its column cannot be.
    """
    path = Path(name)
    if path.is_dir():
        return read_parquet(name, wanted)
    suffix = path.suffix.lower()
    if suffix not in (*CSV, *SUFFIXES):
        raise UserError(f"{name}: expected a file that ends in .csv, .tsv, .txt or .parquet, or a folder of Parquet")
    if not path.exists():
        raise UserError(f"{name}: no such file (paths are relative to the project's root)")
    if not path.is_file():
        raise UserError(f"{name}: no plain file; save the table as a file")
    return read_parquet(name, wanted) if suffix in SUFFIXES else read_csv(name, wanted, separator)
