"""From cosines to masks: gate (Eq. 11-12), scores (Eq. 13-16), Gumbel-sigmoid (Eq. 17).

All interests are prefix states, so a history's long-term interest is the short-term interest at its newest position
p: e1 = l_p and e2 = h_p. `newest` is that position: a verdict (p, t) on item t looks at nothing after p.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from iadsr.seeds import derived_seed

Interests = Literal["both", "long", "short"]
EPSILON = 1e-10


class Cosines(NamedTuple):
    """c1, c2, c3 of Eq. 13-15 and the gate's cosine of Eq. 11."""

    c1: Float[Tensor, "batch newest time"]
    c2: Float[Tensor, "batch newest time"]
    c3: Float[Tensor, "batch 1 time"]
    gate: Float[Tensor, "batch newest 1"]


def cosines(
    states: Float[Tensor, "batch time width"],
    short_semantic: Float[Tensor, "batch time width"],
    newest_states: Float[Tensor, "batch newest width"],
    newest_semantic: Float[Tensor, "batch newest width"],
) -> Cosines:
    """All cosines between the interests h_t, l_t and the long-term ones e2 = h_p, e1 = l_p; inputs of unit length."""
    return Cosines(
        c1=newest_semantic @ states.mT,
        c2=newest_states @ short_semantic.mT,
        c3=(states * short_semantic).sum(-1)[:, None, :],
        gate=(newest_states * newest_semantic).sum(-1, keepdim=True).clamp(-1, 1),  # theta = -1 lets everybody in
    )


def score(cosines: Cosines, interests: Interests) -> Float[Tensor, "batch newest time"]:
    """Eq. 16; for Table 4, `long` leaves only the terms with a long-term interest (c1 + c2), `short` only c3."""
    if interests == "short":
        return cosines.c3.expand_as(cosines.c1)
    if interests == "long":
        return cosines.c1 + cosines.c2
    return cosines.c1 + cosines.c2 + cosines.c3


def mask_generator(seed: int) -> torch.Generator:
    """The generator of all that a denoiser samples in a training."""
    return torch.Generator().manual_seed(derived_seed(seed, "masks"))


def gumbel(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Float[Tensor, "..."]:
    """Standard Gumbel noise (Eq. 17), drawn on the CPU so that a seed means the same on every device."""
    noise = torch.rand(shape, generator=generator)
    for _ in range(2):  # -log(-log(u)), in place
        noise.add_(EPSILON).log_().neg_()
    return noise.to(device)


def logistic(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Float[Tensor, "..."]:
    """The difference of two standard Gumbel numbers, which decides between two classes; drawn on the CPU."""
    return torch.logit(torch.rand(shape, generator=generator), eps=EPSILON).to(device)


def soft_mask(score: Float[Tensor, "..."], noise: Float[Tensor, "..."], temperature: float) -> Float[Tensor, "..."]:
    """y of Eq. 17: sigmoid((score + g) / tau). ONE Gumbel term, so that P(y > 0.5) = 1 - exp(-exp(score)).

    With logistic noise it is the second entry of a two-class Gumbel-softmax, and P(y > 0.5) = sigmoid(score).
    """
    return torch.sigmoid((score + noise) / temperature)


def straight_through(soft: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The hard mask 1[y > 0.5] (1 keeps) with the gradient of y."""
    return (soft > 0.5).to(soft.dtype) + (soft - soft.detach())  # the bracket is exactly 0


def keep_probability(score: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Probability that a hard mask keeps an item: 1 - exp(-exp(score)), whatever the temperature (0.632 at 0)."""
    return -torch.expm1(-torch.exp(score))


def decided(score: Float[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """The deterministic rule y > 0.5 with g = 0: keep where the score is above 0."""
    return score > 0
