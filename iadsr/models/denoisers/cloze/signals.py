"""What tells noise from the rest: signals of every item of a history, each larger where the item fits better.

No signal knows an item's category, the history's length or its times. Each view has its own: behaviour (the item given
what precedes it, what follows it, both; its row of the learned table beside the others') and text (its title beside the
others').
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers.cloze.gap_model import GapModel

NAMES = ("before", "after", "both", "surprise", "alike", "nearest", "text", "nearest_text")
BEHAVIOUR, TEXT = NAMES[:6], NAMES[6:]


@torch.no_grad()
def signals_of(
    model: GapModel, items: Int[Tensor, "batch time"], texts: Float[Tensor, "catalogue width"], dtype: torch.dtype
) -> Float[Tensor, "batch time signals"]:
    """The signals of each real item within its window, in the order of NAMES; of padding some number.

    `before`, `after`, `both`: log-probability of the item given that part of the history. `surprise`: how much higher
    `both` is than without any history, so that popularity does not count. `alike`, `nearest`: cosine of the item's row
    of the table with the mean of the others' rows, with the nearest. `text`, `nearest_text`: the same of texts.
    """
    valid, table = items > 0, model.table(texts)
    fits = model.fits(items, table, dtype)
    of_gaps = torch.stack([fits.before, fits.after, fits.both, fits.both - fits.at_all], 1)
    padded = of_gaps.new_zeros(*items.shape, of_gaps.shape[1]).masked_scatter(valid[..., None], of_gaps)
    rest = others_of(items)
    beside = [beside_the_rest(F.normalize(rows, dim=1)[items], rest) for rows in (table - table[1:].mean(0), texts)]
    return torch.cat([padded, *beside], 2)


def others_of(items: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch time time"]:
    """Which items of a window are others than each one's own: one that is there twice does not speak for itself."""
    return (items[:, :, None] != items[:, None, :]) & (items > 0)[:, None, :]


def beside_the_rest(
    rows: Float[Tensor, "batch time width"], rest: Bool[Tensor, "batch time time"]
) -> Float[Tensor, "batch time 2"]:
    """The cosine of each row, of unit length, with the mean of the rest, and with the nearest; 0 if there is none."""
    cosines = rows @ rows.mT
    lengths = (rest.to(rows.dtype) @ rows).norm(dim=2)
    mean = (cosines * rest).sum(2) / lengths.clamp(min=1e-4)
    nearest = cosines.masked_fill(~rest, -1).amax(2)
    return torch.stack([mean, nearest], 2) * rest.any(2)[..., None]
