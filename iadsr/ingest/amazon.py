"""Amazon 2014 (He & McAuley 2016, McAuley et al. 2015): 5-core reviews and product descriptions of one category.

Reviews are one JSON object a line, descriptions one Python literal a line; both are read a block of lines at a time,
because the official files of a category take gigabytes when unpacked. Blocks of reviews go through pyarrow, which is
several times as fast as Python; one with a line about which the two might differ goes through Python line by line.
"""

from __future__ import annotations

import ast
import gzip
import html
import json
import math
import re
import warnings
import zlib
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pydantic

from iadsr.errors import UserError
from iadsr.ingest import official_files
from iadsr.ingest.raw import (
    CATEGORY_SEPARATOR,
    END_OF_TIME,
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

# A description that begins with its asin and whose quotation marks all close; possessive, so it never backtracks.
AT_A_GLANCE = re.compile(r"""\{'asin': '(\w++)'(?:[^'"]++|'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")*+""")
READ, BLOCK = 1 << 16, 1 << 24  # bytes unpacked at once, and parsed at once
# Fields of a review, of which all but the last must be there
REVIEW = pa.schema(
    [("reviewerID", pa.string()), ("asin", pa.string()), ("unixReviewTime", pa.int64()), ("overall", pa.float64())]
)
PLAIN_ID = "^[!-~]+$"
NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


class Amazon2014(Group):
    """params.yaml, `datasets.<name>.source`: the category as the official file names spell it."""

    kind: Literal["amazon-2014"]
    category: str = pydantic.Field(pattern=r"^[A-Za-z0-9_]+$")


def load(source: Amazon2014, fetch: Callable[[official_files.OfficialFile], Path], rejects: Rejects) -> Raw:
    """Interactions in the order of the reviews, with the items that occur in them.

    UserError for a missing or damaged file, and for more bad rows, or items without a description, than tolerated.
    """
    reviews, meta = (
        fetch(file(source.category)) for file in (official_files.amazon_reviews, official_files.amazon_meta)
    )
    rows = read_reviews(reviews, rejects)
    items = read_meta(meta, rows.seen_items, rejects)
    raw = raw_tables(rows.frame(), items, Names(reviews.name, meta.name), rejects)
    official_files.check_counts(official_files.amazon_reviews(source.category), raw.counts)
    return raw


def read_reviews(path: Path, rejects: Rejects) -> InteractionRows:
    """Read reviewerID, asin, unixReviewTime and, where present, overall from every line."""
    rows = InteractionRows()
    for first, block in _blocks(path):
        plain = _plain_reviews(block)
        if plain is not None:
            rows.add_all(*plain)
            continue
        for number, line in _lines(first, block):
            try:
                rows.add(*_interaction(_decoded(line)))
            except BadRow as reason:
                rejects.add(path.name, number, str(reason), line.decode("utf-8", "replace").strip())
    rejects.check()
    return rows


def _plain_reviews(block: bytes) -> tuple[list[str], list[str], np.ndarray, np.ndarray] | None:
    """User, item, time and rating of each line, NaN for no rating; None unless all lines are as those of nearly all
    files: JSON with ids of visible ASCII, a whole number as time, and a number or nothing as rating."""
    if not block.startswith(b"{"):  # pyarrow passes over a byte order mark
        return None
    try:
        block.decode("utf-8")
        options = pyarrow.json.ParseOptions(explicit_schema=REVIEW, unexpected_field_behavior="ignore")
        table = pyarrow.json.read_json(pa.BufferReader(block), parse_options=options)
    except (UnicodeDecodeError, pa.ArrowException):
        return None
    user, item, time, rating = (column.combine_chunks() for column in table.columns)
    # pyarrow lets a line hold several objects, and an object several lines
    if len(table) != block.count(b"\n") + 1 or user.null_count or item.null_count or time.null_count:
        return None
    ids = all(pc.all(pc.match_substring_regex(column, PLAIN_ID)).as_py() for column in (user, item))
    earliest, latest = pc.min_max(time).as_py().values()
    if not ids or earliest <= -END_OF_TIME or latest >= END_OF_TIME:
        return None
    return user.to_pylist(), item.to_pylist(), time.to_numpy(), rating.fill_null(math.nan).to_numpy()


def read_meta(path: Path, wanted: Container[str], rejects: Rejects) -> ItemRows:
    """Read title and categories of the wanted items; of an item that occurs twice, the first line counts.

    Of items that are not wanted, which are 19 of 20, the line is only checked for being whole: parsing takes minutes.
    """
    items = ItemRows()
    # Python warns of odd escapes in literals, which are the publisher's concern
    with warnings.catch_warnings(action="ignore"):
        for number, line in (numbered for first, block in _blocks(path) for numbered in _lines(first, block)):
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


def _lines(first: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    """Line numbers and lines; those of nothing but white space are skipped."""
    for number, line in enumerate(block.split(b"\n"), first):
        if line and not line.isspace():
            yield number, line


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number of each block's first line, from 1, and the block; the next block is unpacked meanwhile."""
    blocks = _unpacked(path)
    with ThreadPoolExecutor(1) as other:
        following = other.submit(next, blocks, None)
        while block := following.result():
            following = other.submit(next, blocks, None)
            yield block


def _unpacked(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number of the first line, then whole lines of about BLOCK bytes in all, without the last line's end."""
    number, pieces, size = 1, [b""], 0
    try:
        with gzip.open(path) as file:
            while piece := file.read1(READ):
                pieces.append(piece)
                size += len(piece)
                if size >= BLOCK and b"\n" in piece:
                    block, _, rest = b"".join(pieces).rpartition(b"\n")
                    yield number, block
                    number, pieces, size = number + block.count(b"\n") + 1, [rest], len(rest)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        number += sum(piece.count(b"\n") for piece in pieces) - 1
        raise UserError(
            f"{path}, after row {number}: truncated or corrupt ({error}); delete it and fetch it again"
        ) from None
    if size:
        yield number, b"".join(pieces).removesuffix(b"\n")
    # a file of no bytes is a whole gzip of nothing to Python
    elif number == 1:
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
