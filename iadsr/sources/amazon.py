"""Amazon 2014 (He & McAuley 2016, McAuley et al. 2015): 5-core reviews and product descriptions of one category.

Reviews are one JSON object a line, descriptions one Python literal a line; both are read line by line, because the
official descriptions of a category take gigabytes when unpacked.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import re
import warnings
import zlib
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, Literal

import pydantic

from iadsr import catalogue
from iadsr.errors import UserError
from iadsr.params import Group
from iadsr.rejects import BadRow, Rejects
from iadsr.sources.raw import (
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

# A description that begins with its asin and whose quotation marks all close; possessive, so it never backtracks.
AT_A_GLANCE = re.compile(r"""\{'asin': '(\w++)'(?:[^'"]++|'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")*+""")
NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


class Amazon2014(Group):
    """params.yaml, `datasets.<name>.source`: the category as the official file names spell it."""

    kind: Literal["amazon-2014"]
    category: str = pydantic.Field(pattern=r"^[A-Za-z0-9_]+$")


def load(source: Amazon2014, fetch: Callable[[catalogue.OfficialFile], Path], rejects: Rejects) -> Raw:
    """Interactions in the order of the reviews, with the items that occur in them.

    UserError for a missing or damaged file, and for more bad rows, or items without a description, than tolerated.
    """
    reviews, meta = (fetch(file(source.category)) for file in (catalogue.amazon_reviews, catalogue.amazon_meta))
    rows = read_reviews(reviews, rejects)
    items = read_meta(meta, rows.seen_items, rejects)
    raw = raw_tables(rows.frame(), items, Names(reviews.name, meta.name), rejects)
    catalogue.check_counts(catalogue.amazon_reviews(source.category), raw.counts)
    return raw


def read_reviews(path: Path, rejects: Rejects) -> InteractionRows:
    """Read reviewerID, asin, unixReviewTime and, where present, overall from every line."""
    rows = InteractionRows()
    for number, line in _lines(path):
        try:
            rows.add(*_interaction(_decoded(line)))
        except BadRow as reason:
            rejects.add(path.name, number, str(reason), line.decode("utf-8", "replace").strip())
    rejects.check()
    return rows


def read_meta(path: Path, wanted: Container[str], rejects: Rejects) -> ItemRows:
    """Read title and categories of the wanted items; of an item that occurs twice, the first line counts.

    Of items that are not wanted, which are 19 of 20, the line is only checked for being whole: parsing takes minutes.
    """
    items = ItemRows()
    # Python warns of odd escapes in literals, which are the publisher's concern
    with warnings.catch_warnings(action="ignore"):
        for number, line in _lines(path):
            try:
                text = _decoded(line)
                if not _evidently_unwanted(text, wanted):
                    entry = _literal(text)
                    asin = required_id(entry.get("asin"), "asin")
                    if asin in wanted:
                        items.add(asin, Item(_title(entry), _categories(entry)))
            except BadRow as reason:
                rejects.add(path.name, number, str(reason), line.decode("utf-8", "replace").strip())
    rejects.check()
    return items


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and lines; those of nothing but white space are skipped."""
    number = 0
    try:
        with gzip.open(path) as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path}, after row {number}: truncated or corrupt ({error}); delete it and fetch it again"
        ) from None
    # a file of no bytes is a whole gzip of nothing to Python
    if number == 0:
        raise UserError(f"{path}: nothing in it; delete it and fetch it again")


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadRow("not valid UTF-8") from None


def _interaction(line: str) -> tuple[str, str, int, float]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRow("not valid JSON") from None
    if not isinstance(entry, dict):
        raise BadRow("expected a JSON object")
    user, item = (required_id(entry.get(name), name) for name in ("reviewerID", "asin"))
    time = required_seconds(entry.get("unixReviewTime"), "unixReviewTime")
    return user, item, time, optional_number(entry.get("overall"))


def _evidently_unwanted(line: str, wanted: Container[str]) -> bool:
    match = AT_A_GLANCE.fullmatch(line)
    return match is not None and line.endswith("}") and match[1] not in wanted


def _literal(line: str) -> dict[Any, Any]:
    try:
        entry = ast.literal_eval(line)
    except NO_LITERAL:
        raise BadRow("not a Python literal") from None
    if not isinstance(entry, dict):
        raise BadRow("expected a Python dict")
    return entry


def _title(entry: dict[Any, Any]) -> str:
    title = entry.get("title")
    return collapsed(html.unescape(title)) if isinstance(title, str) else ""


def _categories(entry: dict[Any, Any]) -> str:
    """The first of the item's paths through the tree of categories, as `A > B > C`; a plain list is one path."""
    paths = entry.get("categories")
    path = paths[0] if isinstance(paths, list) and paths and isinstance(paths[0], list) else paths
    names = [collapsed(html.unescape(name)) for name in path if isinstance(name, str)] if isinstance(path, list) else []
    return CATEGORY_SEPARATOR.join(name for name in names if name)
