"""All reported numbers of a data set small enough for a sheet of paper."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from pydantic import ValidationError
from small_models import sequences_of

from iadsr.evaluate.report import (
    EvaluateParams,
    RowFacts,
    cold_targets,
    compared,
    drift,
    evaluated,
    item_counts,
    liked_targets,
    user_metrics,
    write_ranks,
    write_tables,
)
from iadsr.evaluate.run import read_facts
from iadsr.models.ranking import PROTOCOLS, Ranks
from iadsr.models.recommender import Verdicts
from iadsr.schemas import TEST, VALIDATION
from iadsr.sequences.windows import Feed

NAN = float("nan")
# user 0: items 1, 2 (noise), 1, 3 | user 1: items 1, 1, 2; the last two of each are validation and test
HISTORIES = ([1, 2, 1, 3], [1, 1, 2])
NOISE = [False, True, False, False, False, False, False]
RANKS = {
    VALIDATION: Ranks(np.array([1, 1]), np.array([1.0, 3.0]), np.array([1.0, 1.0])),
    TEST: Ranks(np.array([3, 2]), np.array([3.0, 7.0]), np.array([1.0, 3.0])),
}
SETTINGS = EvaluateParams(cutoffs=[5], buckets=2)
FACTS = RowFacts(np.array([1, 3, 4, 5, 2, 3, 4]), None)  # the newest of three training rows is the noise


def verdicts() -> Verdicts:
    """Training rows 0, 1, 4 and validation rows 2, 5 are judged; row 1 (the noise) and row 5 are dropped."""
    score = torch.tensor([1.0, -1.0, 0.5, NAN, 0.2, -0.1, NAN])
    probability = torch.tensor([1.0, 0.25, 0.75, NAN, 0.75, 0.25, NAN])
    kept = torch.tensor([True, False, True, True, True, False, True])
    return Verdicts(score, score, score, score, probability, kept)


@pytest.mark.parametrize(("cutoffs", "shown"), [([5, 10, 20], 10), ([5, 50, 20], 20), ([1, 5], 5), ([20], 20)])
def test_what_people_compare_is_at_one_cutoff(cutoffs: list[int], shown: int) -> None:
    """10 where it is among them, else the next above it, else the largest."""
    settings = EvaluateParams(cutoffs=cutoffs, buckets=2)
    numbers, _ = evaluated(Feed(sequences_of(*HISTORIES, noise=NOISE)), RANKS, verdicts(), settings, FACTS)
    numbers |= {"best_epoch": 3, "epochs": 13}
    accuracies = {f"test_{name}_{shown}_{protocol}" for name in ("hr", "ndcg") for protocol in PROTOCOLS}
    accuracies |= {f"validation_ndcg_{shown}_unfiltered"}
    others = {"drop_ratio", "drop_ratio_expected", "noise_auc", "noise_precision", "noise_precision_at_share"}
    others |= {"noise_calibration_error", "drop_ratio_drift"}
    assert compared(numbers) == {name: numbers[name] for name in accuracies | others}
    assert len(accuracies | others) <= 12


def test_metrics_by_hand() -> None:
    """Ranks 3 and 7 at 5: HR 1/2, NDCG 1/4; filtered 1 and 3: 1 and 3/4. Drops: 2 of 5; expected (5 - 3) / 5.

    Real interactions of items 1, 2, 3: 4, 1, 1 (the noise is not counted), so item 1 is alone in bucket 1 of 2.
    Judged there: rows 0, 2, 4, 5, of which one is dropped, expected (0 + .25 + .25 + .75) / 4. Both test targets are
    cold. The noise has the lowest of the three training scores: AUC 1; its expected drop is .75 of 1.0 in all, which
    is 1/3 a row. Each of the three is a bin: they are 0, .25 and .25 off. The histories of rows 0 and 1 have 2 training
    rows, the other has 1 and no noise. The coldest row, which is a fifth of three, is the noise alone.
    """
    metrics, tables = evaluated(Feed(sequences_of(*HISTORIES, noise=NOISE)), RANKS, verdicts(), SETTINGS, FACTS)
    assert metrics == pytest.approx(
        {
            "validation_hr_5_unfiltered": 1,
            "validation_ndcg_5_unfiltered": 0.75,
            "validation_hr_5_filtered": 1,
            "validation_ndcg_5_filtered": 1,
            "test_hr_5_unfiltered": 0.5,
            "test_ndcg_5_unfiltered": 0.25,
            "test_hr_5_filtered": 1,
            "test_ndcg_5_filtered": 0.75,
            "test_cold_targets": 2,
            "test_cold_hr_5_unfiltered": 0.5,
            "test_cold_ndcg_5_unfiltered": 0.25,
            "test_cold_hr_5_filtered": 1,
            "test_cold_ndcg_5_filtered": 0.75,
            "drop_ratio": 0.4,
            "drop_ratio_expected": 0.4,
            "drop_ratio_drift": 0.75 - 0.125,
            "noise_share": 1 / 3,
            "noise_rate_estimated": 1 / 3,
            "noise_auc": 1,
            "noise_auc_stratified": 1,
            "noise_average_precision": 1,
            "noise_calibration_error": 1 / 6,
            "noise_precision": 1,
            "noise_recall": 1,
            "noise_precision_expected": 0.75,
            "noise_recall_expected": 0.75,
            "noise_precision_at_share": 1,
            "bucket_1_ndcg_5_unfiltered": 0,
            "bucket_1_drop_ratio": 0.25,
            "bucket_1_drop_ratio_expected": 0.3125,
            "bucket_2_ndcg_5_unfiltered": 0.25,
            "bucket_2_drop_ratio": 1,
            "bucket_2_drop_ratio_expected": 0.75,
        }
    )
    assert set(tables) == {
        *("buckets_equal_interactions", "buckets_equal_items"),
        *("noise_by_length", "noise_calibration", "noise_scores"),
    }
    assert [(row["longest"], row["rows"]) for row in tables["noise_by_length"]] == [(2, 2)]
    assert [row["judged"] for row in tables["buckets_equal_interactions"]] == [4, 1]


def test_what_is_left_of_a_score_that_follows_the_place() -> None:
    """Noise stands last, and the score falls with the place: AUC 5/6, but within places a half.

    Three histories have training items at places 1 and 2, the second of which is noise in two of them.
    """
    score = torch.tensor([2.0, 1.0, NAN, NAN] * 3)
    found = Verdicts.without_cosines(score, torch.ones(12), torch.ones(12).bool())
    sequences = sequences_of(*([1, 2, 1, 3],) * 3, noise=[row in (1, 5) for row in range(12)])
    metrics, _ = evaluated(Feed(sequences), RANKS, found, SETTINGS, RowFacts(np.arange(len(score)), None))
    assert metrics["noise_auc"] == pytest.approx((3 + 0.5) / 4) and metrics["noise_auc_at_place"] == 0.5


def test_without_known_noise_nothing_is_detected() -> None:
    metrics, tables = evaluated(Feed(sequences_of(*HISTORIES)), RANKS, verdicts(), SETTINGS, FACTS)
    assert not any(name.startswith("noise") for name in [*metrics, *tables])


def test_drift_by_hand() -> None:
    """Training rows 0, 1, 4 are noise with 0, .75, .25; the newest tenth of three rows is one, or two of one time."""
    feed, held_out = Feed(sequences_of(*HISTORIES)), 99
    for times, expected in (((1, 2, 3), 0.25 - 0.375), ((3, 1, 2), -0.5), ((1, 3, 3), 0.5), ((2, 2, 2), None)):
        rows = np.array([*times[:2], held_out, held_out, times[2], held_out, held_out])
        found = drift(feed, verdicts(), rows)
        assert found == ({} if expected is None else {"drop_ratio_drift": pytest.approx(expected)})
    nothing = Verdicts(*(torch.full((7,), NAN),) * 5, torch.ones(7).bool())
    assert drift(feed, nothing, np.arange(7)) == {}


def test_cold_items_are_rare_among_real_training_rows() -> None:
    """Of ten training rows four are of item 4, three of them noise: it occurs once, items 1 and 2 three times each.

    Those four are the coldest fifth; the noise, at 1, scores above the real one, at 0.
    """
    histories, planted = ([1, 1, 1, 4, 4, 4, 4], [2, 2, 2, 4, 4, 4, 4]), (3, 4, 10)
    score = torch.full((14,), 2.0)
    score[list(planted)], score[11] = 1, 0
    found = Verdicts.without_cosines(score, torch.ones(14), torch.ones(14).bool())
    sequences = sequences_of(*histories, noise=[row in planted for row in range(14)])
    metrics, _ = evaluated(Feed(sequences), RANKS, found, SETTINGS, RowFacts(np.arange(len(score)), None))
    assert (metrics["noise_auc"], metrics["noise_auc_cold"]) == (pytest.approx(6 / 7), 0)


def test_cold_targets_have_few_real_training_interactions() -> None:
    """Item 1 has eleven of them, item 2 nine and one that is noise."""
    histories = ([1] * 11 + [3, 1], [2] * 10 + [3, 2])
    noise = [row == 13 for row in range(13 + 12)]
    ranks = Ranks(np.array([1, 2]), np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    found = cold_targets(Feed(sequences_of(*histories, noise=noise)), ranks, (5,))
    assert found == {
        **{"test_cold_targets": 1, "test_cold_hr_5_unfiltered": 1, "test_cold_ndcg_5_unfiltered": 0.5},
        **{"test_cold_hr_5_filtered": 1, "test_cold_ndcg_5_filtered": 1},
    }
    warm = Ranks(np.array([1, 1]), *(np.array([1.0, 3.0]),) * 2)
    assert cold_targets(Feed(sequences_of(*histories, noise=noise)), warm, (5,)) == {}


def test_liked_targets_are_rated_four_or_higher() -> None:
    """User 0's test item has 4, the other's 3; a rating of another row, and one that is missing, counts nothing."""
    ratings = np.array([5, NAN, 5, 4, 5, 5, 3])
    found = liked_targets(Feed(sequences_of(*HISTORIES)), RANKS[TEST], ratings, (5,))
    assert found == {
        **{"test_liked_targets": 1, "test_liked_hr_5_unfiltered": 1, "test_liked_ndcg_5_unfiltered": 0.5},
        **{"test_liked_hr_5_filtered": 1, "test_liked_ndcg_5_filtered": 1},
    }
    facts = RowFacts(FACTS.times, ratings)
    metrics, _ = evaluated(Feed(sequences_of(*HISTORIES)), RANKS, verdicts(), SETTINGS, facts)
    assert metrics.items() >= found.items()
    for others in (np.full(7, NAN), 2 * ratings, ratings - 5):  # none; of ten; of another scale
        assert liked_targets(Feed(sequences_of(*HISTORIES)), RANKS[TEST], others, (5,)) == {}


def test_real_interactions_by_item() -> None:
    assert item_counts(sequences_of(*HISTORIES)).tolist() == [4, 2, 1]
    assert item_counts(sequences_of(*HISTORIES, noise=NOISE)).tolist() == [4, 1, 1]


def test_ranks_on_disk(tmp_path: Path) -> None:
    """A row a user and split, from which every metric can be computed again."""
    write_ranks(tmp_path / "ranks.parquet", RANKS)
    table = pl.read_parquet(tmp_path / "ranks.parquet")
    assert table.rows() == [
        (0, VALIDATION, 1, 1.0, 1.0),
        (1, VALIDATION, 1, 3.0, 1.0),
        (0, TEST, 3, 3.0, 1.0),
        (1, TEST, 2, 7.0, 3.0),
    ]
    assert table.columns == ["user", "split", "target", "rank_unfiltered", "rank_filtered"]


def test_tables_on_disk(tmp_path: Path) -> None:
    """One CSV a table."""
    write_tables(tmp_path, {"new": [{"a": 1, "b": 0.5}]})
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]
    with open(tmp_path / "new.csv", newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "0.5"}]


@pytest.mark.parametrize("wrong", [{"cutoffs": []}, {"cutoffs": [0]}, {"buckets": 0}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluateParams.model_validate({"cutoffs": [5], "buckets": 5, **wrong})


def test_metrics_of_users_by_hand(tmp_path: Path) -> None:
    """Rank 1 gains all, rank 3 half, rank 11 nothing; validation does not count."""
    table = {"split": ["test"] * 3 + ["validation"], "rank_filtered": [1.0, 3.0, 11.0, 1.0]}
    pyarrow.parquet.write_table(pa.table({**table, "rank_unfiltered": [11.0] * 4}), tmp_path / "ranks.parquet")
    found = user_metrics(tmp_path / "ranks.parquet", 10)
    assert found["hr_10_filtered"].tolist() == [1, 1, 0] and found["ndcg_10_filtered"].tolist() == [1, 0.5, 0]
    assert found["hr_10_unfiltered"].tolist() == [0, 0, 0]


def test_what_the_source_knows_of_rows(tmp_path: Path) -> None:
    """Ratings where there are any, NaN where one is missing."""
    path = tmp_path / "sequences.parquet"
    pl.DataFrame({"timestamp": [3, 4]}).write_parquet(path)
    found = read_facts(path)
    assert found.times.tolist() == [3, 4] and found.ratings is None
    pl.DataFrame({"timestamp": [3, 4], "rating": pl.Series([4.0, None], dtype=pl.Float32)}).write_parquet(path)
    ratings = read_facts(path).ratings
    assert ratings is not None and ratings[0] == 4 and np.isnan(ratings[1])
