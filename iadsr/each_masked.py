"""Prefix states where every prefix of a window has a mask of its own, without encoding each prefix by itself."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from iadsr.backbones.padding import take
from iadsr.recommender import Recommender
from iadsr.sequences import Batch

EXPANDED = 4096  # runs of prefixes that are encoded at once


def prefix_states_each_masked(
    model: Recommender, batch: Batch, keep: Bool[Tensor, "batch newest time"]
) -> Float[Tensor, "batch time hidden"]:
    """The state of every prefix p under its own mask `keep[:, p]`.

    One pass serves all prefixes of a window whose mask is what most of its prefixes say. The others are encoded
    again: those that follow one another and agree on all that both hold, a run, as one masked sequence, from the
    first item that the backbone can see from its first prefix.
    """
    reach = model.backbone.reach
    usual, odd = usual_masks(batch, keep, reach)
    states = model.prefix_states(batch.items, usual, batch.valid & ~odd).flatten(0, 1)
    window, first, last = runs(batch, keep, odd, reach)
    oldest = (first + 1 - (reach or batch.items.shape[1])).clamp(min=0)
    for part in torch.argsort(last - oldest, stable=True).split(EXPANDED) if len(window) else ():
        time = oldest[part, None] + torch.arange(int((last - oldest)[part].max()) + 1, device=keep.device)
        inside, place = time <= last[part, None], time.clamp(max=batch.items.shape[1] - 1)
        items = torch.where(inside, batch.items[window[part, None], place], 0)
        newest_item = torch.maximum(place, first[part, None])  # whose mask an item has: of the first to hold it
        own = inside & (time >= first[part, None])
        run = model.prefix_states(items, keep[window[part, None], newest_item, place], own)
        where = (window[part, None] * batch.items.shape[1] + place)[own]
        states = states.index_copy(0, where, take(run.flatten(0, 1), own.flatten().nonzero().flatten()))
    return states.unflatten(0, batch.items.shape)


def usual_masks(
    batch: Batch, keep: Bool[Tensor, "batch newest time"], reach: int | None
) -> tuple[Bool[Tensor, "batch time"], Bool[Tensor, "batch newest"]]:
    """What most prefixes that hold an item say of it; and which prefixes say otherwise of an item within reach."""
    held = seen(batch)
    usual = 2 * (keep & held).sum(1) >= held.sum(1)
    return usual, ((keep != usual[:, None]) & within_reach(held, reach)).any(-1)


def runs(
    batch: Batch, keep: Bool[Tensor, "batch newest time"], odd: Bool[Tensor, "batch newest"], reach: int | None
) -> tuple[Int[Tensor, " runs"], Int[Tensor, " runs"], Int[Tensor, " runs"]]:
    """Of the odd prefixes: each run's window, and the newest items of its first and last prefix."""
    held = seen(batch)
    shared = within_reach(held, reach)[:, 1:] & held[:, :-1]
    begins = odd.clone()
    begins[:, 1:] &= ~odd[:, :-1] | ((keep[:, 1:] != keep[:, :-1]) & shared).any(-1)
    window, first = begins.nonzero(as_tuple=True)
    run = begins.flatten().cumsum(0) - 1
    lengths = torch.bincount(run[odd.flatten()], minlength=len(first))
    return window, first, first + lengths - 1


def within_reach(held: Bool[Tensor, "batch newest time"], reach: int | None) -> Bool[Tensor, "batch newest time"]:
    """Without the items that are too old for the state of their prefix to depend on them."""
    return held if reach is None else held.triu(1 - reach)


def seen(batch: Batch) -> Bool[Tensor, "batch newest time"]:
    """Which items t a prefix p of the window holds: t <= p, both real."""
    time = torch.arange(batch.items.shape[1], device=batch.items.device)
    return (time[None, :] <= time[:, None]) & batch.valid[:, :, None] & batch.valid[:, None, :]
