"""Prefix states where every prefix of a window has a mask of its own, without encoding each prefix separately."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from iadsr.layers.jagged import gather_rows
from iadsr.models.recommender import Recommender
from iadsr.sequences.windows import Batch

EXPANDED = 4096  # runs of prefixes that are encoded at once


def states_under_prefix_masks(
    model: Recommender, batch: Batch, keep: Bool[Tensor, "batch newest time"]
) -> Float[Tensor, "batch time hidden"]:
    """The state of every prefix p under its own mask `keep[:, p]`.

    One pass serves all prefixes of a window whose mask is what most of its prefixes say. The others are encoded again
    in runs: prefixes that follow one another and agree on all that both hold are one masked sequence, from the first
    item that the backbone can see from the run's first prefix.
    """
    receptive_field, width = model.backbone.receptive_field, batch.items.shape[1]
    usual, odd = usual_masks(batch, keep, receptive_field)
    states = model.prefix_states(batch.items, usual, batch.valid & ~odd).flatten(0, 1)
    window, first, last = runs(batch, keep, odd, receptive_field)
    oldest = (first + 1 - (receptive_field or width)).clamp(min=0)
    for part in torch.argsort(last - oldest, stable=True).split(EXPANDED) if len(window) else ():
        run = Runs(window[part, None], oldest[part, None], first[part, None], last[part, None])
        where, own = states_of_runs(model, batch, keep, run)
        states = states.index_copy(0, where, own)
    return states.unflatten(0, batch.items.shape)


class Runs(NamedTuple):
    """Each run's window, and in it the oldest item encoded and the newest items of the first and last prefix."""

    window: Int[Tensor, "runs 1"]
    oldest: Int[Tensor, "runs 1"]
    first: Int[Tensor, "runs 1"]
    last: Int[Tensor, "runs 1"]


def states_of_runs(
    model: Recommender, batch: Batch, keep: Bool[Tensor, "batch newest time"], run: Runs
) -> tuple[Int[Tensor, " prefixes"], Float[Tensor, "prefixes hidden"]]:
    """The flat numbers of the runs' prefixes, and their states."""
    time = run.oldest + torch.arange(int((run.last - run.oldest).max()) + 1, device=keep.device)
    inside, place = time <= run.last, time.clamp(max=batch.items.shape[1] - 1)
    items = torch.where(inside, batch.items[run.window, place], 0)
    holder = torch.maximum(place, run.first)  # an item's mask is that of the first prefix to hold it
    asked = inside & (time >= run.first)
    states = model.prefix_states(items, keep[run.window, holder, place], asked)
    where = (run.window * batch.items.shape[1] + place)[asked]
    return where, gather_rows(states.flatten(0, 1), asked.flatten().nonzero().flatten())


def usual_masks(
    batch: Batch, keep: Bool[Tensor, "batch newest time"], receptive_field: int | None
) -> tuple[Bool[Tensor, "batch time"], Bool[Tensor, "batch newest"]]:
    """The verdict of most prefixes on each item they hold; which prefixes differ on one in their receptive field."""
    held = seen(batch)
    usual = 2 * (keep & held).sum(1) >= held.sum(1)
    return usual, ((keep != usual[:, None]) & in_receptive_field(held, receptive_field)).any(-1)


def runs(
    batch: Batch,
    keep: Bool[Tensor, "batch newest time"],
    odd: Bool[Tensor, "batch newest"],
    receptive_field: int | None,
) -> tuple[Int[Tensor, " runs"], Int[Tensor, " runs"], Int[Tensor, " runs"]]:
    """The runs of odd prefixes: each run's window, and the newest items of its first and last prefix."""
    held = seen(batch)
    shared = in_receptive_field(held, receptive_field)[:, 1:] & held[:, :-1]
    begins = odd.clone()
    begins[:, 1:] &= ~odd[:, :-1] | ((keep[:, 1:] != keep[:, :-1]) & shared).any(-1)
    window, first = begins.nonzero(as_tuple=True)
    run = begins.flatten().cumsum(0) - 1
    lengths = torch.bincount(run[odd.flatten()], minlength=len(first))
    return window, first, first + lengths - 1


def in_receptive_field(
    held: Bool[Tensor, "batch newest time"], receptive_field: int | None
) -> Bool[Tensor, "batch newest time"]:
    """`held` without the items that are too old for the state of their prefix to depend on them."""
    return held if receptive_field is None else held.triu(1 - receptive_field)


def seen(batch: Batch) -> Bool[Tensor, "batch newest time"]:
    """Which items t a prefix p of the window holds: t <= p, both real."""
    time = torch.arange(batch.items.shape[1], device=batch.items.device)
    return (time[None, :] <= time[:, None]) & batch.valid[:, :, None] & batch.valid[:, None, :]
