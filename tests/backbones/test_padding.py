"""Real positions, by length and back: nothing lost, nothing mixed, little padded."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iadsr.backbones.padding import by_length, padded


def valid_of(lengths: list[int], time: int | None = None) -> Tensor:
    return torch.arange(time or max(lengths)) < torch.tensor(lengths)[:, None]


@pytest.mark.parametrize("lengths", [[1], [7], [3, 3], [50, 1, 4, 5, 9, 2, 25, 26, 13], [0, 2, 0]])
def test_groups_hold_each_real_position_once(lengths: list[int]) -> None:
    """Padded group by group, and the padding taken off: the list again; each row is one window, in order."""
    valid = valid_of(lengths, 50)
    real, groups = by_length(valid)
    assert sorted(real.tolist()) == valid.flatten().nonzero().flatten().tolist()
    numbers = real[:, None].double()
    found = torch.cat([group.padded(numbers)[group.valid] for group in groups])
    assert torch.equal(found, numbers)
    rows = [
        row[inside].flatten().tolist() for g in groups for row, inside in zip(g.padded(numbers), g.valid, strict=True)
    ]
    assert sorted(row for row in rows if row) == sorted(
        [float(50 * window + time) for time in range(length)] for window, length in enumerate(lengths) if length
    )


def test_no_window_is_padded_to_more_than_about_twice_its_length() -> None:
    lengths = torch.randint(1, 51, (200,), generator=torch.Generator().manual_seed(0))
    _, groups = by_length(valid_of(lengths.tolist()))
    for group in groups:
        inside = group.valid.sum(1)
        assert group.valid.shape[1] <= max(4, 2 * int(inside[inside > 0].min()))


def test_padded_by_hand() -> None:
    """Two windows of 1 and 2 positions: states 5, 6, 7."""
    states = torch.tensor([[5.0], [6.0], [7.0]])
    assert padded(states, valid_of([1, 2])).flatten().tolist() == [5, 0, 6, 7]
