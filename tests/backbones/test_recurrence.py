"""The packed GRU layer against nn.GRU: states, gradients of everything, and number formats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from iadsr.backbones.recurrence import gru_layer

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = [[1], [5], [4, 4, 4], [1, 6, 3, 6, 2]]


def both(lengths: list[int], dtype: torch.dtype, products: torch.dtype) -> list[tuple[Tensor, ...]]:
    """States and gradients (of inputs and of the four parameters) of nn.GRU and of ours."""
    torch.manual_seed(len(lengths))
    gru = nn.GRU(3, 4, batch_first=True, dtype=dtype)
    inputs = torch.randn(len(lengths), max(lengths), 3, dtype=dtype)
    packed = pack_padded_sequence(inputs, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    data, results = packed.data.detach().requires_grad_(), []
    weight_ih, weight_hh, bias_ih, bias_hh = gru.parameters()
    ours = gru_layer(F.linear(data, weight_ih, bias_ih), weight_hh, bias_hh, packed.batch_sizes.tolist(), products)
    for states in (gru(packed._replace(data=data))[0].data, ours):
        weights = torch.arange(states.numel(), dtype=dtype).view_as(states).cos()
        results.append((states, *torch.autograd.grad((states * weights).sum(), [data, *gru.parameters()])))
    return results


@pytest.mark.parametrize("lengths", LENGTHS)
def test_equals_torch_s_layer(lengths: list[int]) -> None:
    expected, found = both(lengths, torch.float64, torch.float64)
    torch.testing.assert_close(found, expected)


def test_the_gradient_is_that_of_the_states() -> None:
    """Against differences."""
    torch.manual_seed(0)
    gates, weight, bias = (
        torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in ((6, 6), (6, 2), (6,))
    )
    assert torch.autograd.gradcheck(
        lambda gates, weight, bias: gru_layer(gates, weight, bias, [3, 2, 1], torch.float64), (gates, weight, bias)
    )


def test_bfloat16_rounds_the_weight_s_gradient_only() -> None:
    """weight_hh, the second parameter, is within 1%; all else is equal to float32's rounding."""
    expected, found = both([1, 6, 3, 6, 2], torch.float32, torch.bfloat16)
    assert not torch.equal(found[3], expected[3])
    assert (found[3] - expected[3]).norm() < 0.01 * expected[3].norm()
    rest = [0, 1, 2, 4, 5]
    torch.testing.assert_close([found[i] for i in rest], [expected[i] for i in rest], rtol=1e-4, atol=1e-5)
