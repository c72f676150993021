"""What a trained cell drops: by the popularity of items, by their place, and of the paper's two users."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple, get_args

import polars as pl

from benchmarks.prepared import ROOT
from iadsr.evaluate.popularity import Equal
from iadsr.schemas import ITEM, ITEMS, POSITION, RAW_ITEM, SPLIT, TEST, TITLE, TRAIN, USER
from stages import paths

CASES = ROOT / "results" / "paper_cases.json"
OF_BUCKET = ("drop_ratio", "drop_ratio_expected", "ndcg_5_unfiltered")
READINGS: tuple[str, ...] = get_args(Equal)


class Case(NamedTuple):
    """A user of the paper's Table 5."""

    user: str  # as the paper calls him
    dataset: str
    titles: list[str]  # how two in his history begin, and in no other
    dropped: dict[str, list[int]]  # by method: the places, from 0, of what the paper says it drops


def read_cases(path: Path = CASES) -> list[Case]:
    """Both."""
    return [Case(**case) for case in json.loads(path.read_text(encoding="utf-8"))]


def drops_of(folder: Path, dataset: str) -> dict[str, Any]:
    """What a line says of it; `folder` is that of a seed.

    `popularity`: by what buckets have equal numbers of, for each bucket, the hottest first, what OF_BUCKET names.
    `place`: Spearman's correlation of the score with the place in the history, over a user's training rows, the mean
    of users with three or more. `cases`: of the paper's users, where they are, titles, verdicts and probabilities of
    being kept, the test item left out.
    """
    verdicts = pl.read_parquet(folder / paths.VERDICTS)
    found: dict[str, Any] = {"popularity": {equal: by_popularity(folder, equal) for equal in READINGS}}
    scored = verdicts.filter(pl.col(SPLIT) == TRAIN, pl.col("score").is_not_null())
    by_user = scored.group_by(USER).agg(pl.len(), pl.corr(POSITION, "score", method="spearman").alias("place"))
    places = by_user.filter(pl.col("len") >= 3, pl.col("place").is_finite())["place"]
    if len(places):
        found["place"] = round(float(places.to_numpy().mean()), 4)
    cases = [case for case in read_cases() if case.dataset == dataset]
    if cases:
        titles = pl.read_parquet(folder / paths.ITEMS, columns=list(ITEMS)).select(pl.col(RAW_ITEM).alias(ITEM), TITLE)
        histories = verdicts.join(titles, on=ITEM, maintain_order="left")
        found["cases"] = {case.user: own for case in cases if (own := history_of(case, histories))}
    return found


def by_popularity(folder: Path, equal: str) -> list[dict[str, float]]:
    """As the stage `evaluate` wrote it."""
    with open(folder / paths.PLOTS / f"buckets_equal_{equal}.csv", encoding="utf-8", newline="") as file:
        return [{name: round(float(row[name]), 5) for name in OF_BUCKET} for row in csv.DictReader(file)]


def history_of(case: Case, histories: pl.DataFrame) -> dict[str, list[Any]]:
    """Nothing where not exactly one user has the case's titles, as with another k-core."""
    held = [pl.col(TITLE).str.starts_with(title).any() for title in case.titles]
    users = histories.group_by(USER).agg(pl.all_horizontal(held).alias("held")).filter("held")[USER].to_list()
    if len(users) != 1:
        return {}
    own = histories.filter(pl.col(USER) == users[0], pl.col(SPLIT) != TEST).sort(POSITION)
    return {
        "titles": own[TITLE].to_list(),
        "kept": own["kept"].to_list(),
        "keep_probability": own["keep_probability"].cast(pl.Float64).round(4).to_list(),
    }
