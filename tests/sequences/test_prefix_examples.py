"""Prefixes as examples, worked by hand."""

from __future__ import annotations

import pytest
import torch
from small_models import at, batch_of, padded

from iadsr.sequences.prefix_examples import prefixes_with_target

BATCH = batch_of([3, 1, 4], [9, 2], [6], first_row=10)  # rows 10-12, 13-14, 15; users 1, 2, 3


def test_by_hand() -> None:
    """Prefixes 3 -> 1, (3, 1) -> 4 and 9 -> 2; a newest item has no target, so neither has the window of one item."""
    found = prefixes_with_target(BATCH)
    assert found.window.tolist() == [0, 0, 1]
    assert found.batch.items.tolist() == [[3, 0], [3, 1], [9, 0]]
    assert found.batch.rows.tolist() == [[10, -1], [10, 11], [13, -1]]
    assert found.batch.targets.tolist() == [[1, 0], [0, 4], [2, 0]]
    assert found.targets.tolist() == [1, 4, 2]
    assert found.batch.users.tolist() == [1, 1, 2]


def test_nothing_to_predict() -> None:
    """No prefix, and a shape that can be computed with."""
    found = prefixes_with_target(at(BATCH, slice(2, 3)))
    assert found.batch.items.shape == (0, 1) and len(found.targets) == 0


def test_padding_changes_nothing() -> None:
    one, other = prefixes_with_target(BATCH), prefixes_with_target(padded(BATCH, 2))
    assert torch.equal(one.batch.items, other.batch.items) and torch.equal(one.batch.rows, other.batch.rows)


@pytest.mark.parametrize("most", [1, 2, 3, 9])
def test_some_of_each_window(most: int) -> None:
    """At most so many of each window, and in 200 draws every prefix equally often."""
    batch = batch_of([1, 2, 3, 4], [5, 6])
    torch.manual_seed(0)
    lengths = torch.zeros(4)
    for _ in range(200):
        found = prefixes_with_target(batch, most)
        assert torch.bincount(found.window, minlength=2).tolist() == [min(most, 3), 1]
        first = found.batch.valid[found.window == 0].sum(1)
        assert len(set(first.tolist())) == min(most, 3)
        lengths += torch.bincount(first, minlength=4)
    shares = lengths[1:] / 200
    torch.testing.assert_close(shares, torch.full((3,), min(most, 3) / 3), atol=0.1, rtol=0)
