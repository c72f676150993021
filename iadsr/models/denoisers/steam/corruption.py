"""Histories with random items deleted and inserted, and the operations that mend them: what STEAM's corrector learns.

As published: a walk over a random part of a history deletes runs of items, which are then to be inserted before the
item that follows, and inserts items that the window does not hold, which are to be deleted. The last item is never
deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

KEEP, DELETE, INSERT = range(3)  # operations on an item; INSERT: keep it, and insert others before it


class Draws(NamedTuple):
    """Uniform numbers that decide on all that is random about a batch of histories, wider than any of them."""

    start: Float[Tensor, " batch"]
    length: Float[Tensor, " batch"]
    delete: Float[Tensor, "batch width"]
    insert: Float[Tensor, "batch width"]
    item: Float[Tensor, "batch width"]
    mask: Float[Tensor, "batch width"]  # of the history as it is
    mask_corrected: Float[Tensor, "batch width"]

    @classmethod
    def of(cls, batch: int, width: int, device: torch.device) -> Draws:
        """Draw from torch's own generator of the CPU, so that a seed means the same on every device."""
        whole, by_place = torch.rand(2, batch), torch.rand(5, batch, width)
        return cls(*whole.to(device), *by_place.to(device))


class Rates(NamedTuple):
    """The rates of the walk's operations; they sum to 1."""

    keep: float
    delete: float
    insert: float


@dataclass(frozen=True)
class Slots:
    """Filled slots of each row move to its left, their order kept; if too many are filled, the first are left out."""

    row: Int[Tensor, " filled"]
    slot: Int[Tensor, " filled"]
    place: Int[Tensor, " filled"]
    width: int

    @classmethod
    def of(cls, filled: Bool[Tensor, "batch slots"], most: int) -> Slots:
        counts = filled.sum(1)
        place = filled.cumsum(1) - 1 - (counts - most).clamp(min=0)[:, None]
        row, slot = (filled & (place >= 0)).nonzero(as_tuple=True)
        return cls(row, slot, place[row, slot], min(most, int(counts.max())))

    def moved(self, values: Int[Tensor, "batch slots *more"]) -> Int[Tensor, "batch width *more"]:
        """The moved values, with zeros beyond them."""
        result = values.new_zeros(len(values), self.width, *values.shape[2:])
        result[self.row, self.place] = values[self.row, self.slot]
        return result


@dataclass(frozen=True)
class Corrupted:
    """`missing` is what stood right before an item: the nearest first, 0 after the last."""

    items: Int[Tensor, "batch width"]
    operations: Int[Tensor, "batch width"]
    missing: Int[Tensor, "batch width most"]


def corrupted(
    items: Int[Tensor, "batch time"],
    draws: Draws,
    rates: Rates,
    item_count: int,
    max_length: int,
    most_added: int,
    most_inserted: int,
) -> Corrupted:
    """A random part of each history, disturbed; `max_length` and `most_added` bound its length, before and after."""
    part = random_part(items, draws, max_length)
    deleted, run = walked(part > 0, draws.delete, rates, most_inserted)
    kept = (part > 0) & ~deleted
    strange = unseen(items, draws.item[:, : part.shape[1]], item_count)
    strange *= (part > 0) & (run == 0) & (draws.insert[:, : part.shape[1]] < rates.insert)
    tokens = torch.stack([strange, part * kept], 2).flatten(1)
    operations = torch.stack([torch.full_like(part, DELETE), torch.where(run > 0, INSERT, KEEP)], 2).flatten(1)
    missing = run_before(part, run * kept, most_inserted)
    missing = torch.stack([torch.zeros_like(missing), missing], 2).flatten(1, 2)
    slots = Slots.of(tokens > 0, max_length + most_added)
    return Corrupted(slots.moved(tokens), slots.moved(operations), slots.moved(missing))


def random_part(items: Int[Tensor, "batch time"], draws: Draws, max_length: int) -> Int[Tensor, "batch part"]:
    """From a random item on, 1 to `max_length` items, or as many as there are."""
    lengths = (items > 0).sum(1)
    start = (draws.start * lengths).long()
    counts = torch.minimum(1 + (draws.length * max_length).long(), lengths - start)
    time = torch.arange(int(counts.max()), device=items.device)
    place = (start[:, None] + time).clamp(max=items.shape[1] - 1)
    return torch.where(time < counts[:, None], items.gather(1, place), 0)


def walked(
    valid: Bool[Tensor, "batch time"], draws: Float[Tensor, "batch width"], rates: Rates, most: int
) -> tuple[Bool[Tensor, "batch time"], Int[Tensor, "batch time"]]:
    """Which items are deleted, and how many right before each.

    An item is kept or deleted whether or not a random one is put before it; after a deletion, the next is deleted with
    the rate of deletions, up to `most` in a run; the item that ends a run is kept.
    """
    first, later = rates.delete / (rates.keep + rates.delete), rates.delete
    free = valid & F.pad(valid[:, 1:], (0, 1))  # all but the last item
    run = torch.zeros(len(valid), dtype=torch.long, device=valid.device)
    deleted, runs = [], []
    for time in range(valid.shape[1]):
        gone = (draws[:, time] < torch.where(run > 0, later, first)) & (run < most) & free[:, time]
        deleted.append(gone)
        runs.append(run)
        run = (run + 1) * gone
    return torch.stack(deleted, 1), torch.stack(runs, 1)


def run_before(
    items: Int[Tensor, "batch time"], counts: Int[Tensor, "batch time"], most: int
) -> Int[Tensor, "batch time most"]:
    """The `counts` items right before each item, the nearest first, then zeros."""
    back = torch.arange(1, most + 1, device=items.device)
    place = (torch.arange(items.shape[1], device=items.device)[:, None] - back).clamp(min=0)
    return torch.where(back <= counts[..., None], items[:, place], 0)


def unseen(
    items: Int[Tensor, "batch time"], draws: Float[Tensor, "batch part"], item_count: int
) -> Int[Tensor, "batch part"]:
    """For each uniform number an equally likely item that the history does not hold; 0 where it holds the catalogue.

    The r-th item that is not in it is r plus one for each of its items that has fewer than r others below it.
    """
    ordered = items.sort(1).values
    repeated = ordered == F.pad(ordered[:, :-1], (1, 0))  # padding, too
    beyond = item_count + items.shape[1] + 1
    ordered = torch.where(repeated, beyond, ordered).sort(1).values
    free = item_count - (ordered < beyond).sum(1, keepdim=True)
    number = 1 + torch.minimum((draws * free).long(), free - 1)
    others_below = ordered - 1 - torch.arange(items.shape[1], device=items.device)
    found = number + (others_below[:, None] < number[..., None]).sum(-1)
    return torch.where(free > 0, found, 0)
