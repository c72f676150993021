"""How well an item fits its gap: a sequence model that reads a history from both sides of every item.

An item's state is asked for three times: from what precedes it, from what follows it, and from both. Each is scored
against the whole catalogue. An item's row of the table is a linear map of its text vector plus a row of its own, which
training keeps small: so what is learnt of one title serves all titles like it, and a rare item is known by its text.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from iadsr.layers.attention import Transformer, TransformerParams
from iadsr.layers.cross_entropy import catalogue_losses
from iadsr.layers.jagged import gather_rows

HEADS, WIDENING, TEXT_SCALE = 2, 4, 0.05


class Fits(NamedTuple):
    """Of each real position of a batch, window by window: log-probabilities of its item given its gap."""

    before: Float[Tensor, " real"]
    after: Float[Tensor, " real"]
    both: Float[Tensor, " real"]
    at_all: Float[Tensor, " real"]  # knowing nothing of the history


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
        nn.init.zeros_(self.own.weight)
        nn.init.zeros_(self.bias.weight)

    @torch.no_grad()
    def start_from(self, texts: Float[Tensor, "catalogue width"]) -> None:
        """Map texts to their principal components, each divided by the root of its deviation; to 0 if all are alike."""
        _, sizes, axes = torch.linalg.svd(texts[1:] - texts[1:].mean(0), full_matrices=False)
        found = min(len(axes), self.of_text.out_features, int((sizes > max(1e-4 * float(sizes[0]), 1e-6)).sum()))
        nn.init.zeros_(self.of_text.weight)
        if not found:
            return
        self.of_text.weight[:found] = axes[:found] / sizes[:found, None].sqrt()
        spread = (texts[1:] @ self.of_text.weight[:found].T).std().clamp(min=1e-9)
        self.of_text.weight.mul_(TEXT_SCALE / spread)

    def rows(self, items: Int[Tensor, " some"], texts: Float[Tensor, "catalogue width"]) -> Float[Tensor, "some dim"]:
        """The table's rows of these items."""
        return self.own(items) + self.of_text(texts[items])

    def states(
        self, rows: Float[Tensor, "real dim"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "sides real dim"]:
        """What each gap says of its item: from before, from after, from both; `rows` are the items in all positions."""
        real, backwards = valid.flatten().nonzero().flatten(), reversed_places(valid)
        inputs = rows.new_zeros(valid.numel(), rows.shape[1]).index_copy(0, real, rows)
        before = self.before(inputs.view(*valid.shape, -1), valid)
        after = self.after(gather_rows(inputs, backwards).view(*valid.shape, -1), valid)
        shifted = [
            torch.cat([edge.expand(len(valid), 1, -1), states[:, :-1]], 1).flatten(0, 1)
            for edge, states in zip(self.edges, (before, after), strict=True)
        ]
        preceding, following = gather_rows(shifted[0], real), gather_rows(shifted[1], backwards[real])
        return torch.stack([preceding, following, self.head(torch.cat([preceding, following], 1))])

    def loss(
        self,
        items: Int[Tensor, "batch time"],
        texts: Float[Tensor, "catalogue width"],
        negatives: Int[Tensor, " drawn"],
    ) -> Float[Tensor, ""]:
        """Mean over positions and sides of -log softmax of the item against `negatives`, uniformly drawn."""
        valid = items > 0
        own = items[valid]
        rows, others = self.rows(own, texts), self.rows(negatives, texts)
        correction = math.log((len(texts) - 1) / len(negatives)) + self.bias(negatives)[:, 0]
        hits, of_own, total = negatives == own[:, None], self.bias(own)[:, 0], rows.new_zeros(())
        for states in self.states(rows, valid):
            fits = (states * rows).sum(1) + of_own
            logits = (states @ others.T + correction).masked_fill(hits, float("-inf"))
            total = total + (torch.logsumexp(torch.cat([fits[:, None], logits], 1), 1) - fits).mean()
        return total

    def table(self, texts: Float[Tensor, "catalogue width"]) -> Float[Tensor, "catalogue dim"]:
        """The rows of the whole catalogue."""
        return self.own.weight + texts @ self.of_text.weight.T

    @torch.no_grad()
    def fits(self, items: Int[Tensor, "batch time"], table: Float[Tensor, "catalogue dim"], dtype: torch.dtype) -> Fits:
        """Log-probabilities over the whole catalogue; products are computed in `dtype`."""
        valid = items > 0
        own, biased = items[valid], torch.cat([table, self.bias.weight], 1)
        alone = torch.log_softmax(self.bias.weight[1:, 0], 0)[own - 1]
        one = table.new_ones(len(own), 1)
        states = self.states(table[own], valid)
        before, after, both = (-catalogue_losses(torch.cat([side, one], 1), biased, own, dtype) for side in states)
        return Fits(before, after, both, alone)


def reversed_places(valid: Bool[Tensor, "batch time"]) -> Int[Tensor, " places"]:
    """For each flat position of a window the one that takes its place when its items stand in reverse order."""
    time, lengths = torch.arange(valid.shape[1], device=valid.device), valid.sum(1, keepdim=True)
    place = torch.where(valid, lengths - 1 - time, time)
    return (place + torch.arange(len(valid), device=valid.device)[:, None] * valid.shape[1]).flatten()
