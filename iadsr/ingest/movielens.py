"""MovieLens-100K (Harper & Konstan 2015), read out of its zip without unpacking it."""

from __future__ import annotations

import copy
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from iadsr.errors import UserError
from iadsr.ingest import official_files
from iadsr.ingest.raw import (
    CATEGORY_SEPARATOR,
    InteractionRows,
    Item,
    ItemRows,
    Names,
    Raw,
    collapsed,
    optional_number,
    raw_tables,
    required_id,
    required_seconds,
)
from iadsr.ingest.rejects import TEXT_LENGTH, BadRow, Rejects
from iadsr.params import Group

INTERACTIONS = "ml-100k/u.data"
ITEMS = "ml-100k/u.item"
GENRES = "ml-100k/u.genre"
ENCODING = "iso-8859-1"
# u.item: id | title | release | video release | address | one flag a genre
FIRST_GENRE = 5
MOST = 20 * (official_files.MOVIELENS_100K.size or 0)  # bytes that a member may unpack to
LONGEST = 1 << 16  # bytes of a line
ENCRYPTED = 0x1 | 0x40 | 0x2000  # flags: with a password, strongly, its very name
PACKING = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# whatever zipfile raises of a file that is no whole zip
DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError)


class MovieLens100K(Group):
    """params.yaml, `datasets.<name>.source`: nothing to choose."""

    kind: Literal["movielens-100k"]


def load(fetch: Callable[[official_files.OfficialFile], Path], rejects: Rejects) -> Raw:
    """Interactions in the order of u.data with ratings; titles as in u.item, genres as categories.

    UserError for a missing, damaged or unsafe zip, and for more bad rows, or items without a row, than tolerated.
    """
    path = fetch(official_files.MOVIELENS_100K)
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_unsafe(archive, path)
            rows = _interactions(archive, path.name, rejects)
            items = _items(archive, path.name, rejects)
    except DAMAGE:
        raise UserError(f"{path}: not a whole zip file; replace it by a whole copy") from None
    names = Names(f"{path.name}/{INTERACTIONS}", f"{path.name}/{ITEMS}")
    raw = raw_tables(rows.frame(), items, names, rejects)
    official_files.check_counts(official_files.MOVIELENS_100K, raw.counts)
    return raw


def refuse_unsafe(archive: zipfile.ZipFile, path: Path) -> None:
    """UserError for members such as the official file does not have: such a zip was made, or changed, by others."""
    for member in archive.infolist():
        if reason := why_unsafe(member):
            raise UserError(
                f"{path}: refused, because its member {member.filename[:99]!r} {reason}; replace it by the official one"
            )


def why_unsafe(member: zipfile.ZipInfo) -> str:
    """What is wrong with a member of a zip, or nothing."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    climbs = ".." in PurePosixPath(name.replace("\\", "/")).parts
    if climbs or name.startswith(("/", "\\")) or PureWindowsPath(name).drive:
        return "lies outside the folder"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device, not a file"
    if member.flag_bits & ENCRYPTED:
        return "is encrypted"
    if member.compress_type not in PACKING:
        return "is packed in an uncommon way"
    return f"is larger than {MOST:,} bytes" if member.file_size > MOST else ""


def _lines(archive: zipfile.ZipFile, name: str) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines without their end; lines of nothing but white space are skipped.

    What is unpacked is counted, whatever size the zip declares: BadZipFile where that was another.
    """
    path, member = archive.filename, _member(archive, name)
    declared, unpacked, number = member.file_size, 0, 0
    member.file_size = 2 * MOST  # else zipfile would stop at the declared size without a word
    with archive.open(member) as file:
        while line := file.readline(LONGEST + 1):
            unpacked, number = unpacked + len(line), number + 1
            if len(line) > LONGEST or unpacked > MOST:
                much = (
                    f"longer than {LONGEST:,} bytes" if len(line) > LONGEST else f"more than {MOST:,} bytes up to here"
                )
                raise UserError(f"{path}/{name}, row {number}: {much}; replace the zip by the official file")
            if line.strip():
                yield number, line.decode(ENCODING).rstrip("\r\n")
    if unpacked != declared:
        raise zipfile.BadZipFile


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A copy of what the zip says about a member; UserError where it has none of this name."""
    names = archive.namelist()
    if name not in names:
        found = ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])]) or "nothing"
        raise UserError(f"{archive.filename}: expected {name} in it, found {found[:TEXT_LENGTH]}")
    return copy.copy(archive.getinfo(name))


def _interactions(archive: zipfile.ZipFile, zip_name: str, rejects: Rejects) -> InteractionRows:
    rows = InteractionRows()
    for number, line in _lines(archive, INTERACTIONS):
        try:
            rows.add(*_interaction(line))
        except BadRow as reason:
            rejects.add(f"{zip_name}/{INTERACTIONS}", number, str(reason), line)
    rejects.check()
    return rows


def _interaction(line: str) -> tuple[str, str, int, float]:
    fields = line.split("\t")
    if len(fields) != 4:
        raise BadRow(f"expected 4 tab-separated fields, found {len(fields)}")
    user, item, rating, time = fields
    return required_id(user, "user"), required_id(item, "item"), required_seconds(time, "time"), optional_number(rating)


def _items(archive: zipfile.ZipFile, zip_name: str, rejects: Rejects) -> ItemRows:
    genres = _genres(archive, zip_name)
    items = ItemRows()
    for number, line in _lines(archive, ITEMS):
        try:
            items.add(*_item(line, genres))
        except BadRow as reason:
            rejects.add(f"{zip_name}/{ITEMS}", number, str(reason), line)
    rejects.check()
    return items


def _genres(archive: zipfile.ZipFile, zip_name: str) -> dict[int, str]:
    """Number of the flag -> name, from lines `name|number`."""
    genres = {}
    for number, line in _lines(archive, GENRES):
        name, _, index = line.partition("|")
        if not index.isdecimal() or len(index) > 3:
            raise UserError(f"{zip_name}/{GENRES}, row {number}: expected name|number, found {line[:TEXT_LENGTH]!r}")
        genres[int(index)] = name
    return genres


def _item(line: str, genres: dict[int, str]) -> tuple[str, Item]:
    fields = line.split("|")
    if len(fields) < 2:
        raise BadRow(f"expected fields separated by |, found {len(fields)}")
    flagged = [genres[index] for index, flag in enumerate(fields[FIRST_GENRE:]) if flag == "1" and index in genres]
    return required_id(fields[0], "item"), Item(collapsed(fields[1]), CATEGORY_SEPARATOR.join(flagged))
