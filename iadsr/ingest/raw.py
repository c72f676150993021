"""What every source delivers: interactions in the order of the raw file, and the items that occur in them."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.official_files import DatasetSize
from iadsr.ingest.rejects import BadRow, Rejects

LONGEST_INTEGER = 10_000  # bits; Python writes no integer of more than 4,300 digits
UNTITLED = "untitled item"
CATEGORY_SEPARATOR = " > "
# Year 10000 in seconds: a larger number is not a time in seconds, but most likely one in milliseconds.
END_OF_TIME = 253_402_300_800


class TitleOrigins(NamedTuple):
    """How many items took their text from their title, from their categories, or from neither."""

    title: int
    categories: int
    neutral: int


@dataclass(frozen=True)
class Raw:
    """Both tables, where the titles came from, and how many rows were of an earlier item.

    Columns are as `schemas` says; the ids of the interactions may be categories, which become text when written.
    `timed`: are the times those of the source, and not the numbers of its rows? `notes` are for the user to read.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    titles: TitleOrigins
    repeated_items: int
    timed: bool = True
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> DatasetSize:
        return DatasetSize(self.interactions[schemas.USER].n_unique(), self.items.height, self.interactions.height)


class Item(NamedTuple):
    """An item's text as its source has it: either part may be empty."""

    title: str = ""
    categories: str = ""


class Names(NamedTuple):
    """A source's two tables, as messages name them."""

    interactions: str
    items: str


@dataclass
class ItemRows:
    """Texts of items, row by row: of several rows for an item the first counts, the others are only counted."""

    texts: dict[str, Item] = field(default_factory=dict)
    repeated: int = 0

    def add(self, item: str, text: Item) -> None:
        self.repeated += item in self.texts
        self.texts.setdefault(item, text)


@dataclass
class InteractionRows:
    """Interactions one by one, in 20 bytes each: each id is held once, and numbered as it appears."""

    users: array[int] = field(default_factory=lambda: array("I"))
    items: array[int] = field(default_factory=lambda: array("I"))
    times: array[int] = field(default_factory=lambda: array("q"))
    ratings: array[float] = field(default_factory=lambda: array("f"))
    seen_users: dict[str, int] = field(default_factory=dict)
    seen_items: dict[str, int] = field(default_factory=dict)

    def add(self, user: str, item: str, time: int, rating: float = math.nan) -> None:
        self.users.append(self.seen_users.setdefault(user, len(self.seen_users)))
        self.items.append(self.seen_items.setdefault(item, len(self.seen_items)))
        self.times.append(time)
        self.ratings.append(rating)

    def add_all(self, users: Iterable[str], items: Iterable[str], times: np.ndarray, ratings: np.ndarray) -> None:
        """Add several rows at once."""
        for ids, places, seen in ((users, self.users, self.seen_users), (items, self.items, self.seen_items)):
            places.extend([seen.setdefault(name, len(seen)) for name in ids])
        self.times.frombytes(times.astype(np.int64).tobytes())
        self.ratings.frombytes(ratings.astype(np.float32).tobytes())

    def frame(self) -> pl.DataFrame:
        """user, item: categories; timestamp: int64 seconds; rating: float32, left out where no row has one."""
        columns = {
            schemas.USER: _categories(self.seen_users, self.users),
            schemas.ITEM: _categories(self.seen_items, self.items),
            schemas.TIMESTAMP: pl.Series(np.frombuffer(self.times, np.int64)),
            schemas.RATING: pl.Series(np.frombuffer(self.ratings, np.float32)).fill_nan(None),
        }
        return without_empty_optionals(pl.DataFrame(columns))


def _categories(texts: Iterable[str], rows: array[int]) -> pl.Series:
    """For each row the text at its place, as a category."""
    return pl.Series(list(texts), dtype=pl.Categorical)[np.frombuffer(rows, np.uint32)]


def raw_tables(interactions: pl.DataFrame, found: ItemRows, names: Names, rejects: Rejects) -> Raw:
    """Join interactions with the texts found for their items, each item once, in order of first appearance.

    An item without a title takes its categories as title, else a neutral text. An item without any row counts as a bad
    row of the item table; tolerated ones stay with the neutral text, because dropping them would make other sequences
    and another k-core. UserError for no interactions, and for more bad rows than tolerated.
    """
    if interactions.is_empty():
        raise UserError(f"{names.interactions}: no interactions in it")
    ids = interactions[schemas.ITEM].unique(maintain_order=True).to_list()
    _note_missing(ids, found, names, rejects)
    texts = [found.texts.get(item, Item()) for item in ids]
    columns = {
        schemas.ITEM: ids,
        schemas.TITLE: [text.title or text.categories or UNTITLED for text in texts],
        schemas.CATEGORIES: [text.categories for text in texts],
    }
    items = pl.DataFrame(columns, schema=dict.fromkeys(schemas.RAW_ITEMS, pl.String))
    return Raw(interactions, items, _title_origins(texts), found.repeated)


def _note_missing(ids: list[str], found: ItemRows, names: Names, rejects: Rejects) -> None:
    missing = [item for item in ids if item not in found.texts]
    needed = rejects.count + len(missing)
    # a file without any of the items is the wrong one, whatever is tolerated
    wrong = len(missing) == len(ids)
    if wrong or needed > rejects.limit:
        remedy = "" if wrong else f", or raise ingest.max_rejects to {needed} to give them a neutral text"
        raise UserError(
            f"{names.items}: no row for item {missing[0]!r}, which occurs in {names.interactions} ({len(missing):,} of "
            f"its {len(ids):,} items have none); take the right, whole file, add rows (even without a title){remedy}"
        )
    for item in missing:
        rejects.add(names.items, None, f"no row for this item, which is now {UNTITLED!r}", item)


def _title_origins(texts: list[Item]) -> TitleOrigins:
    titled = sum(bool(text.title) for text in texts)
    neutral = sum(not text.title and not text.categories for text in texts)
    return TitleOrigins(titled, len(texts) - titled - neutral, neutral)


def without_empty_optionals(interactions: pl.DataFrame) -> pl.DataFrame:
    """Drop optional columns that hold nothing, so that their presence tells whether the source knows them."""
    optional = [name for name in schemas.RAW_INTERACTIONS_OPTIONAL if name in interactions.columns]
    return interactions.drop([name for name in optional if interactions[name].null_count() == interactions.height])


def collapsed(text: str) -> str:
    """The text on one line with single spaces, and without code points that UTF-8 cannot carry."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def required_id(value: Any, name: str) -> str:
    """An id as text, from text or an integer; BadRow if it is missing or anything else."""
    if value is None or value == "":
        raise BadRow(f"{name} is missing")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRow(f"{name} is neither text nor an integer")
    if isinstance(value, int) and value.bit_length() > LONGEST_INTEGER:
        raise BadRow(f"{name} is an integer of too many digits")
    text = str(value).strip()
    if not text:
        raise BadRow(f"{name} is missing")
    if not _is_utf8(text):
        raise BadRow(f"{name} is not valid UTF-8")
    return text


def _is_utf8(text: str) -> bool:
    # isascii answers for nearly all ids at once; JSON's \ud800 makes text that no file can hold
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def required_seconds(value: Any, name: str) -> int:
    """A time in whole seconds since 1970; BadRow if it is missing, no number, or beyond the year 9999."""
    if value is None or value == "":
        raise BadRow(f"{name} is missing")
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise BadRow(f"{name} is not a number of seconds")
    if abs(seconds) >= END_OF_TIME:
        raise BadRow(f"{name} is beyond the year 9999 (expected seconds since 1970)")
    return math.floor(seconds)


def optional_number(value: Any) -> float:
    """A number, or NaN for anything else."""
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
