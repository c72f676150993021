"""How well an item fits its gap: a sequence model that reads a history from both sides of every item.

An item's state follows from what precedes it and from what follows it, and is scored against the whole catalogue. A gap
is wider at times: items beside the item are hidden, too, since noise that comes in runs fits its like. An item's row of
the table is a linear map of its text vector plus a row of its own, which training keeps small: so what is learnt of one
title serves all titles like it, and a rare item is known by its text.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.layers.attention import Transformer, TransformerParams
from iadsr.layers.cross_entropy import catalogue_losses
from iadsr.layers.jagged import gather_rows
from iadsr.layers.principal import principal_map

HEADS, WIDENING = 2, 4
BOTH = 2  # of the sides
GAPS = (0, 2)  # items on either side that are hidden with the item
RAREST = 0.05  # quantile of biases that stands for the rarest tenth
BY_CHANCE = 0.2  # share of interactions that popularity alone explains, before training


class Negatives(NamedTuple):
    """Items drawn with replacement, and the logarithm of how often each is expected among them."""

    items: Int[Tensor, " drawn"]
    expected: Float[Tensor, " drawn"]
    evenly: int  # so many of them, the first, are drawn evenly from the catalogue


class GapModel(nn.Module):
    """One transformer over what precedes a gap, one over what follows it, and a head that joins them.

    `texts` are the items' text vectors, row 0 being padding; they belong to the caller.
    """

    def __init__(self, items: int, width: int, dim: int, max_length: int, dropout: float) -> None:
        super().__init__()
        sizes = TransformerParams(layers=1, heads=HEADS, feed_forward=WIDENING * dim, dropout=dropout)
        self.own = nn.Embedding(items + 1, dim, padding_idx=0, sparse=True)
        self.of_text = nn.Linear(width, dim, bias=False)
        self.bias = nn.Embedding(items + 1, 1, sparse=True)
        self.before = Transformer(dim, max_length, sizes, causal=True)
        self.after = Transformer(dim, max_length, sizes, causal=True)
        self.edges = nn.Parameter(torch.zeros(2, dim))  # where nothing precedes, where nothing follows
        self.head = nn.Sequential(nn.Linear(2 * dim, 2 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * dim, dim))
        self.chance = nn.Parameter(torch.tensor(math.log(BY_CHANCE / (1 - BY_CHANCE))))  # its sigmoid is the share
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.bias.weight)

    @torch.no_grad()
    def start_from(self, texts: Float[Tensor, "catalogue width"]) -> None:
        """Map texts to their principal components."""
        self.of_text.weight.copy_(principal_map(texts[1:], self.of_text.out_features))

    def rows(self, items: Int[Tensor, " some"], texts: Float[Tensor, "catalogue width"]) -> Float[Tensor, "some dim"]:
        """The table's rows of these items."""
        return self.own(items) + self.of_text(texts[items])

    def states(
        self, rows: Float[Tensor, "real dim"], valid: Bool[Tensor, "batch time"], gap: int
    ) -> Float[Tensor, "sides real dim"]:
        """What each gap says of its item: from before, from after, from both; `rows` are the items in all positions."""
        real, backwards = valid.flatten().nonzero().flatten(), reversed_places(valid)
        inputs = rows.new_zeros(valid.numel(), rows.shape[1]).index_copy(0, real, rows)
        before = self.before(inputs.view(*valid.shape, -1), valid)
        after = self.after(gather_rows(inputs, backwards).view(*valid.shape, -1), valid)
        preceding = gather_rows(beyond(before, self.edges[0], gap), real)
        following = gather_rows(beyond(after, self.edges[1], gap), backwards[real])
        return torch.stack([preceding, following, self.head(torch.cat([preceding, following], 1))])

    def loss(
        self,
        items: Int[Tensor, "batch time"],
        texts: Float[Tensor, "catalogue width"],
        negatives: Negatives,
        popular: Float[Tensor, " catalogue"],
        gap: int,
    ) -> Float[Tensor, ""]:
        """Mean over positions, for all sides, of -log((1 - c) softmax of the item against `negatives` + c popularity).

        `popular` is the logarithm of popularity, which sums to 1; the share c is learnt. So what follows from nothing
        but popularity, as noise often does, does not teach that anything may follow anything. One side alone is not
        asked for afterwards, but what it teaches makes the table's rows alike where items go together.
        """
        valid = items > 0
        own = items[valid]
        rows, others = self.rows(own, texts), self.rows(negatives.items, texts)
        hits, of_own = negatives.items == own[:, None], self.bias(own)[:, 0]
        of_others = self.bias(negatives.items)[:, 0] - negatives.expected
        by_chance, total = F.logsigmoid(self.chance) + popular[own], rows.new_zeros(())
        for states in self.states(rows, valid, gap):
            fits = (states * rows).sum(1) + of_own
            logits = (states @ others.T + of_others).masked_fill(hits, float("-inf"))
            known = fits - torch.logsumexp(torch.cat([fits[:, None], logits], 1), 1)
            total = total - torch.logaddexp(F.logsigmoid(-self.chance) + known, by_chance).mean()
        return total

    def table(self, texts: Float[Tensor, "items width"]) -> Float[Tensor, "items dim"]:
        """The rows of the whole catalogue, and of items beyond it, of which nothing but their text is known."""
        beyond_it = len(texts) - len(self.own.weight)
        return F.pad(self.own.weight, (0, 0, 0, beyond_it)) + texts @ self.of_text.weight.T

    def biases(self, items: int) -> Float[Tensor, "items one"]:
        """Those of so many items; items beyond the catalogue are as rare as its rarest tenth."""
        known = self.bias.weight
        rarest = known[1:].quantile(RAREST) if len(known) > 1 else known.sum()
        return torch.cat([known, rarest.expand(items - len(known), 1)])

    @torch.no_grad()
    def fits(
        self,
        items: Int[Tensor, "batch time"],
        asked: Bool[Tensor, "batch time"],
        table: Float[Tensor, "items dim"],
        gap: int,
        dtype: torch.dtype,
    ) -> Float[Tensor, " asked"]:
        """Log-probabilities of real items over all items of the table, from both sides; products are in `dtype`."""
        real, biased = items > 0, torch.cat([table, self.biases(len(table))], 1)
        states = F.pad(self.states(table[items[real]], real, gap)[BOTH][asked[real]], (0, 1), value=1.0)
        return -catalogue_losses(states, biased, items[asked], dtype)


def beyond(
    states: Float[Tensor, "batch time dim"], edge: Float[Tensor, " dim"], gap: int
) -> Float[Tensor, "places dim"]:
    """For each flat position the state `gap` + 1 places earlier; `edge` where there is none."""
    hidden = min(gap + 1, states.shape[1])
    kept = states[:, : states.shape[1] - hidden]
    return torch.cat([edge.expand(len(states), hidden, -1), kept], 1).flatten(0, 1)


def reversed_places(valid: Bool[Tensor, "batch time"]) -> Int[Tensor, " places"]:
    """For each flat position of a window the one that takes its place when its items stand in reverse order."""
    time, lengths = torch.arange(valid.shape[1], device=valid.device), valid.sum(1, keepdim=True)
    place = torch.where(valid, lengths - 1 - time, time)
    return (place + torch.arange(len(valid), device=valid.device)[:, None] * valid.shape[1]).flatten()
