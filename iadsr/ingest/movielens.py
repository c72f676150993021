"""MovieLens-100K (Harper & Konstan 2015), read out of its zip without unpacking it."""

from __future__ import annotations

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
from iadsr.ingest.rejects import BadRow, Rejects
from iadsr.params import Group

INTERACTIONS = "ml-100k/u.data"
ITEMS = "ml-100k/u.item"
GENRES = "ml-100k/u.genre"
ENCODING = "iso-8859-1"
# u.item: id | title | release | video release | address | one flag a genre
FIRST_GENRE = 5
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


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
            refuse_unsafe_names(archive, path)
            rows = _interactions(archive, path.name, rejects)
            items = _items(archive, path.name, rejects)
    except DAMAGE as error:
        raise UserError(f"{path}: not a whole zip file ({error}); delete it and fetch it again") from None
    names = Names(f"{path.name}/{INTERACTIONS}", f"{path.name}/{ITEMS}")
    raw = raw_tables(rows.frame(), items, names, rejects)
    official_files.check_counts(official_files.MOVIELENS_100K, raw.counts)
    return raw


def refuse_unsafe_names(archive: zipfile.ZipFile, path: Path) -> None:
    """UserError if a member has an absolute path or climbs out with `..`: such a zip was made to do harm."""
    for name in archive.namelist():
        climbs = ".." in PurePosixPath(name.replace("\\", "/")).parts
        if climbs or name.startswith(("/", "\\")) or PureWindowsPath(name).drive:
            raise UserError(
                f"{path}: refused, because its member {name!r} lies outside the folder; fetch the file again"
            )


def _lines(archive: zipfile.ZipFile, member: str) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and lines without their end; lines of nothing but white space are skipped."""
    if member not in archive.namelist():
        raise UserError(
            f"{archive.filename}: expected {member} in it, found {', '.join(archive.namelist()) or 'nothing'}"
        )
    with archive.open(member) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.decode(ENCODING).rstrip("\r\n")


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
        if not index.isdecimal():
            raise UserError(f"{zip_name}/{GENRES}, row {number}: expected name|number, found {line!r}")
        genres[int(index)] = name
    return genres


def _item(line: str, genres: dict[int, str]) -> tuple[str, Item]:
    fields = line.split("|")
    if len(fields) < 2:
        raise BadRow(f"expected fields separated by |, found {len(fields)}")
    flagged = [genres[index] for index, flag in enumerate(fields[FIRST_GENRE:]) if flag == "1" and index in genres]
    return required_id(fields[0], "item"), Item(collapsed(fields[1]), CATEGORY_SEPARATOR.join(flagged))
