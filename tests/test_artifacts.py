"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet
import pytest
import safetensors
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from iadsr.artifacts import (
    file_digest,
    new_memory_map,
    read_columns,
    read_json,
    replacing,
    replacing_folder,
    text_digest,
    write_array,
    write_json,
)
from iadsr.errors import UserError
from stages.command import new_app, reports_errors

# --- files ---


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    for text in ("old", "new"):
        with replacing(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() if text == "old" else path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(error), replacing(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_before_anything_is_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="early"), replacing(tmp_path / "file"):
        raise ValueError("early")
    assert os.listdir(tmp_path) == []


def test_a_temporary_name_is_hidden_and_ignored_by_dvc(tmp_path: Path) -> None:
    """Beside the file, so that renaming never crosses disks; .dvcignore has *.tmp."""
    with replacing(tmp_path / "file") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".") and temporary.suffix == ".tmp"
        temporary.touch()
    assert "*.tmp" in (Path(__file__).parents[1] / ".dvcignore").read_text().splitlines()


# --- folders ---


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """The old folder had files a and b, the new one has c: a and b must be gone."""
    path = tmp_path / "below" / "folder"
    for names in ("ab", "c"):
        with replacing_folder(path) as temporary:
            assert os.listdir(temporary) == []
            for name in names:
                (temporary / name).touch()
    assert os.listdir(path) == ["c"]
    assert os.listdir(path.parent) == ["folder"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(ValueError, match="half"), replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "new").touch()
        raise ValueError("half")
    assert os.listdir(tmp_path) == ["folder"]
    assert os.listdir(tmp_path / "folder") == ["old"]


@pytest.mark.parametrize("process", ["own", "4194305", "9" * 30])
def test_what_a_killed_process_left_is_removed(tmp_path: Path, process: str) -> None:
    """Of this very number, which processes share in the course of time, and of numbers that no process can have."""
    process = str(os.getpid()) if process == "own" else process
    (tmp_path / f".folder.{process}.tmp").mkdir()
    (tmp_path / f".folder.{process}.tmp" / "half").touch()
    (tmp_path / f".file[1].{process}.tmp").touch()
    with replacing_folder(tmp_path / "folder") as temporary, replacing(tmp_path / "file[1]") as file:
        (temporary / "new").touch()
        file.touch()
    assert os.listdir(tmp_path / "folder") == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["file[1]", "folder"]


def test_what_another_process_still_writes_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / f".file.{other.pid}.tmp").touch()
        with replacing(tmp_path / "file") as file:
            file.touch()
        assert sorted(os.listdir(tmp_path)) == [f".file.{other.pid}.tmp", "file"]
        other.communicate(b"\n")


def test_what_is_in_the_way_is_named_and_stays(tmp_path: Path) -> None:
    (tmp_path / "one" / "kept").mkdir(parents=True)
    (tmp_path / "other").touch()
    with pytest.raises(UserError, match="one: a folder is in the way of this file; move it"):
        write_json(tmp_path / "one", {})
    with (
        pytest.raises(UserError, match="other: a file is in the way of this folder; move it"),
        replacing_folder(tmp_path / "other"),
    ):
        pass
    with pytest.raises(UserError, match="other: a file is in the way of this folder; move it"):
        write_json(tmp_path / "other" / "a.json", {})
    assert sorted(os.listdir(tmp_path)) == ["one", "other"] and os.listdir(tmp_path / "one") == ["kept"]


# --- contents ---


def test_json_is_sorted_and_ends_with_a_line_break(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [0.1, None]})
    text = (tmp_path / "a.json").read_text()
    assert text.index('"a"') < text.index('"b"') and text.endswith("}\n")
    assert read_json(tmp_path / "a.json") == json.loads(text) == {"a": [0.1, None], "b": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_json_cannot_say(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "a.json", {})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"metric": value})
    assert read_json(tmp_path / "a.json") == {}
    assert os.listdir(tmp_path) == ["a.json"]


def test_an_array_can_be_mapped(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float16).reshape(3, 2)
    write_array(tmp_path / "a.npy", array)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, array)


def test_an_array_filled_piece_by_piece(tmp_path: Path) -> None:
    """A header of 128 bytes and 3 x 2 numbers of 2 bytes, taken from the disk before the first is written."""
    array = new_memory_map(tmp_path / "a.npy", (3, 2), np.float16)
    assert (tmp_path / "a.npy").stat().st_size == 128 + 12
    array[:2], array[2:] = 1, 2
    array.flush()
    assert np.load(tmp_path / "a.npy").tolist() == [[1, 1], [1, 1], [2, 2]]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="only where disk space can be reserved")
def test_a_map_that_does_not_fit_is_an_error_and_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int, start: int, length: int) -> None:
        assert (start, length) == (0, 128 + 12)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        new_memory_map(tmp_path / "a.npy", (3, 2), np.float16)


def test_digests_of_files(tmp_path: Path) -> None:
    """SHA-256 of `abc`, the first test vector of the standard."""
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_digests_of_texts_differ_where_the_lists_do(one: list[str], other: list[str]) -> None:
    assert (text_digest(*one) == text_digest(*other)) == (one == other)


def test_texts_are_not_just_joined() -> None:
    assert len({text_digest("ab", "c"), text_digest("a", "bc"), text_digest("abc"), text_digest("abc", "")}) == 4
    assert len(text_digest("\ud800")) == 64  # half a character, as damaged JSON has it


# --- columns of a table ---


def test_columns_in_the_order_asked_for(tmp_path: Path) -> None:
    pl.DataFrame({"user": [1], "item": [2], "split": ["train"]}).write_parquet(tmp_path / "t.parquet")
    found = read_columns(tmp_path / "t.parquet", ("split", "user"), "filter", optional=("is_noise", "item"))
    assert found.to_pydict() == {"split": ["train"], "user": [1], "item": [2]}


@pytest.mark.parametrize("values", [["1"], [1.0], [None], [[1]], [True], [date(2020, 1, 1)]])
def test_a_column_of_another_type_or_with_gaps(tmp_path: Path, values: list[object]) -> None:
    pl.DataFrame({"user": values}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"column 'user': expected integers without gaps; run `dvc repro filter` again"):
        read_columns(tmp_path / "t.parquet", ("user",), "filter")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"user,item\n"])
def test_a_file_that_is_no_parquet(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.parquet: not a whole Parquet file; run `dvc repro filter` again"):
        read_columns(tmp_path / "t.parquet", ("user",), "filter")


def test_a_missing_table_or_column(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.parquet: missing; run `dvc repro filter` first"):
        read_columns(tmp_path / "t.parquet", ("user",), "filter")
    pl.DataFrame({"user": [1]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet: no column 'item'; run `dvc repro filter` again"):
        read_columns(tmp_path / "t.parquet", ("user", "item"), "filter")


# --- how errors reach the terminal (stages/command.py) ---


def run(raising: Callable[[], None]) -> tuple[int, str]:
    app = new_app()

    @app.command()
    @reports_errors
    def main() -> None:
        raising()

    result = CliRunner().invoke(app, [])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def raises(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


def test_a_user_error_is_one_line_and_status_1() -> None:
    assert run(raises(UserError("theta: too large"))) == (1, "error: theta: too large\n")


FULL = [
    OSError(errno.ENOSPC, "No space left on device", "metrics/metrics.json"),
    OSError(errno.ENOSPC, "No space left on device"),
    OSError("200000 requested and 25584 written"),  # numpy: the number of the error is lost
    safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_full_disk_is_one_line_and_status_1(error: Exception) -> None:
    code, said = run(raises(error))
    where = getattr(error, "filename", None) or Path.cwd()
    assert (code, said) == (
        1,
        f"error: {where}: no space left on the disk; free some and run the same command again\n",
    )


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system reports a full disk as late as fsync, when all has been written."""
    write_json(tmp_path / "a.json", {"old": 1})

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, said = run(lambda: write_json(tmp_path / "a.json", {"new": 1}))
    assert code == 1 and "no space left on the disk" in said
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def damaged_parquet() -> None:
    pl.read_parquet(io.BytesIO(b"PAR1"))


def damaged_arrow() -> None:
    pyarrow.parquet.read_table(io.BytesIO(b"PAR1"))


OURS = "run `dvc repro`, which makes what is wrong in data/ and models/ again\n"
BEGIN = "a file that this command reads is not as it was written "


@pytest.mark.parametrize(
    ("function", "begin", "end"),
    [
        (lambda: Path("/no/such/file").read_text(), "/no/such/file: No such file or directory; ", "command again\n"),
        (lambda: Path(__file__, "below").mkdir(), f"{__file__}/below: Not a directory; ", "command again\n"),
        (raises(OSError(errno.EIO, "I/O error")), f"{BEGIN}(OSError); ", OURS),
        (raises(EOFError()), f"{BEGIN}(EOFError); ", OURS),
        (raises(safetensors.SafetensorError("too\nshort")), f"{BEGIN}(SafetensorError); ", OURS),
        (damaged_parquet, f"{BEGIN}(", OURS),
        (damaged_arrow, f"{BEGIN}(ArrowInvalid); ", OURS),
    ],
)
def test_what_a_file_does_to_us_is_one_line_and_status_1(function: Callable[[], None], begin: str, end: str) -> None:
    code, said = run(function)
    assert code == 1 and said.startswith(f"error: {begin}") and said.endswith(end), said
    assert said.count("\n") == 1


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the temporary name beside it."""

    def refused(*ignored: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(ignored[0]))

    monkeypatch.setattr(Path, "write_text", refused)
    code, said = run(lambda: write_json(tmp_path / "a.json", {}))
    assert (code, said) == (
        1,
        f"error: {tmp_path / 'a.json'}: Permission denied; correct that and run the same command again\n",
    )


def test_a_reader_that_has_gone_is_no_error() -> None:
    """As in `python -m stages.recommend ... | head -1`: typer ends the command quietly."""
    assert run(raises(BrokenPipeError(errno.EPIPE, "Broken pipe"))) == (1, "")


@pytest.mark.parametrize("error", [KeyError("bug"), ValueError("bug"), RuntimeError("bug"), ZeroDivisionError()])
def test_bugs_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        run(raises(error))


def test_a_wanted_exit_passes() -> None:
    assert run(raises(typer.Exit(3))) == (3, "")
