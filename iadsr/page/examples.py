"""Histories for a person to look at: their titles, what the denoiser says of each interaction, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from iadsr.schemas import ITEM, RAW_ITEM, SPLIT, TIMESTAMP, TITLE, TRAIN, USER
from iadsr.serving.loaded import load
from iadsr.serving.log_verdicts import NOT_JUDGED

USERS, DOUBTED, SEED = 20, 14, 0  # so many, of whom so many have something dropped; drawn before anybody looks
LONGEST = 40  # newest interactions that are shown


class Shown(NamedTuple):
    """An interaction."""

    title: str
    noise: float | None  # the probability; None where the denoiser gives none
    kept: bool
    reason: str


class History(NamedTuple):
    """A user's training interactions, oldest first."""

    user: str
    items: list[Shown]


def examples(verdicts: pl.DataFrame, items: Path, model: Path, gives_reasons: bool) -> list[History]:
    """Of users drawn by chance, most of them from those of whom something is dropped."""
    rows = verdicts.filter(pl.col(SPLIT) == TRAIN)
    users = chosen(rows)
    titles = pl.read_parquet(items, columns=[RAW_ITEM, TITLE]).rename({RAW_ITEM: ITEM})
    if gives_reasons:  # of all rows, since reasons say how unusual each is among them
        rows = rows.with_columns(load(model).denoise(rows.select(USER, ITEM, TIMESTAMP))["reason"])
    else:
        rows = rows.with_columns(reason=pl.lit(""))
    rows = rows.filter(pl.col(USER).is_in(users)).join(titles, on=ITEM, how="left", maintain_order="left")
    of_user = rows.partition_by(USER, as_dict=True, maintain_order=True)
    return [history(user, of_user[(user,)].tail(LONGEST)) for user in users]


def chosen(rows: pl.DataFrame) -> list[Any]:
    """So many users, those of whom something is dropped first."""
    kept = rows.group_by(USER, maintain_order=True).agg(pl.col("kept").all())
    generator = np.random.default_rng(SEED)
    doubted, others = (kept.filter(pl.col("kept") == whole)[USER].to_list() for whole in (False, True))
    some = drawn(doubted, DOUBTED, generator)
    return some + drawn(others, USERS - len(some), generator)


def drawn(users: list[Any], count: int, generator: np.random.Generator) -> list[Any]:
    """So many, or all if there are fewer."""
    return [users[place] for place in generator.permutation(len(users))[:count]]


def history(user: Any, rows: pl.DataFrame) -> History:
    """Reasons are of what training dropped: of a history that is too short for a verdict elsewhere there is none."""
    return History(str(user), [shown(row) for row in rows.iter_rows(named=True)])


def shown(row: dict[str, Any]) -> Shown:
    keep, kept = row["keep_probability"], bool(row["kept"])
    reason = "" if kept or row["reason"].startswith(NOT_JUDGED) else row["reason"]
    return Shown(row[TITLE] or str(row[ITEM]), None if keep is None else 1 - keep, kept, reason)
