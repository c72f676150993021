"""Amazon 2014 (He & McAuley 2016, McAuley et al. 2015): 5-core reviews and product descriptions of one category.

Reviews are one JSON object a line, descriptions one Python literal a line; both are read a block of lines at a time,
because the official files of a category take gigabytes when unpacked. Blocks of reviews go through pyarrow, which is
several times as fast as Python; one with a line about which the two might differ goes through Python line by line.
"""

from __future__ import annotations

import ast
import html
import json
import math
import re
import warnings
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
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
LONGEST = 1 << 24  # bytes of a line; official ones have thousands
DEEPEST = 100  # brackets within brackets; official ones have three, and parsers, which recurse, fail at thousands
MOST_OUTSIDE = 1 << 16  # characters of a literal outside its strings, because each may become an object
STRING = r"""(?:'(?:[^'\\]++|\\.)*+'|"(?:[^"\\]++|\\.)*+")"""
NUMBER = r"[+-]?(?:\d\w*+(?:\.\w*+)?|\.\d\w*+)(?:(?<=[eE])[+-]\d++)?"
# What Python writes of lists, dicts and plain values; nothing is added up, called or joined, so only brackets nest
LITERAL = re.compile(
    rf"(?:[\s(\[{{]*+(?:[bru]{{0,2}}{STRING}|{NUMBER}|True|False|None)?+[\s)\]}}]*+(?:[,:]|\Z))*+", re.I
)
STRINGS, JSON_STRINGS = re.compile(STRING), re.compile(r'"(?:[^"\\]++|\\.)*+"')
NO_BRACKETS = bytes(set(range(256)) - set(b"([{\n"))
DEPTH = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
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
    # pyarrow passes over a byte order mark, and nests as deep as it likes
    if not block.startswith(b"{") or _may_be_deep(block) or _has_long_line(block):
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
        for first, block in _blocks(path):
            may_be_deep = _may_be_deep(block)
            for number, line in _lines(first, block):
                try:
                    entry = _wanted(line, wanted, may_be_deep)
                    if entry is not None:
                        items.add(required_id(entry["asin"], "asin"), Item(_title(entry), _categories(entry)))
                except BadRow as reason:
                    rejects.add(path.name, number, str(reason), line.decode("utf-8", "replace").strip())
    rejects.check()
    return items


def _lines(first: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    """Line numbers and lines; those of nothing but white space are skipped."""
    for number, line in enumerate(block.split(b"\n"), first):
        if line and not line.isspace():
            yield number, line


def _may_be_deep(block: bytes) -> bool:
    """Whether a line has more opening brackets than may be nested."""
    return max(map(len, block.translate(None, NO_BRACKETS).split(b"\n"))) > DEEPEST


def _has_long_line(block: bytes) -> bool:
    start = 0
    while len(block) - start > LONGEST:
        end = block.rfind(b"\n", start, start + LONGEST + 1)
        if end < 0:
            return True
        start = end + 1
    return False


def _blocks(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number of each block's first line, from 1, and the block; the next block is unpacked meanwhile."""
    blocks = _unpacked(path)
    with ThreadPoolExecutor(1) as other:
        following = other.submit(next, blocks, None)
        while block := following.result():
            following = other.submit(next, blocks, None)
            yield block


def _unpacked(path: Path) -> Iterator[tuple[int, bytes]]:
    """The number of the first line, then whole lines of about BLOCK bytes in all, without the last line's end.

    A line longer than LONGEST stands in a block of its own, of which only as much is there as shows that.
    """
    number, pieces, size, ended = 1, [b""], 0, False
    unpacked = official_files.gunzipped(path, READ)
    try:
        for piece in unpacked:
            pieces.append(piece)
            size, ended = size + len(piece), ended or b"\n" in piece
            if size >= BLOCK and ended:
                block, _, rest = b"".join(pieces).rpartition(b"\n")
                yield number, block
                number, pieces, size, ended = number + block.count(b"\n") + 1, [rest], len(rest), False
            elif size > LONGEST and not ended:
                yield number, b"".join(pieces)[: LONGEST + 1]
                rest = _after_line(unpacked)
                number, pieces, size, ended = number + 1, [rest], len(rest), b"\n" in rest
    except ValueError as error:
        number += sum(piece.count(b"\n") for piece in pieces) - 1
        raise UserError(f"{path}, after row {number}: {error}; replace it by a whole copy") from None
    if size:
        yield number, b"".join(pieces).removesuffix(b"\n")
    # a file of no bytes is a whole gzip of nothing to Python
    elif number == 1:
        raise UserError(f"{path}: nothing in it; replace it by a whole copy")


def _after_line(pieces: Iterator[bytes]) -> bytes:
    """Pass over the rest of a line; what follows it in the piece in which it ends."""
    return next((piece.partition(b"\n")[2] for piece in pieces if b"\n" in piece), b"")


def _decoded(line: bytes) -> str:
    if len(line) > LONGEST:
        raise BadRow(f"longer than {LONGEST:,} bytes")
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadRow("not valid UTF-8") from None


def _require_shallow(line: str, strings: re.Pattern[str], language: str) -> None:
    """BadRow for brackets nested too deep, outside strings."""
    if sum(map(line.count, "([{")) > DEEPEST:
        depths = accumulate(DEPTH.get(character, 0) for character in strings.sub("", line))
        if max(depths, default=0) > DEEPEST:
            raise BadRow(f"not {language} (nested more than {DEEPEST} deep)")


def _interaction(line: str) -> tuple[str, str, int, float]:
    _require_shallow(line, JSON_STRINGS, "valid JSON")
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRow("not valid JSON") from None
    if not isinstance(entry, dict):
        raise BadRow("expected a JSON object")
    user, item = (required_id(entry.get(name), name) for name in ("reviewerID", "asin"))
    time = required_seconds(entry.get("unixReviewTime"), "unixReviewTime")
    return user, item, time, optional_number(entry.get("overall"))


def _wanted(line: bytes, wanted: Container[str], may_be_deep: bool) -> dict[Any, Any] | None:
    """The description of a wanted item, or None for that of another; BadRow if it cannot be read."""
    text = _decoded(line)
    if may_be_deep:
        _require_shallow(text, STRINGS, "a Python literal")
    if _evidently_unwanted(text, wanted):
        return None
    entry = _literal(text)
    return entry if required_id(entry.get("asin"), "asin") in wanted else None


def _evidently_unwanted(line: str, wanted: Container[str]) -> bool:
    match = AT_A_GLANCE.fullmatch(line)
    return match is not None and line.endswith("}") and match[1] not in wanted


def _literal(line: str) -> dict[Any, Any]:
    if not LITERAL.fullmatch(line) or (len(line) > MOST_OUTSIDE and len(STRINGS.sub("", line)) > MOST_OUTSIDE):
        raise BadRow("not a Python literal")
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
