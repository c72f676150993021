"""Parquet files in and out."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest

from iadsr.errors import UserError
from iadsr.tables import read_table, write_table

FRAME = pl.DataFrame({"user": [0, 0, 1], "split": ["train", None, "test"]}, schema_overrides={"user": pl.Int32})


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.parquet"
    write_table(path, FRAME)
    assert read_table(path).equals(FRAME)
    assert read_table(path).schema == FRAME.schema
    assert os.listdir(path.parent) == ["a.parquet"]


def test_an_empty_table(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", FRAME.clear())
    assert read_table(tmp_path / "a.parquet").schema == FRAME.schema


def test_a_missing_file_is_named_with_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.parquet: missing; run the stages before this one first \(`dvc repro`\)"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_a_truncated_file_is_named(tmp_path: Path, cut: int) -> None:
    """Cut to nothing, inside the magic number, inside the data, before the last byte."""
    path = tmp_path / "a.parquet"
    write_table(path, FRAME)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"a.parquet: not a readable Parquet file .* delete it and run `dvc repro`"):
        read_table(path)


def test_a_failed_write_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Polars wraps a full disk in an error of its own, which stages/command.py knows."""
    from stages.command import disk_is_full

    path = tmp_path / "a.parquet"
    write_table(path, FRAME)

    def full(frame: pl.DataFrame, file: Path) -> None:
        file.write_bytes(b"PAR1")
        raise pl.exceptions.ComputeError("parquet: underlying IO error: No space left on device (os error 28)")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(pl.exceptions.ComputeError) as error:
        write_table(path, FRAME.head(1))
    assert disk_is_full(error.value)
    assert read_table(path).equals(FRAME)
    assert os.listdir(tmp_path) == ["a.parquet"]
