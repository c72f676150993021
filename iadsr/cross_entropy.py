"""Cross-entropy over the whole catalogue (Eq. 1) in chunks that keep nothing for the way back.

Written out, the loss of n positions over V items keeps several n x V matrices for the way back. Here each chunk of
positions goes forward and back at once, so one chunk x V matrix lives at a time, and its products may be computed in
bfloat16 (accumulated in float32 by the hardware).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CPU_CELLS, GPU_CELLS = 2**23, 2**27  # of one chunk's logits: about a CPU's last-level cache; a few per cent of a GPU
ROWS = 128  # a chunk's rows are a multiple, since bfloat16 products compile a kernel for every new shape


def catalogue_cross_entropy(
    states: Float[Tensor, "positions dim"],
    table: Float[Tensor, "items dim"],
    targets: Int[Tensor, " positions"],
    dtype: torch.dtype,
) -> Float[Tensor, ""]:
    """Sum over positions of -log softmax(table @ state)[target]; matrix products are computed in `dtype`.

    Equals F.cross_entropy(states @ table.T, targets, reduction="sum") to rounding; in bfloat16 the gradient
    of logits with a standard deviation of 4 differs from float32's by less than 1% in norm, of 16 by 5%, because the
    logits are rounded too. 0 for no positions.
    """
    loss: Tensor = _CatalogueCrossEntropy.apply(states, table, targets, dtype)
    return loss


class _CatalogueCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        rounded = table.to(dtype)
        states_grad, table_grad = torch.empty_like(states), torch.zeros_like(table)
        loss = states.new_zeros(())
        for part in _chunks(len(states), len(table), states.device):
            rows, count = _filled_up(states[part].to(dtype)), len(states[part])
            chances = torch.softmax(rows @ rounded.T, dim=1)
            own = torch.arange(count, device=rows.device) * len(table) + targets[part]
            likelihood = chances.view(-1)[own]
            loss -= likelihood.to(states.dtype).clamp(min=torch.finfo(states.dtype).tiny).log().sum()
            # Now `chances` is the gradient of the logits; scatter_ would copy the whole matrix in bfloat16.
            chances.view(-1)[own] = likelihood - 1
            states_grad[part] = (chances @ rounded)[:count]
            table_grad += chances.T @ rows
        ctx.save_for_backward(states_grad, table_grad)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states_grad, table_grad = ctx.saved_tensors
        return states_grad * grads[0], table_grad * grads[0], None, None


def _chunks(positions: int, items: int, device: torch.device) -> list[slice]:
    """Runs of positions whose logits fit the device's budget."""
    cells = CPU_CELLS if device.type == "cpu" else GPU_CELLS
    size = max(1, cells // items // ROWS) * ROWS
    return [slice(start, start + size) for start in range(0, positions, size)]


def _filled_up(rows: Float[Tensor, "chunk dim"]) -> Float[Tensor, "filled dim"]:
    """With rows of zeros up to a multiple of ROWS."""
    return torch.nn.functional.pad(rows, (0, 0, 0, -len(rows) % ROWS))
