"""A user's folder of Parquet parts: which files in it count, and in which order.

The parts of a table whose own log says which of them count (Delta, Iceberg, Hudi), and of a write that has not ended,
are refused, as is whatever may be no file or the same one twice.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NoReturn

from iadsr.errors import UserError

# Folders that make the one around them no plain folder of parts, what it is, and what to do.
EXPORT = "its log says which files count; export it as plain Parquet"
UNFINISHED = "wait until it ends, or write it again"
SIGNS = {
    "_delta_log": ("a Delta table", EXPORT),
    ".hoodie": ("a Hudi table", EXPORT),
    "_spark_metadata": ("what a Spark stream has written", EXPORT),
    "_temporary": ("a write of Spark or Hadoop that has not ended", UNFINISHED),
    ".spark-staging": ("a write of Spark that has not ended", UNFINISHED),
    ".hive-staging": ("a write of Hive that has not ended", UNFINISHED),
}
LOGS = ("_delta_log", ".hoodie")
ICEBERG = ("an Iceberg table", EXPORT)


def all_files(folder: Path) -> list[Path]:
    """All plain files below a folder by path, links followed, those of a folder that is there twice once."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        found += [Path(place) / name for name in files]
    return [file for file in sorted(found) if file.is_file()]


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename}: this folder cannot be read ({error.strerror}); let it be readable") from None


def files_of(folder: Path) -> list[Path]:
    """All files but those that programs hide or keep beside the data (`_SUCCESS`, `.crc`), in natural order."""
    _refuse_around(folder)
    found: list[Path] = []
    places: dict[str, Path] = {}
    for place, folders, files in os.walk(folder, onerror=_refuse_unreadable, followlinks=True):
        here = Path(place)
        _refuse_twice(here, places)
        _refuse_tables(here, folders, files)
        folders[:] = [name for name in folders if not _hidden(name) or "=" in name]
        found += [here / name for name in files if not _hidden(name) and not name.endswith(".crc")]
    for file in found:
        _refuse_no_file(file)
        _refuse_twice(file, places)
    return sorted(found, key=natural)


def natural(path: Path) -> list[list[tuple[str, int]]]:
    """A key by which part.2 goes before part.10."""
    return [
        [(text, int(digits or 0)) for text, digits in re.findall(r"([^0-9]*)([0-9]*)", name)] for name in path.parts
    ]


def _hidden(name: str) -> bool:
    return name.startswith(("_", "."))


def _refuse_twice(path: Path, places: dict[str, Path]) -> None:
    """UserError for a link to what lies in the folder anyhow, or around it."""
    first = places.setdefault(os.path.realpath(path), path)
    if first != path:
        link = path if path.is_symlink() or not first.is_symlink() else first
        raise UserError(
            f"{link}: a link to {first if link is path else path}, so that rows would be read twice; give a folder "
            "without this link"
        )


def _refuse_tables(place: Path, folders: list[str], files: list[str]) -> None:
    iceberg = place.name == "metadata" and any(name.endswith(".metadata.json") for name in files)
    if iceberg:
        _refuse_table(place.parent, place.name, ICEBERG)
    for name in folders:
        for sign, what in SIGNS.items():
            if name.startswith(sign):
                _refuse_table(place, name, what)


def _refuse_around(folder: Path) -> None:
    """UserError for the data of an Iceberg table, or a partition of a Delta or Hudi table, without their log."""
    around = folder.absolute().parent
    if any(around.glob("metadata/*.metadata.json")):
        _refuse_table(around, "metadata", ICEBERG)
    for sign in LOGS:
        if (around / sign).is_dir():
            _refuse_table(around, sign, SIGNS[sign])


def _refuse_table(place: Path, name: str, found: tuple[str, str]) -> NoReturn:
    what, remedy = found
    raise UserError(f"{place}: {what} (it holds {name}), expected a folder of Parquet parts; {remedy}")


def _refuse_no_file(path: Path) -> None:
    if path.is_file():
        return
    what = "a link to nothing" if path.is_symlink() and not path.exists() else "no plain file (a pipe or a device?)"
    raise UserError(f"{path}: {what}, expected a Parquet part; give a folder without it")
