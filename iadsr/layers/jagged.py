"""From real positions, which the backbones compute, to padded windows, which attention and callers need, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

SHORTEST = 4  # windows up to this length are padded together


def padded(states: Float[Tensor, "real width"], valid: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
    """The states of real positions, window by window, in their places; zeros elsewhere."""
    return scatter_rows(states, valid.flatten().nonzero().flatten(), valid.numel()).unflatten(0, valid.shape)


def gather_rows(states: Float[Tensor, "rows width"], numbers: Int[Tensor, " some"]) -> Float[Tensor, "some width"]:
    """states[numbers] for numbers that all differ; torch would sum its gradient row by row, on one thread."""
    taken: Tensor = _GatherRows.apply(states, numbers)
    return taken


def scatter_rows(
    states: Float[Tensor, "some width"], numbers: Int[Tensor, " some"], rows: int
) -> Float[Tensor, "rows width"]:
    """`rows` rows of zeros, except for `states` in the rows of these numbers, which all differ."""
    return states.new_zeros(rows, states.shape[1]).index_copy(0, numbers, states)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, numbers: Tensor) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.rows = len(states)
        return states.index_select(0, numbers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return scatter_rows(grads[0], ctx.saved_tensors[0], ctx.rows), None


class Jagged:
    """The real positions of padded histories. Values for these positions alone, history by history, are called rows."""

    def __init__(self, valid: Bool[Tensor, "batch time"]) -> None:
        self.valid, self.lengths = valid, valid.sum(1)
        self.first = self.lengths.cumsum(0) - self.lengths  # rows before each history's
        self.numbers = valid.flatten().nonzero().flatten()
        self.owner = self.numbers // valid.shape[1]

    def __len__(self) -> int:
        return len(self.numbers)

    def rows(self, table: Shaped[Tensor, "batch time"]) -> Shaped[Tensor, " real"]:
        return table.flatten()[self.numbers]

    def padded(self, rows: Shaped[Tensor, " real"], fill: float = 0) -> Shaped[Tensor, "batch time"]:
        empty = rows.new_full((self.valid.numel(),), fill)
        return empty.index_copy(0, self.numbers, rows).view_as(self.valid)

    def sums(self, rows: Shaped[Tensor, "real *width"]) -> Shaped[Tensor, "batch *width"]:
        """The sum of each history's rows."""
        return rows.new_zeros(len(self.lengths), *rows.shape[1:]).index_add(0, self.owner, rows)

    def spread(self, values: Shaped[Tensor, "batch *width"]) -> Shaped[Tensor, "real *width"]:
        """Each history's value, repeated at each of its rows."""
        return values.index_select(0, self.owner)


@dataclass(frozen=True)
class LengthGroup:
    """Windows of similar length; their real positions stand together in a list of those of all groups."""

    part: slice  # of that list
    places: Int[Tensor, "windows longest"]  # which entry of the part stands where; beyond a window's end any other
    valid: Bool[Tensor, "windows longest"]
    real: Int[Tensor, " real"]  # the flat numbers of valid places

    def padded(self, states: Float[Tensor, "real width"]) -> Float[Tensor, "windows longest width"]:
        """The part's states, padded with copies of others: for causal use, where nothing sees what comes after."""
        result: Tensor = _Padded.apply(states, self.places, self.real)
        return result

    def unpadded(self, states: Float[Tensor, "windows longest width"]) -> Float[Tensor, "real width"]:
        """The states of the part again, without padding."""
        return gather_rows(states.flatten(0, 1), self.real)


class _Padded(torch.autograd.Function):
    """No gradient comes back from padding, so there is nothing to sum."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, places: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(real)
        return states.index_select(0, places.flatten()).unflatten(0, places.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].flatten(0, 1).index_select(0, ctx.saved_tensors[0]), None, None


def length_groups(valid: Bool[Tensor, "batch time"]) -> tuple[Int[Tensor, " real"], list[LengthGroup]]:
    """The flat numbers of all real positions, in the order of the groups, and the groups.

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
            where = inside.flatten().nonzero().flatten()
            groups.append(LengthGroup(slice(begin, begin + count), places.clamp(max=count - 1), inside, where))
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
