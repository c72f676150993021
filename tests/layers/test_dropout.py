"""Dropout: its rates and scale, the independence of its draws, its gradient, and when it does nothing."""

from __future__ import annotations

import pytest
import torch

from iadsr.layers.dropout import Dropout, factors


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
def test_drops_at_its_rate_and_keeps_the_mean(rate: float) -> None:
    """Of 10^6 values a share within 5 standard errors of `rate` is 0, the others are 1 / (1 - rate)."""
    torch.manual_seed(0)
    values = factors(torch.Size([1000, 1000]), rate)
    kept = values[values != 0]
    assert abs(1 - len(kept) / 10**6 - rate) < 5 * (rate * (1 - rate) / 10**6) ** 0.5
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=2**-14, atol=0)
    assert values.mean().item() == pytest.approx(1, abs=0.02)


def test_values_are_dropped_independently() -> None:
    """Of neighbours, of neighbours in one 64-bit word, and from call to call: correlations within 5 standard errors."""
    torch.manual_seed(1)
    one, other = (factors(torch.Size([400_000]), 0.5) - 1 for _ in range(2))
    for left, right in ((one[:-1], one[1:]), (one[::4], one[3::4]), (one[:-4], one[4:]), (one, other)):
        assert abs((left * right).mean().item()) < 5 / len(left) ** 0.5


@pytest.mark.parametrize(("rate", "dropped"), [(0.5, 32768), (0.25, 16384), (0.001, 66), (0.999999, 65535)])
def test_each_of_the_levels_counts_once(rate: float, dropped: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 65,536 numbers drawn once: 32,768 are dropped at a rate of a half, 65.5 rounded at .001, never all."""
    numbers = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.int64)
    monkeypatch.setattr(torch.Tensor, "random_", lambda self, *bounds: self.copy_(numbers))
    assert int((factors(torch.Size([2**16]), rate) == 0).sum()) == dropped


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 7])
def test_any_number_of_values(count: int) -> None:
    assert factors(torch.Size([count]), 0.5).shape == (count,)


def test_the_same_seed_drops_the_same() -> None:
    torch.manual_seed(3)
    first = factors(torch.Size([50]), 0.5)
    assert not torch.equal(factors(torch.Size([50]), 0.5), first)
    torch.manual_seed(3)
    assert torch.equal(factors(torch.Size([50]), 0.5), first)


def test_gradients_pass_where_values_pass() -> None:
    torch.manual_seed(0)
    values = torch.ones(100, requires_grad=True)
    result = Dropout(0.5)(values)
    result.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, result.detach())


def test_evaluation_and_a_rate_of_zero_change_nothing() -> None:
    values = torch.randn(10)
    assert Dropout(0.5).eval()(values) is values and Dropout(0.0)(values) is values
