"""Between real positions, which the backbones compute, and padded windows, which attention and callers need."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SHORTEST = 4  # windows up to this length are padded together


def padded(states: Float[Tensor, "real width"], valid: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
    """The states of real positions, window by window, in their places; zeros elsewhere."""
    return states.new_zeros(*valid.shape, states.shape[1]).index_put(valid.nonzero(as_tuple=True), states)


@dataclass(frozen=True)
class Group:
    """Windows of like length; their real positions stand together in a list of the real positions of all groups."""

    part: slice  # of that list
    places: Int[Tensor, "windows longest"]  # which of the part stands where; beyond a window's end some other
    valid: Bool[Tensor, "windows longest"]

    def padded(self, states: Float[Tensor, "real width"]) -> Float[Tensor, "windows longest width"]:
        """Padding holds copies of other positions: for causal use, where nothing sees what comes after it."""
        return states[self.part][self.places]


def by_length(valid: Bool[Tensor, "batch time"]) -> tuple[Int[Tensor, " real"], list[Group]]:
    """The flat numbers of all real positions, and the groups in whose order they are.

    On a CPU no window is padded to more than about twice its length; on a GPU a launch costs more than padding, so
    there is one group.
    """
    lengths = valid.sum(1)
    bounds = _halved(int(lengths.max())) if valid.device.type == "cpu" else [valid.shape[1]]
    member = torch.bucketize(lengths, torch.tensor(bounds, device=valid.device))
    order = torch.argsort(member, stable=True)
    time = torch.arange(valid.shape[1], device=valid.device)
    real = (order[:, None] * valid.shape[1] + time)[valid[order]]
    groups, begin = [], 0
    sizes = torch.bincount(member, minlength=len(bounds)).tolist()
    for width, part in zip(bounds, lengths[order].split(sizes), strict=True):
        count = int(part.sum())
        places = (part.cumsum(0) - part)[:, None] + time[:width]
        inside = time[:width] < part[:, None]
        if count:
            groups.append(Group(slice(begin, begin + count), places.clamp(max=count - 1), inside))
        begin += count
    return real, groups


def _halved(longest: int) -> list[int]:
    """`longest` and its halves, rising.

    >>> _halved(50)
    [4, 7, 13, 25, 50]
    """
    bounds = [longest]
    while bounds[0] > SHORTEST:
        bounds.insert(0, (bounds[0] + 1) // 2)
    return bounds
