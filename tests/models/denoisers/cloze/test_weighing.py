"""Functions that are linear between points, and probabilities that fall as signals rise."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_detectors import detector

from iadsr.models.denoisers.cloze.signals import NAMES
from iadsr.models.denoisers.cloze.weighing import Weighing, interpolated

signals = st.lists(st.floats(-9, 9, width=32), min_size=len(NAMES), max_size=len(NAMES))
rises = st.lists(st.floats(0, 9, width=32), min_size=len(NAMES), max_size=len(NAMES))


def test_interpolated_by_hand() -> None:
    """Points 0, 1, 3 with heights 2, 4, 0: half way to 4 is 3, a quarter down from it is 3; flat beyond."""
    points, heights = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([2.0, 4.0, 0.0])
    values = torch.tensor([[-5.0, 0.0, 0.5, 1.0], [1.5, 3.0, 7.0, float("inf")]])
    assert interpolated(values, points, heights).tolist() == [[2, 2, 3, 4], [3, 0, 0, 0]]


def test_points_that_are_equal_are_a_step() -> None:
    """As rounding to float32 may make of two that were not."""
    points, heights = torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.tensor([0.0, 2.0, 4.0, 6.0])
    assert interpolated(torch.tensor([0.5, 1.0, 1.001]), points, heights).tolist() == [1, 2, 6]


def test_parts_add_up_to_the_fit() -> None:
    """Knots from 0 to 1, heights 0 to 1 and 0 to 2: signals 0.5 and 0.25 add 0.5 and 0.5; of a fit of 1 half is noise.

    The calibration falls from 1 to 0 between 0 and 2.
    """
    weighing = Weighing(2)
    weighing.heights.copy_(weighing.knots * torch.tensor([[1.0], [2.0]]))
    weighing.points.mul_(2)
    weighing.noise.copy_(1 - weighing.points / 2)
    given = torch.tensor([[0.5, 0.25]])
    torch.testing.assert_close(weighing.parts(given), torch.tensor([[0.5, 0.5]]))
    assert weighing.noise_probability(given).item() == pytest.approx(0.5)


@given(signals, rises)
def test_larger_signals_never_raise_the_probability_of_noise(values: list[float], more: list[float]) -> None:
    """But for rounding."""
    weighing, before = WEIGHING, torch.tensor(values)
    after = before + torch.tensor(more)
    assert weighing.noise_probability(after) <= weighing.noise_probability(before) + 1e-6


WEIGHING = detector().weighing
