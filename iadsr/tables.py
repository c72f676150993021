"""Parquet files in and out, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from iadsr.artifacts import replacing
from iadsr.errors import UserError


def read_table(path: Path) -> pl.DataFrame:
    """A Parquet file as a frame; UserError when it is missing or no Parquet file."""
    if not path.exists():
        raise UserError(f"{path}: missing; run the stages before this one first (`dvc repro`)")
    try:
        return pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); delete it and run `dvc repro`") from None


def write_table(path: Path, frame: pl.DataFrame) -> None:
    with replacing(path) as temporary:
        frame.write_parquet(temporary)
