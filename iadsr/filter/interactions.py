"""From raw interactions to sequences: duplicates, k-core, time order, leave-one-out split.

Tables of tens of millions of rows must fit a small machine: users and items are compared as numbers, one for each
different text (the codes of polars' categories), by counting and sorting of arrays rather than by joins and windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from iadsr.errors import UserError
from iadsr.params import Group
from iadsr.parquet import read_table
from iadsr.schemas import (
    IS_NOISE,
    ITEM,
    NANOSECOND,
    POSITION,
    RAW_ITEM,
    RAW_ITEMS,
    RAW_USER,
    ROW,
    SEQUENCES,
    SEQUENCES_OPTIONAL,
    SPLIT,
    TEST,
    TIMESTAMP,
    TRAIN,
    USER,
    VALIDATION,
)

HELD_OUT_ROWS = 2  # a user's last rows, validation and test
SPLITS = pl.Enum([TRAIN, VALIDATION, TEST])


class FilterParams(Group):
    """`filter` of params.yaml."""

    duplicates: Literal["keep", "first", "last"]
    ties: Literal["raw", "shuffled"]
    ties_seed: int = Field(ge=0)


class Core(NamedTuple):
    """How many interactions each user and item must have, and the parameter that sets it, for messages."""

    size: int
    key: str


def read_raw(path: Path) -> pl.DataFrame:
    """interactions.parquet of `ingest`, ids as categories.

    UserError where a column is missing, of another type than `ingest` writes, or has gaps.
    """
    table = read_table(path, "ingest", categories=(USER, ITEM))
    optional = {NANOSECOND: pl.Int32, IS_NOISE: pl.Boolean, ROW: pl.UInt32}
    present = {name: kind for name, kind in optional.items() if name in table.columns}
    _require(table, {USER: pl.Categorical, ITEM: pl.Categorical, TIMESTAMP: pl.Int64, **present}, path)
    return table


def with_rows(interactions: pl.DataFrame) -> pl.DataFrame:
    """With the column row: where `ingest` has rejected no row of the source, it has not written their numbers."""
    if ROW in interactions.columns:
        return interactions
    return interactions.with_columns(pl.Series(ROW, np.arange(interactions.height, dtype=np.uint32)))


def read_raw_items(path: Path) -> pl.DataFrame:
    """items.parquet of `ingest`; UserError as in `read_raw`."""
    table = read_table(path, "ingest")
    _require(table, dict.fromkeys(RAW_ITEMS, pl.String), path)
    return table


def _require(table: pl.DataFrame, kinds: Mapping[str, Any], path: Path) -> None:
    """UserError unless the table's columns are of these types and without gaps."""
    for name, kind in kinds.items():
        if table.schema.get(name) != kind or table[name].null_count():
            raise UserError(f"{path}: column {name!r} is not as `ingest` writes it; run `dvc repro ingest` again")


def codes(column: pl.Series) -> np.ndarray:
    """A small number for each value, the same for equal ones: an integer itself, for a text its category's code."""
    if column.dtype.is_integer():
        return column.to_numpy()
    return column.cast(pl.Categorical).to_physical().to_numpy()


def pair_keys(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """A number for each row, the same for the same user and item."""
    return users.astype(np.int64) * beyond(items) + items


def distinct(keys: np.ndarray) -> np.ndarray:
    """Each of the keys once, ascending; `keys` is sorted in place."""
    keys.sort()
    return keys[starts(keys)]


def core_rows(interactions: pl.DataFrame, duplicates: str, core: Core) -> pl.DataFrame:
    """All rows of the users and items of the k-core, in which a pair of them counts once unless duplicates are kept.

    So the core does not depend on which of several rows `drop_duplicates` keeps afterwards. UserError when it is empty.
    """
    users, items = codes(interactions[USER]), codes(interactions[ITEM])
    if duplicates == "keep":
        enough = _core_members(users, items, core)
    else:
        enough = _core_members(*np.divmod(distinct(pair_keys(users, items)), beyond(items)), core)
    return interactions.filter(pl.Series(enough[0][users] & enough[1][items]))


def k_core(interactions: pl.DataFrame, core: Core) -> pl.DataFrame:
    """The largest subset where every user and every item has at least `core` interactions, in the same order.

    UserError when nothing is left.
    """
    return core_rows(interactions, "keep", core)


def _core_members(users: np.ndarray, items: np.ndarray, core: Core) -> tuple[np.ndarray, np.ndarray]:
    """For each code of a user, and of an item, whether it is in the k-core of these rows; UserError for none."""
    rows, sizes = len(users), (beyond(users), beyond(items))
    while True:
        many_users, many_items = (
            np.bincount(each, minlength=size) >= core.size for each, size in zip((users, items), sizes, strict=True)
        )
        kept = many_users[users] & many_items[items]
        if kept.all():
            break
        users, items = users[kept], items[kept]
    if not len(users):
        raise UserError(f"params.yaml: {core.key}: the {core.size}-core of {rows:,} interactions is empty; lower it")
    return many_users, many_items


def beyond(numbers: np.ndarray) -> int:
    """The least number greater than all; 0 for none."""
    return int(numbers.max()) + 1 if len(numbers) else 0


def drop_duplicates(ordered: pl.DataFrame, policy: str) -> pl.DataFrame:
    """Of the rows with the same user and item, in order of time, keep all, the first, or the last before the held-out.

    No training row may stand or fall by what comes in validation or test. `first` looks backwards only. `last` looks
    forward, so it drops training rows for the sake of later training rows, and a user's last two rows stay whatever
    they are: A B C D A stays as it is (training A B C), where the plain rule would leave B C D A and so tell a model,
    by the A that is missing, which item is the answer. Users stand one after the other.
    """
    if policy == "keep":
        return ordered
    users, items = codes(ordered[USER]), codes(ordered[ITEM])
    order = np.lexsort((*_halves(items), *_halves(users)))  # stable: a pair's rows stay in order of time
    again = (users[order[1:]] == users[order[:-1]]) & (items[order[1:]] == items[order[:-1]])
    earlier, later = order[:-1][again], order[1:][again]
    kept = np.ones(len(users), dtype=bool)
    kept[later if policy == "first" else earlier[~_last(users, HELD_OUT_ROWS)[later]]] = False
    return ordered.filter(pl.Series(kept))


def _halves(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper 16 bits of numbers below 2 ** 32, which numpy sorts by radix: twice as fast."""
    return (numbers & 0xFFFF).astype(np.uint16), (numbers >> 16).astype(np.uint16)


def starts(values: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.concatenate(([len(values) > 0], values[1:] != values[:-1])))


def _last(users: np.ndarray, count: int) -> np.ndarray:
    """Whether each row is one of the last `count` of its user, whose rows stand together."""
    last = np.ones(len(users), dtype=bool)
    last[:-count] = users[count:] != users[:-count]
    return last


def positions_of(users: np.ndarray) -> np.ndarray:
    """The place of each row among those of its user, from 0; the rows of a user stand together."""
    begins = starts(users)
    lengths = np.diff(begins, append=len(users))
    return np.arange(len(users), dtype=np.int32) - np.repeat(begins.astype(np.int32), lengths)


def time_keys(interactions: pl.DataFrame) -> list[str]:
    """The columns that hold a row's time: whole seconds, then the rest of a second where the source knows it."""
    return [name for name in (TIMESTAMP, NANOSECOND) if name in interactions.columns]


def time_order(interactions: pl.DataFrame, ties: str, seed: int) -> pl.DataFrame:
    """Sort each user's rows by time; equal times stay in raw order, or are shuffled with `seed`.

    Times are equal if they are so to the last digit that the source knows, not merely within one second. Users stand in
    the order of their first row. Raw order decides the test item wherever the last two times are equal (43% of Beauty's
    users), so published numbers on these files are comparable only under it.
    """
    keys = [interactions[name].to_numpy() for name in reversed(time_keys(interactions))]
    if ties == "shuffled":
        keys.insert(0, np.random.default_rng(seed).permutation(interactions.height))
    first_rows = _first_rows(codes(interactions[USER]))
    return interactions[np.lexsort((*keys, *_halves(first_rows)))]  # stable


def _first_rows(values: np.ndarray) -> np.ndarray:
    """For each row, the first one with the same value."""
    first = np.empty(beyond(values), dtype=np.uint32)
    backwards = values[::-1]
    first[backwards] = np.arange(len(values), dtype=np.uint32)[::-1]  # of several to one place, the last one stays
    return first[values]


def reindex(interactions: pl.DataFrame, items: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Number users from 0 and items from 1 (0 is padding) in order of appearance; return sequences, users, items.

    UserError for an item of the interactions that has no row in the item table.
    """
    user, raw_users = _numbered(interactions[USER], 0)
    item, raw_items = _numbered(interactions[ITEM], 1)
    catalogue = pl.DataFrame({ITEM: pl.Series(range(1, len(raw_items) + 1), dtype=pl.Int32), RAW_ITEM: raw_items})
    titled = catalogue.join(items.rename({ITEM: RAW_ITEM}), on=RAW_ITEM, how="left", maintain_order="left")
    untitled = titled.filter(pl.col("title").is_null())
    if untitled.height:
        first = untitled[RAW_ITEM][0]
        raise UserError(f"items.parquet: no row for item {first!r} ({untitled.height} such items); run ingest again")
    users = pl.DataFrame({USER: pl.Series(range(len(raw_users)), dtype=pl.Int32), RAW_USER: raw_users})
    sequences = interactions.select(user, item, pl.exclude(USER, ITEM))
    return sequences, users, titled


def _numbered(column: pl.Series, start: int) -> tuple[pl.Series, pl.Series]:
    """Numbers from `start` in order of appearance instead of texts, and the texts in order of their numbers."""
    if column.dtype == pl.String:
        column = column.cast(pl.Categorical)
    texts = column.unique(maintain_order=True)
    places = codes(column)
    numbers = np.zeros(beyond(places), dtype=np.int32)
    numbers[codes(texts)] = np.arange(start, start + len(texts))
    return pl.Series(column.name, numbers[places]), texts.cast(pl.String)


def refuse_short(interactions: pl.DataFrame, core: Core) -> None:
    """UserError for users with fewer than three rows, which cannot be split, with one of them as an example."""
    lengths = interactions.group_by(USER, maintain_order=True).len()
    short = lengths.filter(pl.col("len") < HELD_OUT_ROWS + 1)
    if short.height:
        user, length = short.row(0)
        raise UserError(
            f"{short.height} users have fewer than 3 interactions and cannot be split into train, validation and test, "
            f"for example {user!r} with {length}; set {core.key} in params.yaml to 3 or more"
        )


def leave_one_out(sequences: pl.DataFrame) -> pl.DataFrame:
    """Add `position` (0-based) and `split`: a user's last row is test, the one before validation, the rest train.

    Every user has at least three rows, which `refuse_short` sees to, and they stand one after the other.
    """
    users = codes(sequences[USER])
    split = _last(users, HELD_OUT_ROWS).astype(np.uint8) + _last(users, 1)  # places in SPLITS
    return sequences.with_columns(
        pl.Series(POSITION, positions_of(users)), pl.Series(SPLIT, split, dtype=pl.UInt8).cat.to(SPLITS)
    )


def arranged(sequences: pl.DataFrame) -> pl.DataFrame:
    """The columns of sequences.parquet in their order, followed by those that not every source has."""
    extra = [name for name in SEQUENCES_OPTIONAL if name in sequences.columns]
    return sequences.select(*SEQUENCES, *extra)
