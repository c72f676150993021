"""Parquet files in and out, whole or not at all."""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import polars as pl

from iadsr.artifacts import replacing
from iadsr.errors import UserError

FULL = "No space left on device"
ROW_GROUP = 122_880  # rows, about
NEARLY_NOTHING = 1 << 20  # bytes; where less is free, the disk is what a write failed for


def read_table(path: Path, stage: str, categories: Sequence[str] = ()) -> pl.DataFrame:
    """A Parquet file that `stage` writes as a frame; UserError when it is missing or not a Parquet file.

    Columns of texts named in `categories` become categories, which hold a number a row: for many rows with few
    different texts, a quarter of the memory.
    """
    if not path.exists():
        raise UserError(f"{path}: missing; run `dvc repro {stage}` first")
    try:
        if not categories:
            return pl.read_parquet(path, glob=False)
        as_categories = pl.scan_parquet(path, glob=False).with_columns(pl.col(categories).cast(pl.Categorical))
        return as_categories.collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
        raise UserError(f"{path}: not a whole Parquet file; run `dvc repro {stage}` again") from None


def write_table(path: Path, frame: pl.DataFrame) -> None:
    """Write one Parquet file; errors as in `write_together`."""
    write_together({path: frame.write_parquet})


def write_as_text(frame: pl.DataFrame, path: Path) -> None:
    """Write one Parquet file, its categories as the texts they stand for; piece by piece, and with no error of ours.

    The row groups are all of one size; else they, and so the bytes of the file, would depend on the number of threads.
    """
    texts = frame.lazy().with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    groups = max(1, round(frame.height / ROW_GROUP))
    texts.sink_parquet(path, row_group_size=max(1, math.ceil(frame.height / groups)))


def write_together(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Call each writer with a temporary name beside its path, and rename all files only after the last is on the disk.

    A failure thus leaves either all new files or none: OSError with ENOSPC and the path if the disk is full, UserError
    with the path and the cause for any other reason.
    """
    with ExitStack() as stack:
        for path, write in writers.items():
            temporary = stack.enter_context(replacing(path))
            try:
                write(temporary)
                _flush(temporary)
            except (OSError, pl.exceptions.PolarsError) as error:
                raise _write_error(path, error) from error


def _flush(path: Path) -> None:
    """Wait until the file is on the disk, which may turn out to be full only then."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _write_error(path: Path, error: Exception) -> Exception:
    """What to raise for a failed write; polars' own errors do not always tell that the disk is full."""
    full = FULL in str(error) or shutil.disk_usage(path.parent).free < NEARLY_NOTHING
    if full:
        return OSError(errno.ENOSPC, FULL, str(path))
    cause = getattr(error, "strerror", None) or type(error).__name__
    return UserError(f"{path}: could not be written ({cause}); correct that and run the same command again")
