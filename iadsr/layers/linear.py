"""Linear layers whose matrix products, in training, may be computed in bfloat16 and accumulated in float32."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 128  # products have a multiple of this many rows: in bfloat16 every new shape compiles a kernel

ALIGNED = 16  # floats of a cache line


class Linear(nn.Linear):
    """nn.Linear; in training its three products are computed in `matmul_dtype`."""

    matmul_dtype = torch.float32

    def forward(self, inputs: Float[Tensor, "rows width"]) -> Float[Tensor, "rows out"]:
        return linear(inputs, self.weight, self.bias, self.matmul_dtype if self.training else inputs.dtype)


def linear(
    inputs: Float[Tensor, "rows width"],
    weight: Float[Tensor, "out width"],
    bias: Float[Tensor, " out"] | None,
    dtype: torch.dtype,
) -> Float[Tensor, "rows out"]:
    """inputs @ weight.T + bias in the format of `inputs`; its products and its gradient's are rounded to `dtype`."""
    if dtype == inputs.dtype:
        return F.linear(inputs, weight, bias)
    result: Tensor = _Linear.apply(inputs, weight, bias, dtype)
    return result


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        rows, factor = filled_up(inputs, dtype), weight.to(dtype)
        ctx.save_for_backward(rows, factor)
        ctx.has_bias = bias is not None
        product = (rows @ factor.T)[: len(inputs)].to(inputs.dtype)
        return product if bias is None else product.add_(bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None, None]:
        (grad,), (rows, factor) = grads, ctx.saved_tensors
        rounded = filled_up(grad, factor.dtype)
        return (
            (rounded @ factor)[: len(grad)].to(grad.dtype) if ctx.needs_input_grad[0] else None,
            (rounded.T @ rows).to(grad.dtype),
            grad.sum(0) if ctx.has_bias else None,
            None,
        )


def filled_up(rows: Float[Tensor, "some width"], dtype: torch.dtype) -> Float[Tensor, "filled width"]:
    """The rows in `dtype`, followed by rows of zeros up to a multiple of ROWS."""
    filled = rows.new_empty(-(-len(rows) // ROWS) * ROWS, rows.shape[1], dtype=dtype)
    filled[: len(rows)] = rows
    filled[len(rows) :] = 0
    return filled


def rounded(rows: Float[Tensor, "some width"], dtype: torch.dtype) -> Float[Tensor, "filled width"]:
    """The rows unchanged if `dtype` is their own format; else converted and filled up with rows of zeros."""
    return rows if dtype == rows.dtype else filled_up(rows, dtype)


def empty_rows(rows: int, columns: int, like: Tensor) -> Float[Tensor, "rows columns"]:
    """An empty matrix to write a product into: each row begins at a cache line.

    With AVX2, products into rows of an odd number of floats take twice as long.
    """
    return like.new_empty(rows, -(-columns // ALIGNED) * ALIGNED)[:, :columns]


def set_matmul_dtype(model: nn.Module, dtype: torch.dtype) -> None:
    """Set the number format of the products of training wherever `model` has one."""
    for part in model.modules():
        if hasattr(part, "matmul_dtype"):
            part.matmul_dtype = dtype  # type: ignore[assignment]  # nn.Module's attributes could be anything
