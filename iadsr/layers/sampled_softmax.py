"""Cross-entropy against sampled items, for catalogues too large to score whole at every position.

The softmax's denominator is estimated from negatives that all positions of a batch share, drawn uniformly; the logQ
correction (Bengio and Senecal 2008; Yi et al. 2019) makes that estimate unbiased.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from iadsr.layers.cross_entropy import LeftOut
from iadsr.layers.linear import linear


def sampled_cross_entropy(
    states: Float[Tensor, "positions dim"],
    table: Float[Tensor, "rows dim"],
    targets: Int[Tensor, " positions"],
    negatives: Int[Tensor, " negatives"],
    dtype: torch.dtype,
    weights: Float[Tensor, " positions"] | None = None,
    left_out: LeftOut | None = None,
) -> Float[Tensor, ""]:
    """Sum over positions of -log(e^s / (e^s + (V - 1) / n * sum of e^s')), s' being the scores of the n negatives.

    A negative that is a position's own target, or is `left_out` there, does not count for it, nor in n. V is the number
    of rows without row 0, which is padding. Each position's loss is multiplied by its entry of `weights`, if given.
    Products are computed in `dtype`. The gradient of `table` is sparse. 0 for no positions.
    """
    own = (states * F.embedding(targets, table, sparse=True)).sum(1, keepdim=True)
    others = linear(states, F.embedding(negatives, table, sparse=True), None, dtype)
    hits = negatives == targets[:, None]
    if left_out is not None:
        hits[drawn_pairs(left_out, negatives)] = True
    counted = (len(negatives) - hits.sum(1, keepdim=True)).clamp(min=1)
    corrected = others + (math.log(max(1, len(table) - 2)) - counted.log())
    logits = torch.cat([own, corrected.masked_fill(hits, float("-inf"))], dim=1)
    losses = torch.logsumexp(logits, dim=1) - own[:, 0]
    return (losses if weights is None else losses * weights).sum()


def drawn_pairs(
    left_out: LeftOut, negatives: Int[Tensor, " negatives"]
) -> tuple[Int[Tensor, " found"], Int[Tensor, " found"]]:
    """The positions and the places among the negatives of what is left out and was drawn, however often."""
    drawn, places = negatives.sort()
    first, last = (torch.searchsorted(drawn, left_out.items, right=right) for right in (False, True))
    times = last - first
    begins = (first - times.cumsum(0) + times).repeat_interleave(times)
    return left_out.positions.repeat_interleave(times), places[begins + torch.arange(len(begins), device=begins.device)]
