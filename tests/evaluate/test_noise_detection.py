"""Noise detection by hand, and against plain references."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from iadsr.evaluate.noise_detection import (
    BINS,
    Judged,
    average_precision,
    cold_auc,
    detection_by,
    detection_by_length,
    detection_metrics,
    drop_score_auc,
    score_distribution,
    stratified_auc,
)

NOISE = np.array([True, False, True, False, False])
SCORE = np.array([-1.0, -0.5, 0.5, 1.0, 2.0])
DROPPED = SCORE <= 0
PROBABILITY = np.array([0.8, 0.6, 0.4, 0.2, 0.0])
JUDGED = Judged(NOISE, SCORE, DROPPED, PROBABILITY)
SEVERAL = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 3)), min_size=2, max_size=30)


def scores_of(noise: np.ndarray, score: np.ndarray) -> Judged:
    """Rows of which only noise and score matter."""
    return Judged(noise, score, np.zeros(len(noise), dtype=bool), np.zeros(len(noise)))


def test_by_hand() -> None:
    """Noise at scores -1 and 0.5. Of its 6 pairs with real ones, 5 are in order: AUC 5/6.

    Up to its scores 1 of 1 and 2 of 3 rows are noise: average precision 5/6. Dropped: the first two, one of them noise:
    precision and recall 1/2. Expected: 1.2 of 2.0 drops hit noise, of 2. The two lowest scores hold one noise. Of five
    rows each is a bin: the probabilities are .2, .6, .6, .2 and 0 off.
    """
    assert detection_metrics(JUDGED) == pytest.approx(
        {
            "noise_share": 0.4,
            "noise_rate_estimated": 0.4,
            "noise_auc": 5 / 6,
            "noise_average_precision": 5 / 6,
            "noise_precision": 0.5,
            "noise_recall": 0.5,
            "noise_precision_expected": 0.6,
            "noise_recall_expected": 0.6,
            "noise_precision_at_share": 0.5,
            "noise_calibration_error": 0.32,
        }
    )


def test_nothing_dropped() -> None:
    found = detection_metrics(scores_of(NOISE, SCORE))
    assert (found["noise_precision"], found["noise_recall"], found["noise_precision_expected"]) == (0, 0, 0)
    assert (found["noise_rate_estimated"], found["noise_calibration_error"]) == (0, 0.4)


@pytest.mark.parametrize("noise", [np.zeros(5, dtype=bool), np.ones(5, dtype=bool), np.zeros(0, dtype=bool)])
def test_needs_noise_and_real_interactions(noise: np.ndarray) -> None:
    judged = scores_of(noise, SCORE[: len(noise)])
    lengths = np.full(len(noise), 3)
    assert detection_metrics(judged) == cold_auc(lengths, judged) == {}
    assert detection_by_length(lengths, judged) == []


def test_a_model_without_scores_detects_nothing() -> None:
    judged = Judged(NOISE, np.full(5, np.nan), DROPPED, PROBABILITY)
    assert detection_metrics(judged) == cold_auc(np.ones(5, dtype=int), judged) == {}


def test_what_has_no_score_counts_as_it_was_decided() -> None:
    """Without the first score noise at 0.5 is above one of the three real ones: AUC 2/3; the lowest is a real one.

    Of the two rows up to it one is noise. Decisions and probabilities are over all five, as by hand above.
    """
    found = detection_metrics(Judged(NOISE, np.array([np.nan, *SCORE[1:]]), DROPPED, PROBABILITY))
    assert (found["noise_auc"], found["noise_precision_at_share"]) == (pytest.approx(2 / 3), 0)
    assert found["noise_average_precision"] == 0.5
    assert (found["noise_share"], found["noise_precision"], found["noise_recall"]) == (0.4, 0.5, 0.5)
    assert (found["noise_rate_estimated"], found["noise_calibration_error"]) == pytest.approx((0.4, 0.32))


def test_constant_scores_tell_nothing() -> None:
    """Any two of the five may be dropped: 2/5 of them are noise, in expectation, and on average."""
    found = detection_metrics(scores_of(NOISE, np.zeros(5)))
    assert (found["noise_auc"], found["noise_precision_at_share"]) == (0.5, pytest.approx(0.4))
    assert found["noise_average_precision"] == pytest.approx(0.4)


@settings(max_examples=50, deadline=None)
@given(SEVERAL)
def test_ranking_is_as_scikit_learn_has_it(rows: list[tuple[bool, int, int]]) -> None:
    noise, score, _ = (np.array(column) for column in zip((True, 2, 1), (False, 2, 1), *rows, strict=True))
    judged = scores_of(noise, score.astype(np.float32))
    assert drop_score_auc(judged) == pytest.approx(roc_auc_score(noise, -score))
    assert average_precision(judged) == pytest.approx(average_precision_score(noise, -score))


def test_by_bucket() -> None:
    """Bucket 1 holds the first two (order right: AUC 1), bucket 2 the third (noise alone: left out), 3 the rest."""
    table = detection_by("bucket", np.array([1, 1, 2, 3, 3]), JUDGED)
    assert [(row["bucket"], row["rows"], row["pairs"], row["noise_auc"]) for row in table] == [(1, 2, 1, 1.0)]


# --- strata of like history length ---


def test_one_length_is_the_whole() -> None:
    (row,) = table = detection_by_length(np.full(5, 7), JUDGED)
    assert row == {"shortest": 7, "longest": 7, "rows": 5, "pairs": 6, **detection_metrics(JUDGED)}
    assert stratified_auc(table) == {"noise_auc_stratified": row["noise_auc"]}


def test_lengths_beyond_20_share_bins() -> None:
    """Rows 1 and 2 are of one bin, 3 and 4 of the next, the last alone: pairs in order 1 of 1 and 1 of 1."""
    table = detection_by_length(np.array([21, 40, 41, 80, 20]), JUDGED)
    assert [(row["shortest"], row["longest"], row["noise_auc"]) for row in table] == [(21, 40, 1), (41, 80, 1)]


def test_a_score_that_tells_only_lengths_apart_gains_nothing() -> None:
    """Short histories hold two noise rows of three, long ones one. Of 9 pairs 4 are in order and 4 tie: AUC 2/3.

    Within the lengths all pairs tie.
    """
    noise = np.array([True, True, False, True, False, False])
    lengths = np.array([3, 3, 3, 9, 9, 9])
    judged = scores_of(noise, lengths.astype(float))
    assert drop_score_auc(judged) == pytest.approx(2 / 3)
    assert stratified_auc(detection_by_length(lengths, judged)) == {"noise_auc_stratified": 0.5}


@settings(max_examples=50, deadline=None)
@given(SEVERAL)
def test_strata_against_all_pairs(rows: list[tuple[bool, int, int]]) -> None:
    """Every pair of a noise and a real row of the same length counts 1, 1/2 (tied) or 0."""
    noise, score, lengths = (np.array(column) for column in zip(*rows, strict=True))
    judged = scores_of(noise, np.where(score == 5, np.nan, score))
    known = [row for row in rows if row[1] < 5]
    pairs = [(one, other) for one, other in product(known, known) if one[0] and not other[0] and one[2] == other[2]]
    right = [np.sign(other[1] - one[1]) / 2 + 0.5 for one, other in pairs]
    expected = {"noise_auc_stratified": pytest.approx(np.mean(right))} if right else {}
    assert stratified_auc(detection_by_length(lengths, judged)) == expected


# --- cold items ---


def test_cold_items_by_hand() -> None:
    """A fifth of ten rows are two; four tie with the second coldest and are in it, too, of which the noise scores 1.

    Of its four pairs with the real ones, at 0, 1, 2 and 3, it is in order with two and ties with one.
    """
    counts = np.array([5, 2, 2, 2, 2, 1, 9, 9, 9, 9])
    noise = np.array([False, True, False, False, False, False, True, True, False, False])
    score = np.array([0.0, 1, 0, 1, 2, 3, 9, 9, 0, 0])
    assert cold_auc(counts, scores_of(noise, score)) == {"noise_auc_cold": 2.5 / 4}


def test_cold_items_without_noise() -> None:
    counts = np.array([1, 2, 3, 4, 5])
    assert cold_auc(counts, scores_of(np.array([False, True, True, True, True]), SCORE)) == {}


def test_one_count_is_cold_as_a_whole() -> None:
    assert cold_auc(np.full(5, 3), JUDGED) == {"noise_auc_cold": detection_metrics(JUDGED)["noise_auc"]}


# --- scores ---


def test_scores_of_both_kinds() -> None:
    """From -1 to 2 in 40 bins of 0.075, middles from -0.9625: noise in the first and the 21st, a half each."""
    table = score_distribution(JUDGED)
    assert (table[0]["score"], table[-1]["score"]) == pytest.approx((-0.9625, 1.9625))
    assert {number: row["noise"] for number, row in enumerate(table) if row["noise"]} == {0: 0.5, 20: 0.5}
    assert sum(row["real"] for row in table) == pytest.approx(1)


@pytest.mark.parametrize("scores", [[0.0] * 5, [np.nan, 1, 1, 1, 1 + 1e-7], [np.inf, 1, 2, 3, -np.inf]])
def test_scores_of_any_shape(scores: list[float]) -> None:
    """All the same, hardly apart, and infinite ones, which are none."""
    table = score_distribution(scores_of(np.array([True, False, True, False, False]), np.array(scores, np.float32)))
    assert len(table) == BINS
    assert [sum(row[kind] for row in table) for kind in ("noise", "real")] == pytest.approx([1, 1])


def test_scores_far_out_are_in_the_outermost_bins() -> None:
    """One real row of 2000 is at 100; the others, at 1, are where it is counted."""
    score = np.array([0.0] * 1000 + [1.0] * 999 + [100.0])
    table = score_distribution(scores_of(score == 0, score))
    assert (table[0]["noise"], table[-1]["real"], table[-1]["score"]) == (1, 1, pytest.approx(0.9875))
