"""What tells noise from the rest: signals of every item of a history, each larger where the item fits better.

No signal knows an item's category, the history's length or its times. Behaviour says how likely the item is in its gap
and how like the others its row of the learned table is; text, how like the others its title is. Each is the mean of
what all the others say and of what is left without the item's neighbours: a run of noise agrees with itself alone.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers.cloze.gap_model import GAPS, GapModel

NAMES = ("gap", "table", "text")
BEHAVIOUR, TEXT = NAMES[:2], NAMES[2:]


@torch.no_grad()
def signals_of(
    model: GapModel,
    items: Int[Tensor, "batch time"],
    texts: Float[Tensor, "items width"],
    dtype: torch.dtype,
    asked: Bool[Tensor, "batch time"] | None = None,
) -> Float[Tensor, "batch time signals"]:
    """The signals within its window of each real item that is `asked` for (None: of all), in the order of NAMES.

    Of others some number. Items may be beyond the model's catalogue, where there are texts of them.

    `gap`: log-probability of the item in its gap. `table`: cosine of its row of the table with the mean of the others'
    rows, of unit length. `text`: the same of texts. Each is a mean over GAPS.
    """
    table, asked = model.table(texts), items > 0 if asked is None else asked
    units = [F.normalize(rows, dim=1)[items] for rows in (table - table[1:].mean(0), texts)]
    found = []
    for gap in GAPS:
        rest, fits = others_of(items, gap), model.fits(items, asked, table, gap, dtype)
        padded = fits.new_zeros(items.shape).masked_scatter(asked, fits)
        found.append(torch.stack([padded, *(beside_the_rest(rows, rest) for rows in units)], 2))
    return torch.stack(found).mean(0)


def others_of(items: Int[Tensor, "batch time"], gap: int) -> Bool[Tensor, "batch time time"]:
    """Which items of a window are others than each one's own, and more than `gap` places away if any are.

    An item that is there twice does not speak for itself.
    """
    places = torch.arange(items.shape[1], device=items.device)
    others = (items[:, :, None] != items[:, None, :]) & (items > 0)[:, None, :]
    distant = others & ((places[:, None] - places).abs() > gap)
    return distant.where(distant.any(2, keepdim=True), others)


def beside_the_rest(
    rows: Float[Tensor, "batch time width"], rest: Bool[Tensor, "batch time time"]
) -> Float[Tensor, "batch time"]:
    """The cosine of each row, of unit length, with the mean of the rest; 0 if there is none."""
    lengths = (rest.to(rows.dtype) @ rows).norm(dim=2)
    return ((rows @ rows.mT) * rest).sum(2) / lengths.clamp(min=1e-4)
