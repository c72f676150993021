"""Files that are either whole or absent: written beside their place and renamed, and named when they cannot be read."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import DTypeLike

from iadsr.errors import UserError
from iadsr.schemas import FILTERED, GAPS

# what the types of `schemas.FILTERED` are to pyarrow
KINDS: dict[str, Callable[[pa.DataType], bool]] = {
    "integers": pa.types.is_integer,
    "text": lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    "true or false": pa.types.is_boolean,
    "numbers": pa.types.is_floating,
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it replaces `path`, on any error it is removed.

    UserError where a folder is in the way.
    """
    temporary = _temporary(path)
    refuse_folder(path)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename == str(temporary):  # a name that means nothing to the reader
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the place of the folder `path` on success; else it is removed.

    UserError where a file is in the way.
    """
    temporary = _temporary(path)
    refuse_file(path)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A name beside `path` for what replaces it; what killed processes left under such names is removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path.parent}: a file is in the way of this folder; move it elsewhere") from None
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not _is_alive(left.name.split(".")[-2]):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _is_alive(process: str) -> bool:
    """Does another process of this number exist? One that does may be writing still."""
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def refuse_folder(path: Path) -> None:
    """UserError for a folder where a file is to be written."""
    if path.is_dir():
        raise UserError(f"{path}: a folder is in the way of this file; move it elsewhere")


def refuse_file(path: Path) -> None:
    """UserError for a file where a folder is to be written."""
    if os.path.lexists(path) and not path.is_dir():
        raise UserError(f"{path}: a file is in the way of this folder; move it elsewhere")


def require(path: Path, stage: str) -> None:
    """UserError that names a missing file and the stage that writes it."""
    if not path.exists():
        raise UserError(f"{path}: missing; run `dvc repro {stage}` first")


def read_columns(path: Path, names: Sequence[str], stage: str, optional: Sequence[str] = ()) -> pa.Table:
    """Columns of a filtered table that `stage` writes, of the types that `schemas` states and without other gaps.

    `optional` ones are read where they are there. UserError when the file is missing or damaged, lacks a column, or has
    one of another type or with gaps.
    """
    # pyarrow, not iadsr.parquet: a machine that only encodes or trains may lack polars.
    require(path, stage)
    again = f"run `dvc repro {stage}` again"
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            present = file.schema_arrow.names
            wanted = [*names, *(name for name in optional if name in present)]
            absent = [name for name in wanted if name not in present]
            if absent:
                raise UserError(f"{path}: no column {absent[0]!r}; {again}")
            table = file.read(columns=wanted)
            table.validate(full=True)
    except (OSError, UnicodeDecodeError, pa.ArrowException):
        raise UserError(f"{path}: not a whole Parquet file; {again}") from None
    for name in wanted:
        gaps = table[name].null_count and name not in GAPS
        if gaps or not KINDS[FILTERED[name]](table.schema.field(name).type):
            without = "" if name in GAPS else " without gaps"
            raise UserError(f"{path}: column {name!r}: expected {FILTERED[name]}{without}; {again}")
    return table


def write_json(path: Path, content: Any) -> None:
    """Write sorted, indented JSON; NaN is refused, because no JSON reader need accept it."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file, which `np.load(path, mmap_mode="r")` maps without reading."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def new_memory_map(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    """A new .npy file to be filled piece by piece, whose whole size is taken from the disk at once.

    Without that, a disk that fills up later kills the process by a signal; with it, that is an OSError here.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(*parts: str) -> str:
    """SHA-256 over several strings, each length-prefixed, so that no two lists of parts collide."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(encoded)}:".encode())
        digest.update(encoded)
    return digest.hexdigest()
