"""Linear layers in bfloat16 against float32: values, gradients, row counts; who computes in which format."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from iadsr.layers.linear import ROWS, Linear, filled_up, linear, set_matmul_dtype


@pytest.mark.parametrize("rows", [0, 1, ROWS - 1, ROWS, ROWS + 1])
def test_bfloat16_stays_close(rows: int) -> None:
    """Value and all gradients within 1% in norm of float32's, in float32, whatever the rows are filled up to."""
    draw = torch.Generator().manual_seed(rows)
    inputs, weight, bias, grad = (
        torch.randn(*shape, generator=draw) for shape in ((rows, 24), (16, 24), (16,), (rows, 16))
    )
    leaves = [tensor.requires_grad_() for tensor in (inputs, weight, bias)]
    expected, found = F.linear(inputs, weight, bias), linear(inputs, weight, bias, torch.bfloat16)
    wanted, gradients = (torch.autograd.grad(result, leaves, grad) for result in (expected, found))
    for value, want in zip((found, *gradients), (expected, *wanted), strict=True):
        assert value.dtype == torch.float32 and value.shape == want.shape
        assert (value - want).norm() <= 0.01 * want.norm()


def test_float32_is_torch_s_own() -> None:
    inputs, weight, bias = torch.randn(5, 3), torch.randn(2, 3), torch.randn(2)
    assert torch.equal(linear(inputs, weight, bias, torch.float32), F.linear(inputs, weight, bias))


def test_only_training_is_rounded() -> None:
    layer, inputs = Linear(8, 4), torch.randn(3, 8)
    set_matmul_dtype(nn.Sequential(layer), torch.bfloat16)
    exact = F.linear(inputs, layer.weight, layer.bias)
    assert torch.equal(layer.eval()(inputs), exact)
    rounded = layer.train()(inputs)
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0.02)


def test_filled_up_with_zeros() -> None:
    """3 rows become ROWS, and none stay none."""
    filled = filled_up(torch.ones(3, 2), torch.bfloat16)
    assert filled.shape == (ROWS, 2) and filled.dtype == torch.bfloat16 and filled.sum() == 6
    assert filled_up(torch.ones(0, 2), torch.float32).shape == (0, 2)
