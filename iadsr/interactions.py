"""From raw interactions to sequences: duplicates, k-core, time order, leave-one-out split, planted noise."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import polars as pl
from pydantic import Field

from iadsr.errors import UserError
from iadsr.params import Group
from iadsr.schemas import (
    IS_NOISE,
    ITEM,
    NANOSECOND,
    POSITION,
    RAW_ITEM,
    RAW_USER,
    SEQUENCES,
    SPLIT,
    TEST,
    TIMESTAMP,
    TRAIN,
    USER,
    VALIDATION,
)

ORDER = "order"  # a row's place in the raw file
HELD_OUT = 2  # a user's last rows, validation and test


class FilterParams(Group):
    """`filter` of params.yaml."""

    duplicates: Literal["keep", "first", "last"]
    ties: Literal["raw", "shuffled"]
    ties_seed: int = Field(ge=0)


class NoiseParams(Group):
    """`noise` of params.yaml: planted items per real training interaction, and the seed of their draw."""

    ratio: float = Field(ge=0, le=10)
    seed: int = Field(ge=0)


class Core(NamedTuple):
    """How many interactions each user and item must have, and the parameter that says so, for messages."""

    size: int
    key: str


def checked_core(value: object, dataset: str) -> Core:
    """The `core` of a data set: a whole number, 0 or 1 for no filtering."""
    key = f"datasets.{dataset}.core"
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"params.yaml: {key}: expected a whole number of at least 0, found {value!r}")
    return Core(value, key)


def core_rows(interactions: pl.DataFrame, duplicates: str, core: Core) -> pl.DataFrame:
    """All rows of the users and items of the k-core, in which a pair of them counts once unless duplicates are kept.

    So the core does not depend on which of several rows `drop_duplicates` keeps afterwards. UserError when it is empty.
    """
    if duplicates == "keep":
        return k_core(interactions, core)
    pairs = k_core(interactions.select(USER, ITEM).unique(maintain_order=True), core)
    return interactions.join(pairs, on=[USER, ITEM], how="semi", maintain_order="left")


def drop_duplicates(ordered: pl.DataFrame, policy: str) -> pl.DataFrame:
    """Of the rows with the same user and item, in order of time, keep all, the first, or the last before the held-out.

    No training row may stand or fall by what comes in validation or test. `first` looks backwards only. `last` looks
    forward, so it drops training rows for the sake of later training rows, and a user's last two rows stay whatever
    they are: A B C D A stays as it is (training A B C), where the plain rule would leave B C D A and so tell a model,
    by the A that is missing, which item is the answer.
    """
    if policy == "keep":
        return ordered
    if policy == "first":
        return ordered.unique([USER, ITEM], keep="first", maintain_order=True)
    held_out = pl.int_range(pl.len()).over(USER) >= pl.len().over(USER) - HELD_OUT
    same = (USER, ITEM, "held_out")
    last = pl.int_range(pl.len()).over(same) == pl.len().over(same) - 1
    return ordered.with_columns(held_out=held_out).filter(pl.col("held_out") | last).drop("held_out")


def time_keys(interactions: pl.DataFrame) -> list[str]:
    """The columns that hold a row's time: whole seconds, then the rest of a second where the source knows it."""
    return [name for name in (TIMESTAMP, NANOSECOND) if name in interactions.columns]


def k_core(interactions: pl.DataFrame, core: Core) -> pl.DataFrame:
    """The largest subset where every user and every item has at least `core` interactions, in the same order.

    UserError when nothing is left.
    """
    remaining = interactions
    while True:
        enough = (pl.len().over(USER) >= core.size) & (pl.len().over(ITEM) >= core.size)
        kept = remaining.filter(enough)
        if kept.height == remaining.height:
            break
        remaining = kept
    if remaining.height == 0:
        raise UserError(
            f"params.yaml: {core.key}: the {core.size}-core of {interactions.height:,} interactions is empty; lower it"
        )
    return remaining


def time_order(interactions: pl.DataFrame, ties: str, seed: int) -> pl.DataFrame:
    """Sort each user's rows by time; equal times stay in raw order, or are shuffled with `seed`.

    Times are equal if they are so to the last digit that the source knows, not merely within one second. Users stand in
    the order of their first row. Raw order decides the test item wherever the last two times are equal (43% of Beauty's
    users), so it is what published numbers on these files are comparable under.
    """
    frame = interactions.with_row_index(ORDER)
    if ties == "shuffled":
        shuffled = np.random.default_rng(seed).permutation(frame.height)
        frame = frame.with_columns(pl.Series("tie", shuffled))
    else:
        frame = frame.with_columns(tie=pl.col(ORDER))
    frame = frame.with_columns(first=pl.col(ORDER).min().over(USER))
    return frame.sort(["first", *time_keys(frame), "tie"]).drop(ORDER, "tie", "first")


def reindex(interactions: pl.DataFrame, items: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Number users from 0 and items from 1 (0 is padding) in order of appearance; return sequences, users, items.

    UserError for an item of the interactions that has no row in the item table.
    """
    users = interactions.select(pl.col(USER).unique(maintain_order=True).alias(RAW_USER))
    users = users.with_row_index(USER).with_columns(pl.col(USER).cast(pl.Int32))
    catalogue = interactions.select(pl.col(ITEM).unique(maintain_order=True).alias(RAW_ITEM))
    catalogue = catalogue.with_row_index(ITEM, offset=1).with_columns(pl.col(ITEM).cast(pl.Int32))
    titled = catalogue.join(items.rename({ITEM: RAW_ITEM}), on=RAW_ITEM, how="left", maintain_order="left")
    untitled = titled.filter(pl.col("title").is_null())
    if untitled.height:
        first = untitled[RAW_ITEM][0]
        raise UserError(f"items.parquet: no row for item {first!r} ({untitled.height} such items); run ingest again")
    sequences = (
        interactions.rename({USER: RAW_USER, ITEM: RAW_ITEM})
        .join(users, on=RAW_USER, maintain_order="left")
        .join(catalogue, on=RAW_ITEM, maintain_order="left")
        .drop(RAW_USER, RAW_ITEM)
    )
    return sequences, users, titled


def refuse_short(interactions: pl.DataFrame, core: Core) -> None:
    """UserError for users with fewer than three rows, which cannot be split, with one of them as an example."""
    lengths = interactions.group_by(USER, maintain_order=True).len()
    short = lengths.filter(pl.col("len") < HELD_OUT + 1)
    if short.height:
        user, length = short.row(0)
        raise UserError(
            f"{short.height} users have fewer than 3 interactions and cannot be split into train, validation and test, "
            f"for example {user!r} with {length}; set {core.key} in params.yaml to 3 or more"
        )


def leave_one_out(sequences: pl.DataFrame) -> pl.DataFrame:
    """Add `position` (0-based) and `split`: a user's last row is test, the one before validation, the rest train.

    Every user has at least three rows, which `refuse_short` sees to.
    """
    length = pl.len().over(USER)
    position = pl.int_range(pl.len(), dtype=pl.Int32).over(USER)
    split = (
        pl.when(position == length - 1)
        .then(pl.lit(TEST))
        .when(position == length - 2)
        .then(pl.lit(VALIDATION))
        .otherwise(pl.lit(TRAIN))
    )
    return sequences.with_columns(position.alias(POSITION), split.alias(SPLIT))


def plant_noise(sequences: pl.DataFrame, ratio: float, seed: int) -> pl.DataFrame:
    """Insert round(ratio * training rows) random items into the training parts, flagged in `is_noise`.

    Each is put before a uniformly drawn training row, so it never follows a user's last training row and never
    touches validation or test. The item is uniform over the catalogue without the items of that user's training rows;
    by chance it may be one that is held out, because leaving those out would tell which they are. The time is that of
    the row it precedes. Positions are numbered anew.
    """
    if ratio == 0:
        return sequences
    generator = np.random.default_rng(seed)
    if IS_NOISE not in sequences.columns:
        sequences = sequences.with_columns(pl.lit(False).alias(IS_NOISE))
    train = sequences.with_row_index(ORDER).filter(pl.col(SPLIT) == TRAIN)
    drawn = generator.integers(train.height, size=round(ratio * train.height))
    planted = train[np.sort(drawn)]
    items = _foreign_items(train, planted[USER].to_numpy(), int(sequences[ITEM].max()), generator)  # type: ignore[arg-type]
    planted = planted.with_columns(pl.Series(ITEM, items), pl.lit(True).alias(IS_NOISE))
    both = pl.concat([planted, sequences.with_row_index(ORDER)])  # planted first, so that a stable sort puts it before
    merged = both.sort(ORDER, maintain_order=True).drop(ORDER)
    return merged.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over(USER).alias(POSITION))


def _foreign_items(train: pl.DataFrame, users: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """One item of 1 to `count` for each entry of `users`, uniform over those not among this user's training rows."""
    met = train[USER].to_numpy().astype(np.int64) * (count + 1) + train[ITEM].to_numpy()
    met.sort()
    if int(train.group_by(USER).agg(pl.col(ITEM).n_unique())[ITEM].max()) >= count:  # type: ignore[arg-type]
        raise UserError("noise.ratio: a user has met every item of the catalogue, so none is left to plant")
    items = np.zeros(len(users), dtype=np.int64)
    open_draws = np.arange(len(users))
    while len(open_draws):
        items[open_draws] = generator.integers(1, count + 1, size=len(open_draws))
        keys = users[open_draws].astype(np.int64) * (count + 1) + items[open_draws]
        place = np.minimum(np.searchsorted(met, keys), len(met) - 1)
        open_draws = open_draws[met[place] == keys]
    return items.astype(np.int32)


def arranged(sequences: pl.DataFrame) -> pl.DataFrame:
    """The columns of sequences.parquet in their order, `is_noise` last where there is one."""
    extra = [IS_NOISE] if IS_NOISE in sequences.columns else []
    return sequences.select(*SEQUENCES, *extra)
