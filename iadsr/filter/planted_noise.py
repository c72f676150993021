"""Interactions that are known to be noise, put into the training parts of histories; the flag is never an input."""

from __future__ import annotations

import numpy as np
import polars as pl
from pydantic import Field

from iadsr.errors import UserError
from iadsr.filter.interactions import beyond, codes, distinct, pair_keys, positions_of
from iadsr.params import Group
from iadsr.schemas import IS_NOISE, ITEM, POSITION, RATING, SPLIT, TRAIN, USER


class NoiseParams(Group):
    """`noise` of params.yaml: planted items per real training interaction, and the seed of their draw."""

    ratio: float = Field(ge=0, le=10)
    seed: int = Field(ge=0)


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
    users, items = codes(sequences[USER]), codes(sequences[ITEM])
    train = np.flatnonzero(sequences[SPLIT] == TRAIN)
    places = train[np.sort(generator.integers(len(train), size=round(ratio * len(train))))]
    foreign = _foreign_items(pair_keys(users, items)[train], users[places], beyond(items), generator)
    planted = sequences[places].with_columns(pl.Series(ITEM, foreign), pl.lit(True).alias(IS_NOISE))
    if RATING in planted.columns:  # nobody has rated it
        planted = planted.with_columns(pl.lit(None, planted.schema[RATING]).alias(RATING))
    rows = np.insert(np.arange(len(users)), places, np.arange(len(users), len(users) + len(places)))
    merged = pl.concat([sequences, planted])[rows]
    return merged.with_columns(pl.Series(POSITION, positions_of(codes(merged[USER]))))


def _foreign_items(met: np.ndarray, users: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """One item from 1 to below `count` for each entry of `users`, uniform over those that this user has not `met`.

    `met` has the keys of pairs, `user * count + item`.
    """
    met = distinct(met)
    if np.bincount(met // count).max() >= count - 1:
        raise UserError("noise.ratio: a user has met every item of the catalogue, so none is left to plant")
    items = np.zeros(len(users), dtype=np.int64)
    open_draws = np.arange(len(users))
    while len(open_draws):
        items[open_draws] = generator.integers(1, count, size=len(open_draws))
        keys = users[open_draws].astype(np.int64) * count + items[open_draws]
        place = np.minimum(np.searchsorted(met, keys), len(met) - 1)
        open_draws = open_draws[met[place] == keys]
    return items.astype(np.int32)
