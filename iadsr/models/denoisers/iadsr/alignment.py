"""InfoNCE between collaborative and semantic interests (Eq. 8-10)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from iadsr.layers.cross_entropy import catalogue_cross_entropy


def info_nce(
    anchors: Float[Tensor, "pairs width"],
    positives: Float[Tensor, "pairs width"],
    temperature: float,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, ""]:
    """Eq. 9-10: mean of -log softmax of the anchor's cosine with its positive among those with all positives.

    Both sides must have unit length. One direction only, collaborative -> semantic, as in the paper. It is the
    cross-entropy over a catalogue of positives and is computed in the same way: in chunks, with products in `dtype`.
    0 for no pairs.
    """
    numbers = torch.arange(1, len(anchors) + 1, device=anchors.device)
    total = catalogue_cross_entropy(anchors / temperature, F.pad(positives, (0, 0, 1, 0)), numbers, dtype)
    return total / max(1, len(anchors))


def alignment_loss(
    states: Float[Tensor, "batch time width"],
    long_states: Float[Tensor, "batch time width"],
    long_semantic: Float[Tensor, "batch time width"],
    short_semantic: Float[Tensor, "batch time width"],
    valid: Bool[Tensor, "batch time"],
    temperature: float,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, ""]:
    """Eq. 8: L_long over the users' newest prefixes plus L_short over all shorter prefixes; inputs of unit length.

    `long_states`: the long-term collaborative interests of prefixes, `states` the short-term ones.
    """
    last = valid.sum(1) - 1
    users = torch.arange(len(states), device=states.device)
    short = valid.clone()
    short[users, last] = False
    long_loss = info_nce(long_states[users, last], long_semantic[users, last], temperature, dtype)
    return long_loss + info_nce(states[short], short_semantic[short], temperature, dtype)
