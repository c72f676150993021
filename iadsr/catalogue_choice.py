"""A hard Gumbel-softmax over the whole catalogue, in chunks that keep nothing but the choice for the way back.

Written out, n choices among V items keep several n x V matrices. Here a chunk's logits live until its choices are
known, and are computed again on the way back where the soft choice says more than the hard one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iadsr.products import empty_rows

CPU_CELLS, GPU_CELLS = 2**19, 2**26  # of a chunk's logits
BLOCK = 128  # items whose largest logit is found first
ROUNDING = 1e-6  # the soft choice is taken for the hard one where all other items together have less


class Choice(NamedTuple):
    """Rows of the table, and their numbers."""

    rows: Float[Tensor, "choices dim"]
    numbers: Int[Tensor, " choices"]


def hard_choice(
    queries: Float[Tensor, "choices dim"],
    table: Float[Tensor, "items dim"],
    noise: Float[Tensor, "some items"],
    which: Int[Tensor, " choices"],
    temperature: float,
) -> Choice:
    """For each query the row with the largest table @ query + noise[which], with a straight-through gradient.

    It is the gradient of softmax((table @ query + noise) / temperature) @ table in the queries and, through the
    softmax, in the table; the table also gets that of the chosen rows. Equals F.gumbel_softmax(..., hard=True) @ table
    for the same noise, but that the softmax counts as constant where the chosen item has all but 1e-6 of it.
    """
    rows, numbers = _HardChoice.apply(queries, table, noise, which, temperature)
    return Choice(rows, numbers)


class _HardChoice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, table: Tensor, noise: Tensor, which: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        numbers, lead = which.new_empty(len(queries)), queries.new_empty(len(queries))
        blocks = -(-len(table) // BLOCK)
        for part in _chunks(len(queries), len(table), queries.device):
            logits = queries.new_empty(len(queries[part]), blocks * BLOCK)
            own = logits[:, : len(table)]
            logits[:, len(table) :] = float("-inf")
            own.copy_(noise.index_select(0, which[part])).addmm_(queries[part], table.T)
            numbers[part], lead[part] = _largest(logits.unflatten(1, (blocks, BLOCK)))
        sharp = lead > temperature * math.log(len(table) / ROUNDING)
        ctx.temperature = temperature
        ctx.save_for_backward(queries, table, noise, which, numbers, (~sharp).nonzero().flatten())
        ctx.mark_non_differentiable(numbers)
        return table.index_select(0, numbers), numbers

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        queries, table, noise, which, numbers, soft = ctx.saved_tensors
        queries_grad = torch.zeros_like(queries)
        table_grad = torch.zeros_like(table).index_add_(0, numbers, grads[0])
        for part in _chunks(len(soft), len(table), queries.device):
            rows = soft[part]
            own, grad = queries[rows], grads[0][rows]
            logits, slope = (empty_rows(len(rows), len(table), own) for _ in range(2))
            logits.copy_(noise[which[rows]]).addmm_(own, table.T)
            chances = torch.softmax(logits.div_(ctx.temperature), dim=1)
            torch.mm(grad, table.T, out=slope)
            slope.sub_((slope * chances).sum(1, keepdim=True)).mul_(chances).div_(ctx.temperature)
            queries_grad[rows] = slope @ table
            table_grad.addmm_(slope.T, own)
        return queries_grad, table_grad, None, None, None


def _largest(logits: Float[Tensor, "rows blocks block"]) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Where each row's largest logit is, and by how much it leads.

    Block by block, since torch finds a maximum many times as fast where it need not say where it is.
    """
    tops = logits.amax(2)
    block = tops.argmax(1)
    inside = logits[torch.arange(len(logits), device=logits.device), block]
    best = inside.topk(2, dim=1)
    others = tops.scatter(1, block[:, None], float("-inf")).amax(1)
    return block * BLOCK + best.indices[:, 0], best.values[:, 0] - torch.maximum(others, best.values[:, 1])


def _chunks(rows: int, items: int, device: torch.device) -> list[slice]:
    size = max(1, (CPU_CELLS if device.type == "cpu" else GPU_CELLS) // items)
    return [slice(start, start + size) for start in range(0, rows, size)]
