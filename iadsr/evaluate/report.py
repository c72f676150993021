"""All that `evaluate` reports, from ranks and verdicts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, PositiveInt

from iadsr.artifacts import replacing
from iadsr.evaluate.calibration import reliability
from iadsr.evaluate.noise_detection import (
    Judged,
    cold_auc,
    detection_by,
    detection_by_length,
    detection_metrics,
    longest_alike,
    others_alike,
    score_distribution,
    stratified_auc,
)
from iadsr.evaluate.popularity import Equal, bucket_table, popularity_buckets
from iadsr.models.ranking import (
    METRICS,
    PROTOCOLS,
    Ranks,
    cutoffs_of,
    headline_cutoff,
    headlines,
    metric_name,
    summarise,
)
from iadsr.models.recommender import Verdicts
from iadsr.models.verdicts import training_rows
from iadsr.params import Group
from iadsr.schemas import SPLIT, TEST, TRAIN, USER, VALIDATION
from iadsr.sequences.windows import Feed, Sequences


class EvaluateParams(Group):
    """`evaluate` of params.yaml."""

    cutoffs: list[PositiveInt] = Field(min_length=1)  # of HR and NDCG
    buckets: int = Field(ge=1)  # of item popularity


Table = list[dict[str, Any]]
COLD, OF_COLD = 10, f"{TEST}_cold"
LIKED, OF_LIKED, SCALE = 4, f"{TEST}_liked", (0.5, 5.0)  # of ratings by up to five stars
OF_BUCKETS = ("noise_auc", "noise_precision", "noise_recall")
OF_NOISE = ("noise_auc", "noise_precision", "noise_precision_at_share", "noise_calibration_error")
BESIDE_ACCURACY = ("drop_ratio", "drop_ratio_expected", "drop_ratio_drift", *OF_NOISE)
NEWEST = 0.1  # of the training rows


class RowFacts(NamedTuple):
    """What sequences.parquet knows of each row that no model sees."""

    times: Int[np.ndarray, " rows"]  # rise with time
    ratings: Float[np.ndarray, " rows"] | None  # NaN where there is none


def evaluated(
    feed: Feed, ranks: dict[str, Ranks], verdicts: Verdicts, settings: EvaluateParams, facts: RowFacts
) -> tuple[dict[str, float], dict[str, Table]]:
    """Flat metrics, and the tables behind the plots by file name.

    Popularity counts all real interactions of the data set, as in Figure 1; it describes results and enters no model.
    Drop ratios are over all judged interactions (training and validation), noise detection over the training ones.
    """
    metrics: dict[str, float] = {}
    for split, found in ranks.items():
        metrics |= summarise(found, tuple(settings.cutoffs), split)
    metrics |= cold_targets(feed, ranks[TEST], tuple(settings.cutoffs))
    if facts.ratings is not None:
        metrics |= liked_targets(feed, ranks[TEST], facts.ratings, tuple(settings.cutoffs))
    kept, probability = verdicts.kept.numpy(), verdicts.probability.numpy().astype(np.float64)
    judged = np.isfinite(probability)
    metrics["drop_ratio"] = float(1 - kept[judged].mean())
    metrics["drop_ratio_expected"] = float(1 - probability[judged].mean())
    metrics |= drift(feed, verdicts, facts.times)

    counts = item_counts(feed.sequences)
    buckets = {equal: popularity_buckets(counts, settings.buckets, equal) for equal in get_args(Equal)}
    items, drops = feed.sequences.items.cpu().numpy()[judged], (~kept[judged], 1 - probability[judged])
    tables = {
        f"buckets_equal_{equal}": bucket_table(own, ranks[TEST], items, *drops, settings.cutoffs[0])
        for equal, own in buckets.items()
    }
    of_noise, noise_tables = noise_detection(feed, verdicts, buckets)
    metrics, tables = metrics | of_noise, tables | noise_tables
    for row in tables["buckets_equal_interactions"]:
        for name in (metric_name("ndcg", settings.cutoffs[0], "unfiltered"), "drop_ratio", "drop_ratio_expected"):
            metrics[f"bucket_{row['bucket']}_{name}"] = row[name]
    for row in tables.get("noise_equal_interactions", ()):
        for name in OF_BUCKETS:
            metrics[f"bucket_{row['bucket']}_{name}"] = row[name]
    return metrics, tables


def compared(numbers: dict[str, float]) -> dict[str, float]:
    """The few of all numbers that people compare runs by: at most 12, so that `dvc metrics diff` fits on a screen."""
    validation = metric_name("ndcg", headline_cutoff(cutoffs_of(numbers)), "unfiltered", VALIDATION)
    return {name: numbers[name] for name in (*headlines(numbers), validation, *BESIDE_ACCURACY) if name in numbers}


def cold_targets(feed: Feed, ranks: Ranks, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """Metrics over the test targets that have fewer than 10 real training interactions, and how many these are."""
    sequences, real = feed.sequences, training_rows(feed).cpu()
    if sequences.noise is not None:
        real = real & ~sequences.noise.cpu()
    counts = torch.bincount(sequences.items.cpu()[real], minlength=sequences.item_count + 1).numpy()
    return of_targets(ranks, counts[ranks.targets] < COLD, cutoffs, OF_COLD)


def liked_targets(
    feed: Feed, ranks: Ranks, ratings: Float[np.ndarray, " rows"], cutoffs: tuple[int, ...]
) -> dict[str, float]:
    """Metrics over the test targets that were rated 4 or higher, and how many; nothing where no rating is as high.

    Nothing either where ratings are not by up to five stars: a 4 of 10 is no praise.
    """
    given = ratings[np.isfinite(ratings)]
    if not len(given) or given.min() < SCALE[0] or given.max() > SCALE[1]:
        return {}
    return of_targets(ranks, ratings[feed.sequences.history_ends(TEST).cpu().numpy()] >= LIKED, cutoffs, OF_LIKED)


def of_targets(
    ranks: Ranks, some: Bool[np.ndarray, " targets"], cutoffs: tuple[int, ...], name: str
) -> dict[str, float]:
    """Metrics over some targets, and how many; nothing for none."""
    if not some.any():
        return {}
    those = Ranks(ranks.targets[some], ranks.unfiltered[some], ranks.filtered[some])
    return {f"{name}_targets": float(some.sum()), **summarise(those, cutoffs, name)}


def drift(feed: Feed, verdicts: Verdicts, times: Int[np.ndarray, " rows"]) -> dict[str, float]:
    """How much more of the newest tenth of the training rows is dropped, in expectation, than of those before them.

    Rows as old as the oldest of them are among them. Nothing where all are as old, or nothing is judged.
    """
    drops = 1 - verdicts.probability.numpy().astype(np.float64)
    rows = training_rows(feed).cpu().numpy() & np.isfinite(drops)
    if not rows.any():
        return {}
    new = times[rows] >= np.quantile(times[rows], 1 - NEWEST, method="higher")
    return {} if new.all() else {"drop_ratio_drift": float(drops[rows][new].mean() - drops[rows][~new].mean())}


def noise_detection(
    feed: Feed, verdicts: Verdicts, buckets: dict[Equal, Int[np.ndarray, " items"]]
) -> tuple[dict[str, float], dict[str, Table]]:
    """How known noise was found among the training rows; empty where it is not known, or the model has no scores."""
    if feed.sequences.noise is None:
        return {}, {}
    rows = training_rows(feed).numpy()
    judged = judged_rows(feed.sequences.noise.cpu().numpy(), verdicts)[rows]
    if not (metrics := detection_metrics(judged)):
        return {}, {}
    items, lengths = feed.sequences.items.cpu().numpy()[rows], history_lengths(feed.sequences)[rows]
    tables = {f"noise_equal_{equal}": detection_by("bucket", own[items - 1], judged) for equal, own in buckets.items()}
    tables["noise_by_length"] = detection_by_length(lengths, judged)
    tables["noise_calibration"] = reliability(judged.noise, judged.drop_probability)
    tables["noise_scores"] = score_distribution(judged)
    metrics |= stratified_auc(tables["noise_by_length"]) | cold_auc(others_alike(items, judged.noise), judged)
    by_place = detection_by("place", longest_alike(places(feed.sequences)[rows]), judged)
    metrics |= stratified_auc(by_place, "noise_auc_at_place")
    return metrics, {name: table for name, table in tables.items() if table}


def judged_rows(noise: Bool[np.ndarray, " rows"], verdicts: Verdicts) -> Judged:
    """All rows; one minus the probability that a row is kept stands for the probability that it is noise."""
    probability = verdicts.probability.numpy().astype(np.float64)
    return Judged(noise, verdicts.score.numpy(), ~verdicts.kept.numpy(), 1 - probability)


def places(sequences: Sequences) -> Int[np.ndarray, " rows"]:
    """The place of each row in its history, from 1."""
    begins = torch.repeat_interleave(sequences.offsets[:-1], sequences.offsets.diff()).cpu().numpy()
    return np.arange(len(begins)) - begins + 1


def history_lengths(sequences: Sequences) -> Int[np.ndarray, " rows"]:
    """How many training rows the user of each row has."""
    lengths = sequences.history_ends(TRAIN) - sequences.offsets[:-1]
    return torch.repeat_interleave(lengths, sequences.offsets.diff()).cpu().numpy()


def item_counts(sequences: Sequences) -> np.ndarray:
    """Real (not planted) interactions of each item, item 1 first."""
    items = sequences.items.cpu().numpy()
    real = items if sequences.noise is None else items[~sequences.noise.cpu().numpy()]
    return np.bincount(real, minlength=sequences.item_count + 1)[1:]


def write_ranks(path: Path, ranks: dict[str, Ranks]) -> None:
    """One row a user and split: target item, expected rank unfiltered and filtered; every metric follows from these."""
    parts = [
        pa.table(
            {
                USER: pa.array(np.arange(len(found.targets)), pa.int32()),
                SPLIT: pa.array([split] * len(found.targets)),
                "target": pa.array(found.targets, pa.int32()),
                "rank_unfiltered": found.unfiltered,
                "rank_filtered": found.filtered,
            }
        )
        for split, found in ranks.items()
    ]
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(pa.concat_tables(parts), temporary)


def user_metrics(ranks: Path, cutoff: int) -> dict[str, Float[np.ndarray, " users"]]:
    """HR and NDCG of each user's test item, from the file that `write_ranks` has written."""
    table = pyarrow.parquet.read_table(ranks, filters=[(SPLIT, "=", TEST)])
    return {
        metric_name(metric, cutoff, protocol): values(table[f"rank_{protocol}"].to_numpy(), cutoff)
        for protocol in PROTOCOLS
        for metric, values in METRICS.items()
    }


def write_tables(folder: Path, tables: dict[str, Table]) -> None:
    """Write each table as a CSV."""
    for name, rows in tables.items():
        with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
