"""The signals of an item by hand, and what they may depend on."""

from __future__ import annotations

import pytest
import torch
from small_detectors import gap_model, random_texts
from small_models import LENGTH
from torch import Tensor

from iadsr.models.denoisers.cloze.gap_model import GAPS, GapModel
from iadsr.models.denoisers.cloze.signals import BEHAVIOUR, NAMES, TEXT, beside_the_rest, others_of, signals_of

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8, 9, 7])
ROWS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])


def padded(*windows: list[int], width: int = LENGTH) -> Tensor:
    return torch.tensor([window + [0] * (width - len(window)) for window in windows])


def of(*windows: list[int], width: int = LENGTH) -> Tensor:
    return signals_of(gap_model(), padded(*windows, width=width), random_texts(), torch.float32)


def beside(items: list[int], gap: int = 0) -> list[float]:
    """Of each item of a window, from ROWS: cosine with the mean of the rest."""
    window = torch.tensor([items])
    found: list[float] = beside_the_rest(ROWS[window], others_of(window, gap))[0].tolist()
    return found


def test_every_signal_has_a_view() -> None:
    assert NAMES == BEHAVIOUR + TEXT


def test_cosines_with_the_rest_by_hand() -> None:
    """Of (1, 0), (0, 1), (0.6, 0.8) the rests are (0.6, 1.8), (1.6, 0.8), (1, 1).

    0.6 / sqrt(3.6), 0.8 / sqrt(3.2), 1.4 / sqrt(2).
    """
    assert beside([1, 2, 3]) == pytest.approx([0.6 / 3.6**0.5, 0.8 / 3.2**0.5, 1.4 / 2**0.5])


def test_an_item_that_is_there_twice_does_not_speak_for_itself() -> None:
    """Beside 1 there is 3 alone; beside 3 there is 1, twice; padding is beside nothing."""
    assert beside([1, 3, 1, 0]) == pytest.approx([0.6, 0.6, 0.6, 0])


def test_neighbours_in_the_gap_do_not_speak() -> None:
    """With one hidden on either side the first of 1, 2, 3, 2 is beside 3 and 2, the second beside nobody but 1 and 3:
    its like does not count, so its neighbours do; the third is beside 1, the last beside 1 alone."""
    assert beside([1, 2, 3, 2], 1) == pytest.approx([0.6 / 3.6**0.5, 0.8 / 3.2**0.5, 0.6, 0])


def test_an_item_without_others_is_neither_like_nor_unlike() -> None:
    assert beside([2, 2, 0]) == [0, 0, 0]
    assert not of([6])[0, 0, NAMES.index("table") :].any()


def test_a_rest_that_cancels_has_no_direction() -> None:
    """(0, 1) beside (1, 0) and (-1, 0)."""
    rows = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]])
    assert beside_the_rest(rows, ~torch.eye(3, dtype=torch.bool)[None])[0, 2] == 0


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
    assert found[0].tolist() == pytest.approx([half, -(0.5**0.5), 0.6])
    assert found[1].tolist() == pytest.approx([quarter, -(0.5**0.5), 0.6])


def test_signals_are_means_over_gaps() -> None:
    model, texts, items = gap_model(), random_texts(), padded(*WINDOWS)
    table = model.table(texts)
    fits = torch.stack([model.fits(items, items > 0, table, gap, torch.float32) for gap in GAPS]).mean(0)
    beside = torch.stack([beside_the_rest(texts[items], others_of(items, gap)) for gap in GAPS]).mean(0)
    found = of(*WINDOWS)
    torch.testing.assert_close(found[items > 0][:, 0], fits)
    torch.testing.assert_close(found[..., 2], beside)


def test_nothing_outside_a_window_matters() -> None:
    """Neither padding nor the windows beside it, in whatever order."""
    together = of(*WINDOWS)
    torch.testing.assert_close(of(*WINDOWS[::-1]).flip(0)[together != 0], together[together != 0])
    for window, signals in zip(WINDOWS, together, strict=True):
        torch.testing.assert_close(of(window, width=len(window))[0], signals[: len(window)])
