"""One layer of a GRU over packed sequences, for the CPU.

torch's own CPU layer runs every step through autograd, whose way back fills a tensor of the whole sequence for each
step: quadratic in time. Here a step is a handful of products, and everything that needs no order (the input's share of
the gates, the gradients of all weights) is one product over all steps. tests/backbones/test_recurrence.py holds it
against nn.GRU.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from iadsr.products import filled_up


def gru_layer(
    gates: Float[Tensor, "packed gates"],
    weight: Float[Tensor, "gates hidden"],
    bias: Float[Tensor, " gates"],
    sizes: list[int],
    dtype: torch.dtype,
) -> Float[Tensor, "packed hidden"]:
    """The states of all steps from zero states on.

    `gates` is the input's share of the reset, update and new gates (torch's order), packed: `sizes[t]` rows for step
    t, never more than for the step before; `weight` and `bias` are `weight_hh` and `bias_hh` of nn.GRU. The gradient of
    `weight` is computed in `dtype`.
    """
    states: Tensor = _Layer.apply(gates, weight, bias, sizes, dtype)
    return states


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, sizes: list[int], dtype: torch.dtype) -> Tensor:
        hidden = weight.shape[1]
        recurrent = torch.empty_like(gates)  # the previous state's share of the gates
        reset_update = gates.new_empty(len(gates), 2 * hidden)
        fresh, states, before = (gates.new_empty(len(gates), hidden) for _ in range(3))
        state = gates.new_zeros(sizes[0], hidden)
        steps = zip(
            *(table.split(sizes) for table in (gates, recurrent, reset_update, fresh, states, before)), strict=True
        )
        for given, own, both, new, output, earlier in steps:
            earlier.copy_(state[: len(given)])
            torch.addmm(bias, earlier, weight.T, out=own)
            torch.add(given[:, : 2 * hidden], own[:, : 2 * hidden], out=both).sigmoid_()
            torch.addcmul(given[:, 2 * hidden :], both[:, :hidden], own[:, 2 * hidden :], out=new).tanh_()
            state = torch.lerp(new, earlier, both[:, hidden:], out=output)
        ctx.sizes, ctx.dtype = sizes, dtype
        ctx.save_for_backward(weight, recurrent[:, 2 * hidden :], reset_update, fresh, before)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        weight, recurrent, reset_update, fresh, before = ctx.saved_tensors
        hidden = weight.shape[1]
        reset, update = reset_update[:, :hidden].contiguous(), reset_update[:, hidden:].contiguous()
        to_new = (1 - update) * (1 - fresh * fresh)  # d new / d state, through tanh
        to_update = (before - fresh) * update * (1 - update)
        to_reset = recurrent * reset * (1 - reset)  # d reset / d new
        gates_grad = fresh.new_empty(len(fresh), 3 * hidden)  # of the recurrent share
        new_grad = torch.empty_like(fresh)  # of the input's share of the new gate
        later = fresh.new_zeros(0, hidden)
        tables = (grads[0].clone(), gates_grad, new_grad, reset, update, to_new, to_update, to_reset)
        for state_grad, gate_grad, new, r, z, by_new, by_update, by_reset in zip(
            *(reversed(table.split(ctx.sizes)) for table in tables), strict=True
        ):
            state_grad[: len(later)] += later
            torch.mul(state_grad, by_new, out=new)
            torch.mul(new, by_reset, out=gate_grad[:, :hidden])
            torch.mul(state_grad, by_update, out=gate_grad[:, hidden : 2 * hidden])
            torch.mul(new, r, out=gate_grad[:, 2 * hidden :])
            later = torch.addmm(state_grad * z, gate_grad, weight)
        weight_grad = (filled_up(gates_grad, ctx.dtype).T @ filled_up(before, ctx.dtype)).to(weight.dtype)
        bias_grad = gates_grad.sum(0)
        gates_grad[:, 2 * hidden :] = new_grad
        return gates_grad, weight_grad, bias_grad, None, None
