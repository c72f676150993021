"""Jagged positions, by length and back: nothing lost, nothing mixed, little padded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iadsr.layers.jagged import Jagged, gather_rows, length_groups, padded, scatter_rows


def valid_of(lengths: list[int], time: int | None = None) -> Tensor:
    return torch.arange(time or max(lengths)) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("lengths", [[1], [7], [3, 3], [50, 1, 4, 5, 9, 2, 25, 26, 13], [0, 2, 0]])
def test_groups_hold_each_real_position_once(lengths: list[int]) -> None:
    """Padded group by group, and the padding taken off: the list again; each row is one window, in order."""
    valid = valid_of(lengths, 50)
    real, groups = length_groups(valid)
    assert sorted(real.tolist()) == valid.flatten().nonzero().flatten().tolist()
    numbers = real[:, None].double()
    found = torch.cat([group.unpadded(group.padded(numbers[group.part])) for group in groups])
    assert torch.equal(found, numbers)
    assert all(torch.equal(group.padded(numbers[group.part])[group.valid], numbers[group.part]) for group in groups)
    rows = [
        row[inside].flatten().tolist()
        for g in groups
        for row, inside in zip(g.padded(numbers[g.part]), g.valid, strict=True)
    ]
    assert sorted(row for row in rows if row) == sorted(
        [float(50 * window + time) for time in range(length)] for window, length in enumerate(lengths) if length
    )


def test_no_window_is_padded_to_more_than_about_twice_its_length() -> None:
    lengths = torch.randint(1, 51, (200,), generator=torch.Generator().manual_seed(0))
    _, groups = length_groups(valid_of(lengths.tolist()))
    for group in groups:
        inside = group.valid.sum(1)
        assert group.valid.shape[1] <= max(4, 2 * int(inside[inside > 0].min()))


def test_padded_by_hand() -> None:
    """Two windows of 1 and 2 positions: states 5, 6, 7."""
    states = torch.tensor([[5.0], [6.0], [7.0]])
    assert padded(states, valid_of([1, 2])).flatten().tolist() == [5, 0, 6, 7]


def test_taking_and_putting_have_the_gradients_of_indexing() -> None:
    """Rows 4, 0 and 2 of five taken, and put back."""
    states, numbers = torch.randn(5, 3, dtype=torch.float64, requires_grad=True), torch.tensor([4, 0, 2])
    taken = gather_rows(states, numbers)
    assert torch.equal(taken, states[numbers])
    assert (
        torch.equal(scatter_rows(taken, numbers, 5)[numbers], taken)
        and not scatter_rows(taken, numbers, 5)[[1, 3]].any()
    )
    assert torch.autograd.gradcheck(lambda states: scatter_rows(gather_rows(states, numbers).sin(), numbers, 5), states)


def test_padding_gives_back_the_gradient_of_real_positions() -> None:
    """Two windows of 3 and 1 positions in one group, in which padding takes no part."""
    _, (group,) = length_groups(valid_of([3, 1]))
    states = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda states: group.unpadded(group.padded(states).cos()), states)


def test_rows_of_real_positions() -> None:
    """Of lengths 2, 0 and 3: five rows; sums of each history, values spread over rows, and a table and back."""
    real = Jagged(valid_of([2, 0, 3], 4))
    assert (real.lengths.tolist(), real.first.tolist(), real.owner.tolist()) == ([2, 0, 3], [0, 2, 2], [0, 0, 2, 2, 2])
    table = torch.arange(12).view(3, 4)
    rows = real.rows(table)
    assert len(real) == 5 and rows.tolist() == [0, 1, 8, 9, 10]
    assert real.padded(rows, -1.0).tolist() == [[0, 1, -1, -1], [-1] * 4, [8, 9, 10, -1]]
    assert real.sums(rows).tolist() == [1, 0, 27]
    assert real.sums(torch.stack([rows, rows], dim=1)).tolist() == [[1, 1], [0, 0], [27, 27]]
    assert real.spread(torch.tensor([7, 8, 9])).tolist() == [7, 7, 9, 9, 9]
