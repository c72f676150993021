"""Recurrent layers over packed sequences, for the CPU: a GRU, and an LSTM that reads from both ends.

torch's own CPU layers run every step through autograd, whose backward pass fills a tensor of the whole sequence for
each step: quadratic in time. Here a step is a handful of products, and everything that needs no order (the input's
share of the gates, the gradients of all weights) is one product over all steps. tests/layers/test_recurrence.py
compares them with nn.GRU and nn.LSTM.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from iadsr.layers.linear import rounded


def gru_layer(
    gates: Float[Tensor, "packed gates"],
    weight: Float[Tensor, "gates hidden"],
    bias: Float[Tensor, " gates"],
    sizes: list[int],
    dtype: torch.dtype,
) -> Float[Tensor, "packed hidden"]:
    """The states of all steps, starting from zero states.

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
        weight_grad = (rounded(gates_grad, ctx.dtype).T @ rounded(before, ctx.dtype)).to(weight.dtype)
        bias_grad = gates_grad.sum(0)
        gates_grad[:, 2 * hidden :] = new_grad
        return gates_grad, weight_grad, bias_grad, None, None


def lstm_layer(
    inputs: Float[Tensor, "ends packed width"],
    weight: Float[Tensor, "ends gates width"],
    recurrent: Float[Tensor, "ends gates hidden"],
    bias: Float[Tensor, "ends gates"],
    sizes: list[int],
    dtype: torch.dtype,
) -> Float[Tensor, "ends packed hidden"]:
    """The states of all steps of several LSTMs side by side, such as one from each end, starting from zero states.

    `inputs` are packed: `sizes[t]` rows for step t, never more than for the step before. `weight`, `recurrent` and
    `bias` are nn.LSTM's `weight_ih`, `weight_hh` and the sum of both biases, the gates in torch's order: input, forget,
    cell and output. Products that need no order (of the inputs, and of the gradients of both weights) are computed in
    `dtype`.
    """
    states: Tensor = _LSTM.apply(inputs, weight, recurrent, bias, sizes, dtype)
    return states


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor, sizes: list[int], dtype: torch.dtype
    ) -> Tensor:
        ends, packed, _ = inputs.shape
        hidden = recurrent.shape[2]
        opened = inputs.new_empty(ends, packed, 4 * hidden)  # the gates; at first their share of the inputs
        for gates, rows, factor, added in zip(opened, inputs, weight, bias, strict=True):
            torch.add((rounded(rows, dtype) @ factor.to(dtype).T)[:packed], added, out=gates)
        states, cells, squashed, before, cells_before = (inputs.new_empty(ends, packed, hidden) for _ in range(5))
        state = cell = inputs.new_zeros(ends, sizes[0], hidden)
        transposed = recurrent.mT.contiguous()
        tables = (opened, states, cells, squashed, before, cells_before)
        for own, output, now, bent, earlier, earlier_cell in zip(*(t.split(sizes, 1) for t in tables), strict=True):
            rows = own.shape[1]
            earlier.copy_(state[:, :rows])
            earlier_cell.copy_(cell[:, :rows])
            own.baddbmm_(earlier, transposed)
            own[..., : 2 * hidden].sigmoid_()
            own[..., 2 * hidden : 3 * hidden].tanh_()
            own[..., 3 * hidden :].sigmoid_()
            torch.mul(own[..., hidden : 2 * hidden], earlier_cell, out=now)
            cell = now.addcmul_(own[..., :hidden], own[..., 2 * hidden : 3 * hidden])
            torch.tanh(cell, out=bent)
            state = torch.mul(own[..., 3 * hidden :], bent, out=output)
        ctx.sizes, ctx.dtype = sizes, dtype
        ctx.save_for_backward(inputs, weight, recurrent, opened, squashed, before, cells_before)
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None, None]:
        inputs, weight, recurrent, opened, squashed, before, cells_before = ctx.saved_tensors
        hidden = recurrent.shape[2]
        into, forget, new, out = (part.contiguous() for part in opened.split(hidden, 2))
        to_cell = out * (1 - squashed * squashed)  # d state / d cell
        slopes = torch.empty_like(opened)  # d cell / d gate before its bend; for the output gate d state
        torch.mul(new * into, 1 - into, out=slopes[..., :hidden])
        torch.mul(cells_before * forget, 1 - forget, out=slopes[..., hidden : 2 * hidden])
        torch.mul(into, 1 - new * new, out=slopes[..., 2 * hidden : 3 * hidden])
        torch.mul(squashed * out, 1 - out, out=slopes[..., 3 * hidden :])
        gates_grad = torch.empty_like(opened)
        later = later_cell = before.new_zeros(len(before), 0, hidden)
        tables = (grads[0].clone(), gates_grad, slopes, to_cell, forget)
        for state_grad, gate_grad, slope, by_state, keep in zip(
            *(reversed(table.split(ctx.sizes, 1)) for table in tables), strict=True
        ):
            state_grad[:, : later.shape[1]] += later
            cell_grad = state_grad * by_state
            cell_grad[:, : later_cell.shape[1]] += later_cell
            parts = gate_grad.unflatten(2, (4, hidden))
            torch.mul(slope.unflatten(2, (4, hidden))[:, :, :3], cell_grad[:, :, None], out=parts[:, :, :3])
            torch.mul(slope[..., 3 * hidden :], state_grad, out=gate_grad[..., 3 * hidden :])
            later, later_cell = gate_grad @ recurrent, cell_grad * keep
        inputs_grad, weight_grad, recurrent_grad = (torch.empty_like(part) for part in (inputs, weight, recurrent))
        for end, grad in enumerate(gates_grad):
            own, read, earlier = (rounded(rows, ctx.dtype) for rows in (grad, inputs[end], before[end]))
            inputs_grad[end] = (own @ weight[end].to(ctx.dtype))[: len(grad)]
            weight_grad[end], recurrent_grad[end] = own.T @ read, own.T @ earlier
        return inputs_grad, weight_grad, recurrent_grad, gates_grad.sum(1), None, None
