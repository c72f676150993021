"""Noise detection by hand."""

from __future__ import annotations

import numpy as np
import pytest

from iadsr.evaluate.noise_detection import detection_by_bucket, detection_metrics

NOISE = np.array([True, False, True, False, False])
SCORE = np.array([-1.0, -0.5, 0.5, 1.0, 2.0])
DROPPED = SCORE <= 0
PROBABILITY = np.array([0.8, 0.6, 0.4, 0.2, 0.0])


def test_by_hand() -> None:
    """Noise at scores -1 and 0.5. Of its 6 pairs with real ones, 5 are in order: AUC 5/6.

    Dropped: the first two, one of them noise: precision and recall 1/2. Expected: 1.2 of 2.0 drops hit noise, of 2.
    The two lowest scores hold one noise.
    """
    assert detection_metrics(NOISE, SCORE, DROPPED, PROBABILITY) == pytest.approx(
        {
            "noise_share": 0.4,
            "noise_auc": 5 / 6,
            "noise_precision": 0.5,
            "noise_recall": 0.5,
            "noise_precision_expected": 0.6,
            "noise_recall_expected": 0.6,
            "noise_precision_at_share": 0.5,
        }
    )


def test_nothing_dropped() -> None:
    found = detection_metrics(NOISE, SCORE, np.zeros(5, dtype=bool), np.zeros(5))
    assert (found["noise_precision"], found["noise_recall"], found["noise_precision_expected"]) == (0, 0, 0)


@pytest.mark.parametrize("noise", [np.zeros(5, dtype=bool), np.ones(5, dtype=bool), np.zeros(0, dtype=bool)])
def test_needs_noise_and_real_interactions(noise: np.ndarray) -> None:
    size = len(noise)
    assert detection_metrics(noise, SCORE[:size], DROPPED[:size], PROBABILITY[:size]) == {}


def test_a_model_without_scores_detects_nothing() -> None:
    assert detection_metrics(NOISE, np.full(5, np.nan), DROPPED, PROBABILITY) == {}


def test_what_has_no_score_counts_as_it_was_decided() -> None:
    """Without the first score noise at 0.5 is above one of the three real ones: AUC 2/3; the lowest is a real one.

    Decisions are over all five, as by hand above.
    """
    found = detection_metrics(NOISE, np.array([np.nan, *SCORE[1:]]), DROPPED, PROBABILITY)
    assert (found["noise_auc"], found["noise_precision_at_share"]) == (pytest.approx(2 / 3), 0)
    assert (found["noise_share"], found["noise_precision"], found["noise_recall"]) == (0.4, 0.5, 0.5)


def test_constant_scores_tell_nothing() -> None:
    """Any two of the five may be dropped: 2/5 of them are noise, in expectation."""
    found = detection_metrics(NOISE, np.zeros(5), DROPPED, PROBABILITY)
    assert (found["noise_auc"], found["noise_precision_at_share"]) == (0.5, pytest.approx(0.4))


def test_by_bucket() -> None:
    """Bucket 1 holds the first two (order right: AUC 1), bucket 2 the third (noise alone: left out), 3 the rest."""
    table = detection_by_bucket(np.array([1, 1, 2, 3, 3]), NOISE, SCORE, DROPPED, PROBABILITY)
    assert [(row["bucket"], row["noise_auc"]) for row in table] == [(1, 1.0)]
