"""The signals of an item by hand, and what they may depend on."""

from __future__ import annotations

import pytest
import torch
from small_detectors import gap_model, random_texts
from small_models import LENGTH
from torch import Tensor

from iadsr.models.denoisers.cloze.gap_model import GapModel
from iadsr.models.denoisers.cloze.signals import BEHAVIOUR, NAMES, TEXT, beside_the_rest, others_of, signals_of

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8, 9, 7])
ROWS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def padded(*windows: list[int], width: int = LENGTH) -> Tensor:
    return torch.tensor([window + [0] * (width - len(window)) for window in windows])


def of(*windows: list[int], width: int = LENGTH) -> Tensor:
    return signals_of(gap_model(), padded(*windows, width=width), random_texts(), torch.float32)


def beside(items: list[int]) -> list[list[float]]:
    """Of each item of a window, from ROWS: cosine with the mean of the rest, with the nearest."""
    found: list[list[float]] = beside_the_rest(ROWS[torch.tensor([items])], others_of(torch.tensor([items])))[
        0
    ].tolist()
    return found


def test_every_signal_has_a_view() -> None:
    assert NAMES == BEHAVIOUR + TEXT


def test_cosines_with_the_rest_by_hand() -> None:
    """Of (1, 0), (0, 1), (0.6, 0.8) the rests are (0.6, 1.8), (1.6, 0.8), (1, 1); the nearest is the third, or (0, 1).

    0.6 / sqrt(3.6), 0.8 / sqrt(3.2), 1.4 / sqrt(2).
    """
    expected = [[0.6 / 3.6**0.5, 0.6], [0.8 / 3.2**0.5, 0.8], [1.4 / 2**0.5, 0.8]]
    for found, own in zip(beside([1, 2, 3]), expected, strict=True):
        assert found == pytest.approx(own)


def test_an_item_that_is_there_twice_does_not_speak_for_itself() -> None:
    """Beside 1 there is 3 alone; beside 3 there is 1, twice; padding is beside nothing."""
    assert [each for cosines in beside([1, 3, 1, 0]) for each in cosines] == pytest.approx([0.6] * 6 + [0, 0])


def test_an_item_without_others_is_neither_like_nor_unlike() -> None:
    assert beside([2, 2, 0]) == [[0, 0]] * 3
    assert not of([6])[0, 0, NAMES.index("alike") :].any()


def test_a_rest_that_cancels_has_no_direction() -> None:
    """(0, 1) beside (1, 0) and (-1, 0)."""
    rows = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]])
    assert beside_the_rest(rows, ~torch.eye(3, dtype=torch.bool)[None])[0, 2].tolist() == [0, 0]


def test_signals_by_hand() -> None:
    """A model of zeros knows popularity alone: items 1, 2, 3 have 1/2, 1/4, 1/4, whatever stands beside them.

    Their own rows are (1, 0), (0, 1), (-1, -1), which are 0 on average; their texts are those of ROWS.
    """
    model = GapModel(3, 2, 2, 3, 0.0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        model.bias.weight[1:, 0] = torch.tensor([0.5, 0.25, 0.25]).log()
        model.own.weight[1:] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    found = signals_of(model.eval(), torch.tensor([[1, 3, 0]]), ROWS, torch.float32)[0]
    half, quarter = torch.tensor([0.5, 0.25]).log().tolist()
    assert found[0].tolist() == pytest.approx([half, half, half, 0, -(0.5**0.5), -(0.5**0.5), 0.6, 0.6])
    assert found[1].tolist() == pytest.approx([quarter] * 3 + [0, -(0.5**0.5), -(0.5**0.5), 0.6, 0.6])


def test_fits_are_those_of_the_gap_model() -> None:
    model, texts, items = gap_model(), random_texts(), padded(*WINDOWS)
    fits = model.fits(items, model.table(texts), torch.float32)
    expected = torch.stack([fits.before, fits.after, fits.both, fits.both - fits.at_all], 1)
    torch.testing.assert_close(of(*WINDOWS)[items > 0][:, :4], expected)


def test_nothing_outside_a_window_matters() -> None:
    """Neither padding nor the windows beside it, in whatever order."""
    together = of(*WINDOWS)
    torch.testing.assert_close(of(*WINDOWS[::-1]).flip(0)[together != 0], together[together != 0])
    for window, signals in zip(WINDOWS, together, strict=True):
        torch.testing.assert_close(of(window, width=len(window))[0], signals[: len(window)])
