"""Caser against one convolution a height over each prefix's own window."""

from __future__ import annotations

import pytest
import torch
from small_models import DIM, LENGTH, small_backbone
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.backbones.caser import Caser, running_max

pytestmark = pytest.mark.usefixtures("one_thread")


def one_prefix(caser: Caser, prefix: Tensor) -> Tensor:
    """The window of the newest items, zeros before the first; for each height a convolution, ReLU and a maximum.

    The maximum is over the places where a filter lies inside the window and ends at a real item.
    """
    size = caser.window
    newest = prefix[-size:]
    window = torch.cat([torch.zeros(size - len(newest), DIM), newest])
    features = []
    for height in range(1, size + 1):
        filters = caser.horizontal[height - 1, :, size - height :]
        found = F.relu(F.conv1d(window.T[None], filters.transpose(1, 2), caser.horizontal_bias[height - 1]))[0]
        ends = [place + height - 1 for place in range(found.shape[1])]
        features.append(found[:, [end >= size - len(newest) for end in ends]].max(1).values)
    for weights in caser.vertical:
        features.append(sum(weight * item for weight, item in zip(weights, window, strict=True)))
    return F.relu(F.linear(torch.cat(features), caser.fuse.weight, caser.fuse.bias))


@pytest.mark.parametrize("window", [1, 2, 3, LENGTH, LENGTH + 2])
def test_equals_a_convolution_a_height_on_every_prefix(window: int) -> None:
    """Also where the window is one item, the whole history, or longer than any history."""
    torch.manual_seed(window)
    caser = small_backbone("caser", window=window)
    torch.nn.init.normal_(caser.horizontal_bias)
    inputs = torch.randn(2, LENGTH, DIM)
    states = caser(inputs, torch.ones(2, LENGTH, dtype=torch.bool))
    for row in range(2):
        for place in range(LENGTH):
            torch.testing.assert_close(states[row, place], one_prefix(caser, inputs[row, : place + 1]))


def test_running_max_by_hand() -> None:
    """Of 3, 1, 2, 0 and -1, two at a time: 3, 3, 2, 2, 0; a first value below zero stays (no zero padding)."""
    values = torch.tensor([[[3.0], [1.0], [2.0], [0.0], [-1.0]]])
    assert running_max(values, 2).flatten().tolist() == [3, 3, 2, 2, 0]
    assert running_max(-values, 2)[0, 0, 0] == -3
    assert torch.equal(running_max(values, 1), values)


def test_items_before_the_window_do_not_matter() -> None:
    torch.manual_seed(0)
    caser = small_backbone("caser", window=2)
    inputs = torch.randn(1, 5, DIM)
    changed = inputs.clone()
    changed[:, :3] = 9.0
    valid = torch.ones(1, 5, dtype=torch.bool)
    assert torch.equal(caser(inputs, valid)[:, 4], caser(changed, valid)[:, 4])
    assert not torch.equal(caser(inputs, valid)[:, 3], caser(changed, valid)[:, 3])
