"""The packed layers against nn.GRU and nn.LSTM: states, gradients of everything, and number formats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence

from iadsr.layers.bilstm import BiLSTM, Ends
from iadsr.layers.recurrence import gru_layer, lstm_layer

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


# --- an LSTM from both ends ---


@pytest.mark.parametrize("lengths", LENGTHS)
def test_both_ends_equal_torch_s_layer(lengths: list[int]) -> None:
    """Of each sequence by itself: states, and the gradients of inputs and of all eight parameters."""
    torch.manual_seed(len(lengths))
    model = BiLSTM(3).double()
    inputs = torch.randn(sum(lengths), 3, dtype=torch.float64, requires_grad=True)
    found = torch.cat(model(inputs, Ends(torch.tensor(lengths))), dim=1)
    expected = torch.cat([model.lstm(own[:, None])[0][:, 0] for own in inputs.split(lengths)])
    torch.testing.assert_close(found, expected)
    weights = torch.arange(found.numel(), dtype=torch.float64).view_as(found).cos()
    grads = [
        torch.autograd.grad((states * weights).sum(), [inputs, *model.parameters()]) for states in (found, expected)
    ]
    torch.testing.assert_close(*grads, atol=1e-6, rtol=1e-6)


def test_the_lstm_s_gradient_is_that_of_the_states() -> None:
    """Against differences."""
    torch.manual_seed(0)
    leaves = [
        torch.randn(*shape, dtype=torch.float64).requires_grad_() for shape in ((2, 6, 3), (2, 8, 3), (2, 8, 2), (2, 8))
    ]

    def states(inputs: Tensor, weight: Tensor, recurrent: Tensor, bias: Tensor) -> Tensor:
        return lstm_layer(inputs, weight, recurrent, bias, [3, 2, 1], torch.float64)

    assert torch.autograd.gradcheck(states, leaves)


def test_bfloat16_rounds_gradients_of_the_lstm_s_weights_only() -> None:
    """In training; the input's share of the gates is rounded too, so states differ by less than 1%."""
    torch.manual_seed(0)
    model, inputs, ends = BiLSTM(16).train(), torch.randn(30, 16), Ends(torch.full((5,), 6))
    exact = torch.cat(model(inputs, ends))
    model.matmul_dtype = torch.bfloat16
    rounded = torch.cat(model(inputs, ends))
    assert 0 < (rounded - exact).norm() < 0.01 * exact.norm()
    assert torch.equal(torch.cat(model.eval()(inputs, ends)), exact)
