"""Files that are either whole or absent: written beside their place and renamed, and named when they cannot be read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import DTypeLike

from iadsr.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it replaces `path`, on any error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
    """Yield an empty temporary folder that takes the place of the folder `path` on success; else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def require(path: Path, stage: str) -> None:
    """UserError that names a missing file and the stage that writes it."""
    if not path.exists():
        raise UserError(f"{path}: missing; run `dvc repro {stage}` first")


def read_columns(path: Path, names: Sequence[str], stage: str) -> pa.Table:
    """Columns of a Parquet file that `stage` writes; UserError when it is missing, damaged or lacks one of them."""
    # pyarrow, not iadsr.parquet: a machine that only encodes or trains may lack polars.
    require(path, stage)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            absent = [name for name in names if name not in file.schema_arrow.names]
            if absent:
                raise UserError(f"{path}: no column {absent[0]!r}; run `dvc repro {stage}` again")
            return file.read(columns=list(names))
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable Parquet file ({reason}); run `dvc repro {stage}` again") from None


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
