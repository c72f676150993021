"""The order of rows in time: what it is, and how much of it the times decide."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from iadsr.schemas import NANOSECOND, TIMESTAMP, USER

SECOND = 1_000_000_000  # nanoseconds
LARGEST = np.iinfo(np.int64).max


class Order(NamedTuple):
    """How far times decide the order of histories.

    first, last: times, as texts in UTC. tied: of the pairs of rows next to one another in a user's history, by time,
    the share with equal times. undecided: the share of users with such a pair.
    """

    first: str
    last: str
    tied: float
    undecided: float


def order_of(interactions: pl.DataFrame) -> Order:
    """`interactions` (at least one) have columns as those of `ingest`; ids may be text or categories."""
    seconds = interactions[TIMESTAMP].to_numpy()
    users = interactions[USER].cast(pl.Categorical).to_physical().to_numpy()
    ties, tied_users = _ties(users, _steps(interactions, seconds))
    count = interactions[USER].n_unique()
    pairs = len(users) - count
    first, last = (str(np.datetime64(int(moment), "s")).replace("T", " ") for moment in (seconds.min(), seconds.max()))
    return Order(first, last, ties / pairs if pairs else 0.0, tied_users / count)


def _steps(interactions: pl.DataFrame, seconds: np.ndarray) -> list[np.ndarray]:
    """The times as whole numbers from 0, in one array where they fit (the coarsest unit that loses nothing)."""
    since = seconds - seconds.min()
    if NANOSECOND not in interactions.columns:
        return [since]
    nanoseconds = interactions[NANOSECOND].to_numpy()
    unit = next((unit for unit in (1_000_000, 1_000) if not (nanoseconds % unit).any()), 1)
    if int(since.max()) >= LARGEST // SECOND:
        return [since, nanoseconds]
    return [since * (SECOND // unit) + nanoseconds // unit]


def _ties(users: np.ndarray, steps: list[np.ndarray]) -> tuple[int, int]:
    """How many rows have the user and time of another one before them, and how many users have such rows."""
    span = int(steps[0].max()) + 1
    if len(steps) == 1 and (int(users.max()) + 1) * span <= LARGEST:
        keys = users * np.int64(span) + steps[0]
        keys.sort()
        again = keys[1:][keys[1:] == keys[:-1]] // span
    else:
        order = np.lexsort((*reversed(steps), users))
        columns = [column[order] for column in (users, *steps)]
        again = columns[0][1:][np.logical_and.reduce([column[1:] == column[:-1] for column in columns])]
    return len(again), len(np.unique(again))
