"""A bias for items that are already in the history, by how long ago they were met.

On some data nobody repeats, on others nearly everybody does, and inner products do not know which: an item that has
just been met is most like the history. So training does not ask a model to score such items low: they are left out of
its softmax, unless one is the target. The biases are learnt after each epoch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from iadsr.layers.cross_entropy import LeftOut

AGES = 7  # the newest item, two before it, four before these, eight, ...; all beyond are the last


class MetItems(NamedTuple):
    """The distinct items of each of some histories, and how long ago each was met last."""

    rows: Int[Tensor, " cells"]  # the number of the history, rising
    items: Int[Tensor, " cells"]
    ages: Int[Tensor, " cells"]  # 0 to AGES - 1


class Repeats(nn.Module):
    """What is added to the scores of items of the history; nothing before it is learnt."""

    biases: Float[Tensor, " ages"]

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("biases", torch.zeros(AGES))

    def add_to(self, scores: Float[Tensor, "batch items"], items: Int[Tensor, "batch time"]) -> None:
        """Add the biases of what each window holds to its scores, in place; column 0 is item 1."""
        met = met_in(items)
        scores.index_put_((met.rows, met.items - 1), self.biases.to(scores.dtype)[met.ages], accumulate=True)


def met_in(items: Int[Tensor, "batch time"]) -> MetItems:
    """What windows hold, padding being 0 on the right."""
    time = torch.arange(items.shape[1], device=items.device)
    again = ((items[:, :, None] == items[:, None, :]) & (time[:, None] < time)).any(2)
    rows, places = ((items > 0) & ~again).nonzero(as_tuple=True)
    newest = (items > 0).sum(1) - 1
    return MetItems(rows, items[rows, places], age_of(newest[rows] - places))


def others_met(items: Int[Tensor, "batch time"], targets: Int[Tensor, "batch time"]) -> LeftOut:
    """For each position with a target, in their order, the items of the window up to there, but the target."""
    time = items.shape[1]
    positions = (targets.flatten() > 0).nonzero().flatten()
    held, own = items[positions // time], targets.flatten()[positions, None]
    before = torch.arange(time, device=items.device) <= (positions % time)[:, None]
    rows, places = ((held > 0) & before & (held != own)).nonzero(as_tuple=True)
    return LeftOut(rows, held[rows, places])


def age_of(distances: Int[Tensor, " cells"]) -> Int[Tensor, " cells"]:
    """
    >>> age_of(torch.tensor([0, 1, 2, 3, 4, 7, 8, 1000])).tolist()
    [0, 1, 1, 2, 2, 3, 3, 6]
    """
    return torch.log2(distances.double() + 1).floor().long().clamp(max=AGES - 1)
