"""Parquet files in and out."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from iadsr.errors import UserError
from iadsr.parquet import read_table, write_as_text, write_table, write_together

FRAME = pl.DataFrame({"user": [0, 0, 1], "split": ["train", None, "test"]}, schema_overrides={"user": pl.Int32})


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.parquet"
    write_table(path, FRAME)
    assert read_table(path, "ingest").equals(FRAME)
    assert read_table(path, "ingest").schema == FRAME.schema
    assert os.listdir(path.parent) == ["a.parquet"]


def test_an_empty_table(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", FRAME.clear())
    assert read_table(tmp_path / "a.parquet", "ingest").schema == FRAME.schema


@pytest.mark.parametrize("rows", [0, 100_000, 300_000])
def test_the_bytes_of_a_file_do_not_depend_on_the_pieces_of_a_frame(tmp_path: Path, rows: int) -> None:
    """Of texts in one piece, as of categories in pieces of 70,000 rows, which polars by itself makes row groups of."""
    frame = pl.DataFrame(
        {"item": pl.int_range(rows, eager=True), "split": pl.Series(["train"] * rows, dtype=pl.String)}
    )
    coded = frame.with_columns(pl.col("split").cast(pl.Categorical))
    pieces = pl.concat([coded[start : start + 70_000] for start in range(0, rows + 1, 70_000)])
    write_as_text(frame, tmp_path / "whole")
    write_as_text(pieces, tmp_path / "pieces")
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    assert read_table(tmp_path / "pieces", "ingest").equals(frame)


def test_a_missing_file_is_named_with_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.parquet: missing; run `dvc repro ingest` first"):
        read_table(tmp_path / "a.parquet", "ingest")


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_a_truncated_file_is_named(tmp_path: Path, cut: int) -> None:
    """Cut to nothing, inside the magic number, inside the data, before the last byte."""
    path = tmp_path / "a.parquet"
    write_table(path, FRAME)
    path.write_bytes(path.read_bytes()[:cut])
    for categories in ((), ("split",)):
        with pytest.raises(UserError, match=r"a.parquet: not a whole Parquet file; run `dvc repro ingest`"):
            read_table(path, "ingest", categories)


def test_texts_as_categories_and_back(tmp_path: Path) -> None:
    """In memory they are categories; the file is byte for byte that of the texts."""
    write_table(tmp_path / "texts", FRAME)
    coded = read_table(tmp_path / "texts", "ingest", categories=["split"])
    assert (coded.schema["user"], coded.schema["split"]) == (pl.Int32, pl.Categorical)
    assert coded.rows() == FRAME.rows()
    write_as_text(coded, tmp_path / "categories")
    assert (tmp_path / "categories").read_bytes() == (tmp_path / "texts").read_bytes()


def failing(message: str) -> Callable[[pl.DataFrame, Path], None]:
    """What polars does on a full disk: it leaves the beginning of a file, and raises an error of its own."""

    def write(frame: pl.DataFrame, file: Path) -> None:
        file.write_bytes(b"PAR1")
        raise pl.exceptions.ComputeError(message)

    return write


@pytest.mark.parametrize(
    ("message", "free"),
    [("parquet: underlying IO error: No space left on device (os error 28)", 1 << 40), ("transport error", 0)],
)
def test_a_full_disk_leaves_the_old_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, free: int
) -> None:
    """Polars says so of the data, but of the file's footer only `transport error`: then the free space tells."""
    path = tmp_path / "a.parquet"
    write_table(path, FRAME)
    monkeypatch.setattr(pl.DataFrame, "write_parquet", failing(message))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    with pytest.raises(OSError, match="No space left on device") as error:
        write_table(path, FRAME.head(1))
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert read_table(path, "ingest").equals(FRAME)
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_another_failed_write_is_named_with_its_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pl.DataFrame, "write_parquet", failing("transport error\nmore"))
    with pytest.raises(UserError, match=r"a.parquet: could not be written \(ComputeError\); correct that"):
        write_table(tmp_path / "a.parquet", FRAME)
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_for_the_last_file_leaves_the_first_as_it_was(tmp_path: Path) -> None:
    """The first is written whole, then the second writer fails: neither takes its name."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left") as error:
        write_together({first: lambda path: path.write_text("new"), second: full})
    assert error.value.filename == str(second)
    assert (first.read_text(), os.listdir(tmp_path)) == ("old", ["first"])


def test_all_files_take_their_names(tmp_path: Path) -> None:
    names = [tmp_path / "folder" / name for name in "ab"]
    write_together({name: FRAME.write_parquet for name in names})
    assert all(read_table(name, "ingest").equals(FRAME) for name in names)
    assert sorted(os.listdir(tmp_path / "folder")) == ["a", "b"]


@pytest.mark.parametrize("categories", [(), ("user",)])
def test_a_path_is_no_pattern(tmp_path: Path, categories: tuple[str, ...]) -> None:
    pl.DataFrame({"user": ["other"]}).write_parquet(tmp_path / "a1.parquet")
    pl.DataFrame({"user": ["u"]}).write_parquet(tmp_path / "a[1].parquet")
    assert read_table(tmp_path / "a[1].parquet", "ingest", categories)["user"].to_list() == ["u"]
