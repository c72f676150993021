"""The bit table of masks: what goes in comes out, by row and lag, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iadsr.models.denoisers.iadsr.mask_table import MaskTable, packed, unpacked

ROWS = torch.tensor([[0, 1, 2, 3, 4], [5, 6, -1, -1, -1], [7, -1, -1, -1, -1], [8, 9, 10, 11, -1]])


def seen(rows: Tensor) -> Tensor:
    time = torch.arange(rows.shape[1])
    return (time[None, :] <= time[:, None]) & (rows >= 0)[:, :, None] & (rows >= 0)[:, None, :]


def random_masks(rows: Tensor, seed: int = 0) -> Tensor:
    """keep[window, p, t]; items after p and padding are kept, as `recall_prefixes` gives them."""
    drawn = torch.rand(*rows.shape, rows.shape[1], generator=torch.Generator().manual_seed(seed)) < 0.6
    return drawn | ~seen(rows)


@pytest.mark.parametrize("bits", [8, 16, 56])
def test_packing_goes_round(bits: int) -> None:
    verdicts = torch.rand(3, 2, bits, generator=torch.Generator().manual_seed(bits)) < 0.5
    assert packed(verdicts).shape == (3, 2, bits // 8)
    assert torch.equal(unpacked(packed(verdicts)), verdicts)


def test_packed_by_hand() -> None:
    """The first verdict is the lowest bit: 1 + 4 = 5."""
    assert packed(torch.tensor([1, 0, 1, 0, 0, 0, 0, 0]).bool()).tolist() == [5]


@pytest.mark.parametrize("columns", [5, 8, 20])
def test_every_verdict_of_a_prefix_goes_round(columns: int) -> None:
    """The verdict on item t of prefix p stands at [row of p, p - t], and at no other place of the table."""
    table, masks = MaskTable(12, columns), random_masks(ROWS)
    table.remember_prefixes(ROWS, masks)
    assert int((~unpacked(table.current)).sum()) == int((~masks).sum())
    assert unpacked(table.current)[4, :5].tolist() == masks[0, 4].flip(0).tolist()
    assert table.recall_prefixes(ROWS).all()  # until the epoch ends
    table.end_epoch()
    assert torch.equal(table.recall_prefixes(ROWS), masks)


def test_masks_go_by_row() -> None:
    """The same rows in another order, padded wider, or a window that has moved by two recall the same verdicts."""
    table, masks = MaskTable(12, 8), random_masks(ROWS)
    table.remember_prefixes(ROWS, masks)
    table.end_epoch()
    mixed = torch.nn.functional.pad(ROWS[[3, 1, 0]], (0, 2), value=-1)
    again = table.recall_prefixes(mixed)
    assert torch.equal(again[0, :4, :4], masks[3, :4, :4]) and torch.equal(again[2, :5, :5], masks[0])
    assert torch.equal(table.recall_prefixes(ROWS[:1, 2:])[0], masks[0, 2:, 2:])


def test_verdicts_on_items_before_the_window_stay() -> None:
    """A second epoch whose window begins two rows later leaves what prefixes said of the first two rows."""
    table, masks = MaskTable(12, 8), random_masks(ROWS)
    table.remember_prefixes(ROWS, masks)
    later = torch.zeros(1, 3, 3, dtype=torch.bool)
    table.remember_prefixes(ROWS[:1, 2:], later)
    table.end_epoch()
    expected = masks[0].clone()
    expected[2:, 2:] = later[0] | ~seen(ROWS[:1, 2:])[0]
    assert torch.equal(table.recall_prefixes(ROWS)[0], expected)


def test_verdicts_on_items_go_round() -> None:
    table, masks = MaskTable(12, 1), torch.rand(4, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    table.remember_items(ROWS, masks)
    table.end_epoch()
    assert torch.equal(table.recall_items(ROWS), masks | (ROWS < 0))
    assert torch.equal(table.recall_items(ROWS[:, 1:]), (masks | (ROWS < 0))[:, 1:])


def test_a_table_is_no_weight_and_can_be_loaded() -> None:
    table, other = MaskTable(12, 8), MaskTable(12, 8)
    table.remember_prefixes(ROWS, random_masks(ROWS))
    table.end_epoch()
    other.load(table.previous)
    assert not table.state_dict()
    assert torch.equal(other.recall_prefixes(ROWS), table.recall_prefixes(ROWS))
    assert torch.equal(other.current, table.current)
