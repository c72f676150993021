"""The masks of the epoch before, one bit for each verdict, on the device that trains."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor, nn

BITS = 8


class MaskTable(nn.Module):
    """Verdicts on items, by row of the data set: made in this epoch, and by the end of the one before.

    With `lags` columns the row of a prefix's newest item holds K[p, t], the verdict of prefix p on the item p - t rows
    before it. With one column, a row holds the verdict on its own item. What was never judged is kept.
    """

    previous: UInt8[Tensor, "rows bytes"]
    current: UInt8[Tensor, "rows bytes"]

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        for name in ("previous", "current"):
            bits = torch.full((rows, -(-columns // BITS)), 2**BITS - 1, dtype=torch.uint8)
            self.register_buffer(name, bits, persistent=False)  # no weight: a served model has none

    def recall_prefixes(self, rows: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch newest time"]:
        """K[p, t] of the epoch before, for the windows of these rows; items after p and padding are kept."""
        lags, inside = _lags(rows)
        by_lag = unpacked(self.previous[rows.clamp(min=0), : _bytes(rows)])
        return by_lag.gather(2, lags.clamp(min=0).expand_as(inside)) | ~inside

    def remember_prefixes(self, rows: Int[Tensor, "batch time"], masks: Bool[Tensor, "batch newest time"]) -> None:
        """Note K[p, t] for the next epoch; verdicts on items before the window stay what they were."""
        lags, inside = _lags(rows)
        places = self.current[rows.clamp(min=0), : _bytes(rows)]
        by_lag = unpacked(places)
        time = lags.clamp(min=0).expand_as(inside)
        by_lag[..., : rows.shape[1]] = torch.where(
            inside.gather(2, time) & (lags >= 0), masks.gather(2, time), by_lag[..., : rows.shape[1]]
        )
        real = rows >= 0
        self.current[rows[real], : _bytes(rows)] = packed(by_lag)[real]

    def recall_items(self, rows: Int[Tensor, "batch time"]) -> Bool[Tensor, "batch time"]:
        """The verdicts of the epoch before on the items of these rows; padding is kept."""
        return (self.previous[rows.clamp(min=0), 0] > 0) | (rows < 0)

    def remember_items(self, rows: Int[Tensor, "batch time"], masks: Bool[Tensor, "batch time"]) -> None:
        self.current[rows[rows >= 0], 0] = masks[rows >= 0].to(torch.uint8)

    def end_epoch(self) -> None:
        self.previous.copy_(self.current)

    def load(self, bits: UInt8[Tensor, "rows bytes"]) -> None:
        """Take back the `previous` of another table of this shape."""
        self.previous.copy_(bits)
        self.current.copy_(bits)


def _lags(rows: Int[Tensor, "batch time"]) -> tuple[Int[Tensor, "time time"], Bool[Tensor, "batch newest time"]]:
    """p - t (which is its own inverse: the lag's column for t is the item's for a lag); and which t prefix p holds."""
    time = torch.arange(rows.shape[1], device=rows.device)
    lags = time[:, None] - time
    return lags, (lags >= 0) & (rows >= 0)[:, :, None] & (rows >= 0)[:, None, :]


def _bytes(rows: Int[Tensor, "batch time"]) -> int:
    """Bytes that hold all lags of a window."""
    return -(-rows.shape[1] // BITS)


def packed(verdicts: Bool[Tensor, "*where bits"]) -> UInt8[Tensor, "*where bytes"]:
    """The verdicts, eight to a byte, the first in its lowest bit; their number must be a multiple of eight."""
    shifts = torch.arange(BITS, dtype=torch.uint8, device=verdicts.device)
    grouped = verdicts.unflatten(-1, (-1, BITS)).to(torch.uint8)
    return (grouped << shifts).sum(-1, dtype=torch.uint8)


def unpacked(bits: UInt8[Tensor, "*where bytes"]) -> Bool[Tensor, "*where bits"]:
    """The verdicts that `packed` was given."""
    shifts = torch.arange(BITS, dtype=torch.uint8, device=bits.device)
    return (bits[..., None] >> shifts & 1).bool().flatten(-2)
