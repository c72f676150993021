"""Cross-entropy over the whole catalogue (Eq. 1) in chunks that keep nothing for the backward pass.

Written out, the loss of n positions over V items keeps several n x V matrices for the backward pass. Here each chunk of
positions goes forward and backward at once, so one chunk x V matrix lives at a time, and its products may be computed
in bfloat16 (accumulated in float32 by the hardware). That matrix is read and written as rarely as possible: the
softmax's denominator is a product with ones, its division is done on the small results, and the target's own share is
added to them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iadsr.layers.linear import ROWS, empty_rows, filled_up

CPU_CELLS, GPU_CELLS = 5 * 2**20, 2**27  # logits in a chunk: what a CPU's caches hold; a few per cent of a GPU
LARGEST = 80.0  # the largest logit that exp() can take without subtracting a maximum, with room for the sum
LOG2_E = math.log2(math.e)


class LeftOut(NamedTuple):
    """Items that are no part of the softmax at some positions; never a position's own target. Pairs may repeat."""

    positions: Int[Tensor, " pairs"]  # rising
    items: Int[Tensor, " pairs"]

    def within(self, part: slice) -> LeftOut:
        """Those of a run of positions, which are counted from its first."""
        bounds = torch.tensor([part.start, part.stop], device=self.positions.device)
        first, last = torch.searchsorted(self.positions, bounds).tolist()
        return LeftOut(self.positions[first:last] - part.start, self.items[first:last])


def catalogue_cross_entropy(
    states: Float[Tensor, "positions dim"],
    table: Float[Tensor, "rows dim"],
    targets: Int[Tensor, " positions"],
    dtype: torch.dtype,
    weights: Float[Tensor, " positions"] | None = None,
    left_out: LeftOut | None = None,
) -> Float[Tensor, ""]:
    """Sum over positions of -log softmax(table @ state)[target] over all rows but 0, which is padding and no target.

    Each position's loss is multiplied by its entry of `weights`, if given, which has no gradient, and its softmax is
    over all but what is `left_out`. Matrix products are
    computed in `dtype`. Equals F.cross_entropy(states @ table[1:].T, targets - 1, reduction="sum") to rounding, except
    that a position's loss stays at 87 where it would be larger; its gradient is right. In bfloat16 the gradient of
    logits with a standard deviation of 4 differs from float32's by about 1% in norm, with one of 16 by 5% to 7%,
    because the logits are rounded too. 0 for no positions.
    """
    loss: Tensor = _CatalogueCrossEntropy.apply(states, table, targets, dtype, weights, left_out)
    return loss


@torch.no_grad()
def catalogue_losses(
    states: Float[Tensor, "positions dim"],
    table: Float[Tensor, "rows dim"],
    targets: Int[Tensor, " positions"],
    dtype: torch.dtype,
) -> Float[Tensor, " positions"]:
    """The loss of each position, which `catalogue_cross_entropy` sums; no gradient, and a third of the products."""
    items, own = table[1:].to(dtype), targets - 1
    small = states.device.type == "cpu" and _all_logits_small(states, table)
    losses = states.new_empty(len(states))
    for part in _chunks(len(states), len(items), states.device):
        weights = _softmax_weights(filled_up(states[part], states.dtype), items, small, None)
        losses[part] = _losses(*weights, own[part])
    return losses


class _CatalogueCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
        scale: Tensor | None,
        left_out: LeftOut | None,
    ) -> Tensor:
        items, own = table[1:].to(dtype), targets - 1
        scaled = states if scale is None else states * scale[:, None]
        small = states.device.type == "cpu" and _all_logits_small(states, table)  # elsewhere softmax is cheap
        states_grad, table_grad = torch.empty_like(states), torch.empty_like(table)
        table_grad[: len(table) if not len(states) else 1] = 0
        loss = states.new_zeros(())
        for part in _chunks(len(states), len(items), states.device):
            rows = filled_up(states[part], states.dtype)
            weighed = rows if scale is None else filled_up(scaled[part], states.dtype)
            without = None if left_out is None else left_out.within(part)
            losses, states_grad[part], of_table = _there_and_back(rows, weighed, items, own[part], small, without)
            loss += (losses if scale is None else losses * scale[part]).sum()
            table_grad[1:].copy_(of_table) if part.start == 0 else table_grad[1:].add_(of_table)
        states_grad.sub_(items[own])
        if scale is not None:
            states_grad.mul_(scale[:, None])
        ctx.save_for_backward(states_grad, table_grad.index_add_(0, targets, -scaled))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        states_grad, table_grad = ctx.saved_tensors
        return states_grad * grads[0], table_grad * grads[0], None, None, None, None


def _there_and_back(
    rows: Tensor, weighed: Tensor, items: Tensor, own: Tensor, small: bool, left_out: LeftOut | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of a chunk, and the gradients of its log-denominators in the states and in the items.

    `weighed` are the rows times their weights. Rows beyond the positions, which fill up the chunk, are left out.
    """
    weights, sums = _softmax_weights(rows, items, small, left_out)
    losses = _losses(weights, sums, own)
    of_states = ((weights @ items).to(rows.dtype) / sums[:, None])[: len(own)]
    return losses, of_states, weights.T @ (weighed / sums[:, None]).to(items.dtype)


def _softmax_weights(rows: Tensor, table: Tensor, small: bool, left_out: LeftOut | None) -> tuple[Tensor, Tensor]:
    """[rows, items] in proportion to the softmax of each row's logits, in the table's format, and its rows' sums."""
    weights = _logits(rows * LOG2_E if small else rows, table)
    if left_out is not None:
        weights[left_out.positions, left_out.items - 1] = float("-inf")
    if not small:
        return torch.softmax(weights, dim=1), rows.new_ones(len(rows))
    torch.exp2(weights, out=weights)
    return weights, (weights @ weights.new_ones(len(table))).to(rows.dtype)


def _logits(rows: Tensor, table: Tensor) -> Tensor:
    """[rows, items] in the table's format."""
    if rows.device.type != "cpu" or table.dtype != torch.float32:
        return rows.to(table.dtype) @ table.T
    return torch.mm(rows.to(table.dtype), table.T, out=empty_rows(len(rows), len(table), table))


def _losses(weights: Tensor, sums: Tensor, own: Tensor) -> Tensor:
    """-log of each position's own share; rows beyond the positions fill up the chunk."""
    cells = weights[torch.arange(len(own), device=own.device), own]
    return sums[: len(own)].log() - cells.to(sums.dtype).clamp(min=_tiny(sums)).log()


def _all_logits_small(states: Tensor, table: Tensor) -> bool:
    """Whether no logit can be so large that its exponential, or the sum of all, overflows (Cauchy and Schwarz)."""
    if not len(states):
        return True
    bound = states.square().sum(1).max() * table.square().sum(1).max()
    return bool(bound < (LARGEST - math.log(len(table))) ** 2)


def _tiny(states: Tensor) -> float:
    return torch.finfo(states.dtype).tiny


def _chunks(positions: int, items: int, device: torch.device) -> list[slice]:
    """Runs of positions, as even as possible, whose logits fit the device's budget."""
    most = max(1, (CPU_CELLS if device.type == "cpu" else GPU_CELLS) // max(1, items) // ROWS) * ROWS
    count = -(-positions // most)
    size = -(-positions // max(1, count) // ROWS) * ROWS
    return [slice(start, start + size) for start in range(0, positions, size)] if positions else []
