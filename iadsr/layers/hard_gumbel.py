"""A hard Gumbel-softmax over the whole catalogue, in chunks that keep only the choice for the backward pass.

Written out, n choices among V items keep several n x V matrices. Here nearly all choices are made among the few items
whose noise is large enough; for the others, a chunk's logits live until its choices are known. The backward pass
computes them again where the soft choice says more than the hard one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from iadsr.layers.linear import empty_rows

CPU_CELLS, GPU_CELLS = 2**19, 2**26  # logits in a chunk
BLOCK = 128  # items whose largest logit is found first
SHORTLIST = 64  # items among which a choice is sought first
SLACK = 1e-4  # lead below which rounding could have decided
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
    for the same noise, except that the softmax counts as constant where the chosen item has all but 1e-6 of it.
    """
    rows, numbers = _HardChoice.apply(queries, table, noise, which, temperature)
    return Choice(rows, numbers)


class _HardChoice(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, table: Tensor, noise: Tensor, which: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        numbers, lead = _chosen(queries, table, noise, which)
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


def _chosen(
    queries: Float[Tensor, "choices dim"],
    table: Float[Tensor, "items dim"],
    noise: Float[Tensor, "some items"],
    which: Int[Tensor, " choices"],
) -> tuple[Int[Tensor, " choices"], Float[Tensor, " choices"]]:
    """Where each query's largest logit is, and a lower bound of its lead."""
    numbers, lead = which.new_zeros(len(queries)), queries.new_full((len(queries),), float("-inf"))
    if len(table) > SHORTLIST and len(queries):
        numbers, lead = _shortlisted(queries, table, noise, which)
    unsure = (lead <= SLACK).nonzero().flatten()
    blocks = -(-len(table) // BLOCK)
    for part in _chunks(len(unsure), len(table), queries.device):
        rows = unsure[part]
        logits = queries.new_empty(len(rows), blocks * BLOCK)
        own = logits[:, : len(table)]
        logits[:, len(table) :] = float("-inf")
        own.copy_(noise.index_select(0, which[rows])).addmm_(queries[rows], table.T)
        numbers[rows], lead[rows] = _largest(logits.unflatten(1, (blocks, BLOCK)))
    return numbers, lead


def _shortlisted(
    queries: Float[Tensor, "choices dim"],
    table: Float[Tensor, "items dim"],
    noise: Float[Tensor, "some items"],
    which: Int[Tensor, " choices"],
) -> tuple[Int[Tensor, " choices"], Float[Tensor, " choices"]]:
    """Where the largest logit of each query's shortlist is, and its lead over the rest and the bound of all others.

    Where the lead is not positive, another item may be the choice.
    """
    spread = table - table.mean(0)
    items, missed = _shortlists(queries, spread, noise, which)
    order = which.argsort(stable=True)
    rows = which[order]
    best = _logits_in_lists(queries[order], rows, spread, noise, items).topk(2, dim=1)
    rest = torch.maximum(best.values[:, 1], missed[rows])
    numbers, lead = torch.empty_like(which), torch.empty_like(rest)
    numbers[order] = items[rows].gather(1, best.indices[:, :1])[:, 0]
    lead[order] = best.values[:, 0] - rest
    return numbers, lead


def _shortlists(
    queries: Float[Tensor, "choices dim"],
    spread: Float[Tensor, "items dim"],
    noise: Float[Tensor, "some items"],
    which: Int[Tensor, " choices"],
) -> tuple[Int[Tensor, "some listed"], Float[Tensor, " some"]]:
    """For each row of noise the items of its shortlist, and an upper bound of the logits of all others.

    Without what is the same for all items, a logit is (x - mean of all x) @ query + noise, which is at most
    |x - mean| |query| + noise. The shortlist has the largest of these for the longest query that uses the row.
    """
    longest = queries.new_zeros(len(noise)).scatter_reduce_(0, which, queries.norm(dim=1), "amax")
    highest, items = torch.addcmul(noise, longest[:, None], spread.norm(dim=1)).topk(SHORTLIST + 1, dim=1)
    return items[:, :SHORTLIST], highest[:, SHORTLIST]


def _logits_in_lists(
    queries: Float[Tensor, "choices dim"],
    rows: Int[Tensor, " choices"],
    spread: Float[Tensor, "items dim"],
    noise: Float[Tensor, "some items"],
    items: Int[Tensor, "some listed"],
) -> Float[Tensor, "choices listed"]:
    """The logits of each query's shortlist; queries stand in the order of their rows of noise."""
    counts = torch.bincount(rows, minlength=len(noise))
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    asked = queries.new_zeros(len(noise), int(counts.max()), queries.shape[1])
    asked[rows, place] = queries
    return torch.baddbmm(noise.gather(1, items)[:, None], asked, spread[items].mT)[rows, place]


def _largest(logits: Float[Tensor, "rows blocks block"]) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Where each row's largest logit is, and by how much it leads.

    The search goes block by block, since torch finds a maximum many times as fast where it need not tell its place.
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
