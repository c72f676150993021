"""Paired tests and Holm's correction by hand."""

from __future__ import annotations

import numpy as np
import pytest

from iadsr.evaluate.significance import holm, paired_p


def test_p_by_hand() -> None:
    """Differences 1, 0, 1, 0: mean 1/2, deviation 1/sqrt(3), so t = (1/2) / (1/sqrt(3) / 2) = sqrt(3) with 3 degrees of
    freedom, whose distribution function is 1/2 + (x / (1 + x^2) + atan(x)) / pi with x = t / sqrt(3) = 1: .909."""
    found = paired_p(np.array([1.0, 0.5, 1.0, 0.0]), np.array([0.0, 0.5, 0.0, 0.0]))
    assert found == pytest.approx(2 * (1 - (0.5 + (0.5 + np.pi / 4) / np.pi)))


def test_p_of_both_directions_is_the_same() -> None:
    first, second = np.random.default_rng(0).random((2, 50))
    assert paired_p(first, second) == pytest.approx(paired_p(second, first)) and 0 < paired_p(first, second) < 1


def test_equal_models_do_not_differ() -> None:
    assert paired_p(np.zeros(5), np.zeros(5)) == 1


def test_holm_by_hand() -> None:
    """Of .01, .04, .03, .005 the smallest count four, three, two and one times: .02, .03, .06, and .04 rises to .06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_never_exceeds_one() -> None:
    assert holm([0.6, 0.7]) == [1, 1] and holm([]) == [] and holm([0.2]) == [0.2]
