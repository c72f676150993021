"""The chunked cross-entropy against the plain one: values, gradients, number formats, and its memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iadsr.layers import cross_entropy
from iadsr.layers.cross_entropy import ROWS, LeftOut, catalogue_cross_entropy, catalogue_losses

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(
    positions: int, items: int, dim: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(positions)
    states, table = (torch.randn(rows, dim, generator=draw, dtype=dtype) for rows in (positions, items + 1))
    return states.requires_grad_(), table.requires_grad_(), torch.randint(1, items + 1, (positions,), generator=draw)


def plain(states: Tensor, table: Tensor, targets: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    loss = F.cross_entropy(states @ table[1:].T, targets - 1, reduction="sum")
    return loss, torch.autograd.grad(loss, (states, table))


def ours(states: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype) -> tuple[Tensor, tuple[Tensor, ...]]:
    loss = catalogue_cross_entropy(states, table, targets, dtype)
    return loss, torch.autograd.grad(loss, (states, table))


def test_by_hand() -> None:
    """State (1, 0) against (ln 3, 0), (0, 0), (ln 3, ln 2): P(second) = 1 / 7; (0, 1): P(third) = 2 / 4."""
    table = torch.tensor([[9.0, 9.0], [math.log(3), 0], [0, 0], [math.log(3), math.log(2)]])
    loss = catalogue_cross_entropy(torch.eye(2), table, torch.tensor([2, 3]), torch.float32)
    assert loss.item() == pytest.approx(math.log(7) + math.log(2))


@pytest.mark.parametrize("positions", [1, ROWS - 1, ROWS, ROWS + 1, 3 * ROWS + 5])
@pytest.mark.parametrize("items", [1, 2, 50])
def test_equals_the_plain_loss_whatever_the_chunks(positions: int, items: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of ROWS positions, the last one filled up: filling rows change nothing."""
    monkeypatch.setattr(cross_entropy, "CPU_CELLS", ROWS * items)
    inputs = drawn(positions, items, dtype=torch.float64)
    expected, wanted = plain(*inputs)
    found, gradients = ours(*inputs, torch.float64)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, wanted)


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_what_is_left_out_is_no_part_of_the_softmax(spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the chunks, pairs that stand there twice, and logits that need their maximum subtracted."""
    monkeypatch.setattr(cross_entropy, "CPU_CELLS", ROWS * 9)
    states, table, targets = drawn(2 * ROWS + 5, 9, dtype=torch.float64)
    states = (spread * states).detach().requires_grad_()
    out = torch.rand(len(states), 9, generator=torch.Generator().manual_seed(1)) < 0.4
    out[torch.arange(len(states)), targets - 1] = False
    positions, columns = out.nonzero(as_tuple=True)
    twice = LeftOut(positions.repeat_interleave(2), (columns + 1).repeat_interleave(2))
    found = catalogue_cross_entropy(states, table, targets, torch.float64, left_out=twice)
    logits = (states @ table[1:].T).masked_fill(out, float("-inf"))
    expected = F.cross_entropy(logits, targets - 1, reduction="sum")
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, (states, table)), torch.autograd.grad(expected, (states, table))
    )


def test_the_gradient_is_that_of_the_loss() -> None:
    """Against differences, with a factor behind the loss."""
    states, table, targets = drawn(4, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda states, table: 3 * catalogue_cross_entropy(states, table, targets, torch.float64), (states, table)
    )


def test_bfloat16_stays_close() -> None:
    """300 positions, 2,000 items, logits as spread as a trained model's (4): the loss within 0.1%, both gradients
    within 1% in norm, all of them in float32."""
    states, table, targets = drawn(300, 2000, dim=64)
    inputs = states, (table * 0.5).detach().requires_grad_(), targets
    expected, wanted = plain(*inputs)
    found, gradients = ours(*inputs, torch.bfloat16)
    assert found.dtype == torch.float32 and found.item() == pytest.approx(expected.item(), rel=1e-3)
    for gradient, want in zip(gradients, wanted, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - want).norm() < 0.01 * want.norm()


def test_bfloat16_chunks_are_added_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three chunks each product is rounded to bfloat16, their sum is not: some of its values are no bfloat16."""
    monkeypatch.setattr(cross_entropy, "CPU_CELLS", ROWS * 50)
    _, (_, table_grad) = ours(*drawn(3 * ROWS, 50), torch.bfloat16)
    assert (table_grad.bfloat16().float() != table_grad).any()


@pytest.mark.parametrize(("logit", "items", "small"), [(60.0, 20_000, True), (79.0, 20_000, False), (79.0, 1, True)])
def test_logits_that_need_no_maximum(logit: float, items: int, small: bool) -> None:
    """Below 80 less the logarithm of their number, which for 20,000 is 9.9: the sum of exponentials is finite."""
    states, table = torch.ones(1, 1), torch.full((items + 1, 1), logit)
    assert cross_entropy._all_logits_small(states, table[1:]) == small
    loss = catalogue_cross_entropy(states, table, torch.tensor([1]), torch.float32)
    assert loss.item() == pytest.approx(math.log(items), abs=1e-4)


def test_no_positions_cost_nothing() -> None:
    states, table, targets = drawn(0, 5)
    loss, (states_grad, table_grad) = ours(states, table, targets, torch.float32)
    assert loss.item() == 0 and states_grad.shape == (0, 8) and not table_grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_hopeless_target_has_a_finite_loss(dtype: torch.dtype) -> None:
    """The target's probability underflows to 0: the loss is large, not infinite, and the gradient pulls it up."""
    states, table = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[0.0], [200.0], [0.0]], requires_grad=True)
    loss, (states_grad, _) = ours(states, table, torch.tensor([2]), dtype)
    assert 80 < loss.item() < math.inf
    assert states_grad.item() == 200


def test_keeps_no_logits_for_the_way_back() -> None:
    """What autograd keeps are the two gradients, whatever the number of items is."""
    kept: list[int] = []

    def remember(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    states, table, targets = drawn(400, 3000)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        catalogue_cross_entropy(states, table, targets, torch.float32)
    assert sorted(kept) == [400 * 8, 3001 * 8]


# --- position by position ---


def each(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(states @ table[1:].T, targets - 1, reduction="none")


@pytest.mark.parametrize("positions", [0, 1, ROWS, 2 * ROWS + 5])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_losses_of_positions(positions: int, dtype: torch.dtype, close: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several chunks, with logits of a standard deviation of 1.4: each loss, and their sum to the last bit."""
    monkeypatch.setattr(cross_entropy, "CPU_CELLS", ROWS * 50)
    states, table, targets = drawn(positions, 50)
    table = (0.5 * table).detach()
    found = catalogue_losses(states, table, targets, dtype)
    assert not found.requires_grad and found.dtype == torch.float32
    torch.testing.assert_close(found, each(states, table, targets).detach(), atol=close, rtol=close)
    parts = torch.stack([part.sum() for part in found.split(ROWS)]) if positions else torch.zeros(1)
    total = torch.zeros(())
    for part in parts:
        total += part
    assert torch.equal(catalogue_cross_entropy(states, table, targets, dtype), total)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_of_positions_with_large_logits(dtype: torch.dtype) -> None:
    """A target whose probability underflows has a finite loss; another of logit 200 against 0 has none."""
    table = torch.tensor([[0.0], [200.0], [0.0]])
    found = catalogue_losses(torch.ones(2, 1), table, torch.tensor([1, 2]), dtype)
    assert found[0] == 0 and 80 < found[1] < math.inf


def weighted(positions: int) -> Tensor:
    return torch.rand(positions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("positions", [0, 1, ROWS, 2 * ROWS + 5])
def test_a_weighted_sum(positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of weight * loss and its gradients, chunk by chunk; the weights themselves have none."""
    monkeypatch.setattr(cross_entropy, "CPU_CELLS", ROWS * 50)
    (states, table, targets), weights = drawn(positions, 50, dtype=torch.float64), weighted(positions).requires_grad_()
    loss = (weights.detach() * each(states, table, targets)).sum()
    found = catalogue_cross_entropy(states, table, targets, torch.float64, weights)
    torch.testing.assert_close(found, loss)
    by_weights = torch.autograd.grad(found, weights, retain_graph=True, allow_unused=True)
    assert by_weights == (None,)
    torch.testing.assert_close(*(torch.autograd.grad(value, (states, table)) for value in (found, loss)))


def test_a_weighted_sum_in_bfloat16() -> None:
    """As close as the plain one."""
    (states, table, targets), weights = drawn(300, 2000, dim=64), weighted(300).float()
    table = (table * 0.5).detach().requires_grad_()
    loss = (weights * each(states, table, targets)).sum()
    found = catalogue_cross_entropy(states, table, targets, torch.bfloat16, weights)
    assert found.item() == pytest.approx(loss.item(), rel=1e-3)
    for gradient, want in zip(*(torch.autograd.grad(value, (states, table)) for value in (found, loss)), strict=True):
        assert (gradient - want).norm() < 0.01 * want.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_of_one_change_no_bit(dtype: torch.dtype) -> None:
    inputs = drawn(ROWS + 5, 50)
    loss = catalogue_cross_entropy(*inputs, dtype, torch.ones(ROWS + 5))
    expected, gradients = ours(*inputs, dtype)
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, torch.autograd.grad(loss, inputs[:2]), gradients))
