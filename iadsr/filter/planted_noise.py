"""Interactions that are known to be noise, put into the training parts of histories; the flag is never an input.

Nothing but the item tells a plant from a real row. Its place is any, and times are dealt out by place: a history gets a
time more for each plant, spread as its own are, and all are put in order. What tells a little is how many interactions
a history has, and how close together, since plants make it longer and denser.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from iadsr.errors import UserError
from iadsr.filter.interactions import HELD_OUT_ROWS, codes, pair_keys, positions_of, starts, time_keys
from iadsr.params import Group
from iadsr.schemas import CATEGORIES, IS_NOISE, ITEM, POSITION, RATING, RAW_ITEM, ROW, SPLIT, TRAIN, USER
from iadsr.sequences import noise_kinds
from iadsr.sequences.noise_kinds import Plants, TrainingHistories

Kind = Literal["uniform", "popularity", "near_miss", "boundary", "burst", "duplicates", "swaps"]
OF_SOURCE = (RATING, ROW)  # what goes with an item, and a planted one has not


class NoiseParams(Group):
    """`noise` of params.yaml: what is planted, how much for each real training interaction, and the draw's seed."""

    kind: Kind
    ratio: float = Field(ge=0, le=10)
    seed: int = Field(ge=0)


def hold_out_donors(interactions: pl.DataFrame, noise: NoiseParams) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The data without the users whose histories are planted into others', and the rows of these: none but for `burst`.

    Users drawn at random leave the data, until their rows are `ratio` for each training row of those who stay: what is
    planted should not stand in the data twice. Rows stand together by user. UserError where nobody would stay.
    """
    if noise.kind != "burst" or noise.ratio == 0:
        return interactions, interactions.clear()
    lengths = np.diff(starts(codes(interactions[USER])), append=interactions.height)
    order = np.random.default_rng([noise.seed, 1]).permutation(len(lengths))
    given = lengths[order].cumsum()
    trained = (lengths - HELD_OUT_ROWS).sum() - (lengths[order] - HELD_OUT_ROWS).cumsum()
    count = 1 + int(np.argmax(given >= noise.ratio * trained))  # true at the latest where nobody stays
    if count == len(order):
        raise UserError(
            "noise.ratio: bursts are taken from users who leave the data, and here nobody would stay; lower it, or "
            "choose another noise.kind"
        )
    donates = np.zeros(len(order), dtype=bool)
    donates[order[:count]] = True
    rows = pl.Series(np.repeat(donates, lengths))
    return interactions.filter(~rows), interactions.filter(rows)


def plant_noise(sequences: pl.DataFrame, items: pl.DataFrame, noise: NoiseParams, donors: pl.DataFrame) -> pl.DataFrame:
    """Plant round(ratio * training rows) rows of a kind into the training parts, flagged in `is_noise`.

    `swaps` plants nothing and flags the rows that have changed places; `burst` plants what `donors`, users who are not
    among these, have of the catalogue. Validation and test stay as they are, and no draw depends on them: by chance a
    plant may be an item that is held out, because leaving those out would tell which they are.
    """
    if noise.ratio == 0:
        return sequences
    generator = np.random.default_rng(noise.seed)
    if IS_NOISE not in sequences.columns:
        sequences = sequences.with_columns(pl.lit(False).alias(IS_NOISE))
    train = np.flatnonzero(sequences[SPLIT] == TRAIN)
    histories = _histories(sequences, train)
    count = round(noise.ratio * len(train))
    if noise.kind == "swaps":
        return _swapped(sequences, train, noise_kinds.swaps(histories, count, generator))
    if noise.kind == "burst":
        plants = noise_kinds.burst(histories, noise_kinds.as_runs(*_known_items(donors, items), generator), generator)
    elif noise.kind == "duplicates":
        plants = noise_kinds.duplicates(histories, count, generator)
    else:
        plants = noise_kinds.foreign(noise.kind, histories, count, category_numbers(items), generator)
    return _with_plants(sequences, train, histories, plants, generator)


def _histories(sequences: pl.DataFrame, train: np.ndarray) -> TrainingHistories:
    users, items = codes(sequences[USER]), codes(sequences[ITEM])
    offsets = np.searchsorted(users[train], np.arange(int(users[-1]) + 2))
    return TrainingHistories(items[train].astype(np.int64), offsets, int(items.max()))


def category_numbers(items: pl.DataFrame) -> np.ndarray:
    """A number from 0 for the category of each item, item 0 being padding; -1 for none."""
    names = pl.col(CATEGORIES)
    numbers = items.select(pl.when(names == "").then(-1).otherwise(names.rank("dense").cast(pl.Int64)))
    return np.append(-1, numbers.to_series().to_numpy())


def _known_items(donors: pl.DataFrame, items: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the donors' items that are in the catalogue, and the bounds of pieces without a gap in between."""
    numbers = items.select(pl.col(RAW_ITEM).alias(ITEM), pl.col(ITEM).alias("number"))
    named = donors.select(USER, pl.col(ITEM).cast(pl.String)).with_row_index("row")
    known = named.join(numbers, on=ITEM, how="inner", maintain_order="left")
    missing = known["row"].to_numpy().astype(np.int64) - np.arange(known.height)  # before each
    begins = starts(pair_keys(codes(known[USER]), missing))
    return known["number"].to_numpy().astype(np.int64), np.append(begins, known.height)


def _with_plants(
    sequences: pl.DataFrame,
    train: np.ndarray,
    histories: TrainingHistories,
    plants: Plants,
    generator: np.random.Generator,
) -> pl.DataFrame:
    """The table with the plants in their places, the last of which is before the validation row."""
    begins = np.searchsorted(codes(sequences[USER]), plants.users)
    planted = sequences[begins].with_columns(
        pl.Series(ITEM, plants.items, dtype=sequences.schema[ITEM]), pl.lit(True).alias(IS_NOISE)
    )
    for name in OF_SOURCE:
        if name in planted.columns:  # nobody has rated it, or written it down
            planted = planted.with_columns(pl.lit(None, planted.schema[name]).alias(name))
    rows = np.arange(sequences.height)
    order = np.insert(rows, begins + plants.places, sequences.height + np.arange(len(begins)))
    together = pl.concat([sequences, planted])[order]
    timed = order.copy()  # the rows whose times these get; validation and test keep theirs
    timed[together[SPLIT] == TRAIN] = train[_dealt_times(sequences[train], histories, plants.users, generator)]
    return together.with_columns(
        pl.Series(POSITION, positions_of(codes(together[USER]))),
        *(sequences[name][timed] for name in time_keys(sequences)),
    )


def _dealt_times(
    real: pl.DataFrame, histories: TrainingHistories, planted: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """For each training row, planted ones included, the real one whose time it gets: all of a user's times in order.

    For each plant, of the users `planted`, comes a time from between two neighbours in its history, at which somebody
    has trained; where there is none, as in a tie, the time of the first of these.
    """
    moments = real.select(pl.struct(time_keys(real)).rank("dense")).to_series().to_numpy()
    ordered = np.argsort(moments, kind="stable")
    begins, lengths = histories.offsets[planted], np.diff(histories.offsets)[planted]
    first = begins + generator.integers(np.maximum(lengths - 1, 1))
    second = np.minimum(first + 1, begins + lengths - 1)
    low = np.searchsorted(moments[ordered], moments[first], side="right")
    high = np.searchsorted(moments[ordered], moments[second], side="left")
    between = ordered[(low + generator.integers(np.maximum(high - low, 1))).clip(max=len(ordered) - 1)]
    rows = np.append(np.arange(real.height), np.where(high > low, between, first))
    owners = np.append(histories.owner, planted)
    return rows[np.lexsort((moments[rows], owners))]


def _swapped(sequences: pl.DataFrame, train: np.ndarray, order: np.ndarray) -> pl.DataFrame:
    """The table with the items of training rows, and what belongs to them, in this order; moved ones are flagged."""
    rows = np.arange(sequences.height)
    rows[train] = train[order]
    table = sequences.with_columns(sequences[name][rows] for name in (ITEM, *OF_SOURCE) if name in sequences.columns)
    return table.with_columns(pl.col(IS_NOISE) | pl.Series(rows != np.arange(len(rows))))
