"""Reliability and calibration error by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadsr.evaluate.calibration import BINS, calibration_error, reliability


def shown(happened: list[bool], probability: list[float], bins: int) -> list[tuple[int, float, float, int]]:
    table = reliability(np.array(happened), np.array(probability), bins)
    return [(row["bin"], row["predicted"], row["share"], row["rows"]) for row in table]


def test_one_row() -> None:
    """It lies in the first of 15 bins; the error is 1 - 0.25."""
    assert shown([True], [0.25], BINS) == [(1, 0.25, 1, 1)]
    assert calibration_error(reliability(np.array([True]), np.array([0.25]))) == 0.75


def test_by_hand() -> None:
    """Two bins of the lower and the upper half, in any order: |1/8 - 0| and |3/4 - 1/2|, each of two of four rows."""
    happened, probability = [True, False, False, False], [0.5, 0.25, 1.0, 0.0]
    assert shown(happened, probability, 2) == [(1, 0.125, 0, 2), (2, 0.75, 0.5, 2)]
    assert calibration_error(reliability(np.array(happened), np.array(probability), 2)) == 3 / 16


def test_more_bins_than_rows() -> None:
    assert [row[1:] for row in shown([True, False], [0.5, 0.25], 5)] == [(0.25, 0, 1), (0.5, 1, 1)]


def test_ties_stay_together() -> None:
    """Three of four rows tie: they fill the first bin, and leave the second empty where all four do."""
    assert shown([True, False, False, True], [0.0, 0.0, 0.0, 0.5], 2) == [
        (1, 0, pytest.approx(1 / 3), 3),
        (2, 0.5, 1, 1),
    ]
    assert shown([True, False, False, True], [0.5] * 4, 2) == [(1, 0.5, 0.5, 4)]


@pytest.mark.parametrize(("happened", "error"), [(0.0, 0.0), (1.0, 1.0), (0.3, 0.3)])
def test_a_method_that_never_doubts(happened: float, error: float) -> None:
    """Zero for everything is wrong by the share of what happened."""
    rows = np.arange(10) < 10 * happened
    assert calibration_error(reliability(rows, np.zeros(10))) == error


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=40), st.integers(1, 6))
def test_against_a_plain_reference(rows: list[tuple[bool, int]], bins: int) -> None:
    """Each row, in the order of probabilities, opens the next bin when its own is full and it does not tie."""
    ordered = sorted(rows, key=lambda row: row[1])
    first = [min(place for place, other in enumerate(ordered) if other[1] == row[1]) for row in ordered]
    places = [next(n for n in range(bins) if (n + 1) * len(rows) > place * bins) for place in first]
    gaps = {n: [p / 8 - y for (y, p), place in zip(ordered, places, strict=True) if place == n] for n in set(places)}
    expected = sum(abs(sum(each)) for each in gaps.values()) / len(rows)
    table = reliability(np.array([y for y, _ in rows]), np.array([p / 8 for _, p in rows]), bins)
    assert calibration_error(table) == pytest.approx(expected)
    assert [row["bin"] for row in table] == [n + 1 for n in sorted(set(places))]
