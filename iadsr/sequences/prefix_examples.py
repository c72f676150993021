"""Every prefix of a window as an example of its own, for models that look at a history from both sides.

Such a model may not judge one window for all its prefixes: its verdict on an item would have seen what earlier
positions must predict.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from iadsr.sequences.windows import Batch


@dataclass(frozen=True)
class Prefixes:
    """`batch` has a window for each prefix, with its target at its newest item; `window` tells whose prefix it is."""

    batch: Batch
    targets: Int[Tensor, " prefixes"]
    window: Int[Tensor, " prefixes"]


def prefixes_with_target(batch: Batch, most: int = 0) -> Prefixes:
    """The prefixes whose next item is known, window by window; of each window at most `most`, drawn at random (0: all).

    Draws come from torch's own generator. Text encodings are left out.
    """
    chosen = batch.targets > 0
    if most:
        chance = torch.where(chosen, torch.rand(chosen.shape).to(chosen.device), 2.0)
        chosen &= chance.argsort(1).argsort(1) < most
    window, newest = chosen.nonzero(as_tuple=True)
    time = torch.arange(int(newest.max()) + 1 if len(newest) else 1, device=newest.device)
    inside = time <= newest[:, None]
    return Prefixes(
        Batch(
            rows=torch.where(inside, batch.rows[window, : len(time)], -1),
            items=torch.where(inside, batch.items[window, : len(time)], 0),
            targets=torch.where(time == newest[:, None], batch.targets[window, : len(time)], 0),
            users=batch.users[window],
        ),
        batch.targets[window, newest],
        window,
    )
