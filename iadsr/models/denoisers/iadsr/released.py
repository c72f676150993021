"""What the authors' released code does otherwise than the paper: the `quirks` of `denoisers.iadsr`.

- `in_batch_loss`: an item's logit is the tanh of its inner product, so at most 1, and only the targets of the batch are
  told apart, though several may be the same item.
- `newest_target`: a window is one example, and its newest item with a target is what is predicted.
- `pooled_interest`: the long-term collaborative interest is the largest value of each dimension of the states.
- `decoder_masks`: masks hide states from the decoder alone, in no epoch an input, and not at test.

Of the deviations of GRU4Rec and SASRec others are parameters: `masks: user`, `theta: -1.0`, `train.windows: newest`, a
`lambda_recon` that makes a mean of the sum of errors, rates and sizes. Not brought back, among others: it trains on the
validation item, stops by the loss of training, reads padding, ranks by a table of its own, its SASRec is not causal and
uses no mask, and test histories are cleaned by GRU4Rec. A window here holds the newest target as its newest input, so
that the alignment and the masks see it, as with the paper's form. Its Caser has the loss of the paper.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Quirk = Literal["in_batch_loss", "newest_target", "pooled_interest", "decoder_masks"]


def in_batch_loss(states: Float[Tensor, "targets dim"], items: Float[Tensor, "targets dim"]) -> Float[Tensor, ""]:
    """The mean cross-entropy of each state's own target among those of all; `items` are the embeddings of these."""
    if not len(states):
        return states.sum()
    return F.cross_entropy(torch.tanh(states @ items.T), torch.arange(len(states), device=states.device))


def newest_targets(targets: Int[Tensor, "batch time"]) -> Int[Tensor, "batch time"]:
    """Of each window the last target alone; 0: none."""
    later = (targets > 0).flip(1).cumsum(1).flip(1)  # how many follow, the position's own among them
    return targets * (later == 1)


def pooled(states: Float[Tensor, "batch time hidden"]) -> Float[Tensor, "batch time hidden"]:
    """For each prefix the largest value of each dimension over its states."""
    return states.cummax(1).values
