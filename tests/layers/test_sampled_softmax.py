"""The sampled cross-entropy by hand, against the full one, and what it leaves untouched."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iadsr.layers.cross_entropy import LeftOut
from iadsr.layers.sampled_softmax import sampled_cross_entropy

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(positions: int, items: int, dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(positions)
    states, table = (torch.randn(rows, dim, generator=draw) for rows in (positions, items + 1))
    return states.requires_grad_(), table.requires_grad_(), torch.randint(1, items + 1, (positions,), generator=draw)


def test_by_hand() -> None:
    """Scores of items 1 to 4 are ln 1, ln 2, ln 3, ln 4; target 2, negatives 4 and 2: the target does not count, so

    three other items are estimated by 3 times 4: -ln(2 / (2 + 12)).
    """
    table = torch.tensor([[9.0], *([math.log(k)] for k in range(1, 5))], requires_grad=True)
    loss = sampled_cross_entropy(torch.ones(1, 1), table, torch.tensor([2]), torch.tensor([4, 2]), torch.float32)
    assert loss.item() == pytest.approx(math.log(14 / 2))


def test_what_is_left_out_by_hand() -> None:
    """As above with negatives 4, 3, 4, but 4 is left out at the first position: 3 times 3 for three others; at the
    second nothing is, so 3 times (4 + 3 + 4) / 3."""
    table = torch.tensor([[9.0], *([math.log(k)] for k in range(1, 5))])
    left_out = LeftOut(torch.tensor([0, 0]), torch.tensor([4, 1]))
    found = [
        sampled_cross_entropy(
            torch.ones(2, 1), table, torch.tensor([2, 2]), torch.tensor([4, 3, 4]), torch.float32, weights, left_out
        ).item()
        for weights in torch.eye(2)
    ]
    assert found == pytest.approx([math.log(11 / 2), math.log(13 / 2)])


def test_with_every_item_as_a_negative_it_is_the_full_loss() -> None:
    """Value and both gradients; that of the table is sparse."""
    states, table, targets = drawn(20, 30)
    expected = F.cross_entropy(states @ table[1:].T, targets - 1, reduction="sum")
    wanted = torch.autograd.grad(expected, (states, table))
    loss = sampled_cross_entropy(states, table, targets, torch.arange(1, 31), torch.float32)
    found = torch.autograd.grad(loss, (states, table))
    torch.testing.assert_close(loss, expected)
    assert found[1].is_sparse
    torch.testing.assert_close((found[0], found[1].to_dense()), wanted, atol=1e-5, rtol=1e-4)


def test_the_denominator_is_estimated_without_bias() -> None:
    """Mean over 4,000 draws of e^(loss) e^s - e^s against the sum over all other items, within 5 standard errors."""
    states, table, targets = drawn(1, 50)
    scores = (states @ table.T)[0].detach()
    own = scores[targets[0]].exp()
    rest = scores[1:].exp().sum() - own
    draw, estimates = torch.Generator().manual_seed(0), []
    for _ in range(4000):
        negatives = torch.randint(1, 51, (10,), generator=draw)
        loss = sampled_cross_entropy(states, table, targets, negatives, torch.float32).detach()
        estimates.append(loss.exp() * own - own)
    found = torch.stack(estimates)
    assert abs(found.mean() - rest) < 5 * found.std() / 4000**0.5


def test_only_what_was_drawn_has_a_gradient() -> None:
    states, table, targets = drawn(3, 1000)
    negatives = torch.tensor([7, 8, 9])
    (grad,) = torch.autograd.grad(sampled_cross_entropy(states, table, targets, negatives, torch.float32), table)
    assert set(grad.coalesce().indices()[0].tolist()) == {7, 8, 9, *targets.tolist()}


def test_nothing_costs_nothing() -> None:
    """No positions; and a position whose own target is the only negative."""
    states, table, targets = drawn(0, 5)
    assert sampled_cross_entropy(states, table, targets, torch.tensor([1]), torch.float32).item() == 0
    alone = sampled_cross_entropy(torch.ones(1, 4), table, torch.tensor([2]), torch.tensor([2]), torch.float32)
    assert alone.item() == 0


def test_weights_multiply_the_loss_of_each_position() -> None:
    """As of positions alone: the first counts twice, the second not at all."""
    states, table, targets = drawn(3, 30)
    negatives = torch.tensor([3, 7, 11])
    each = [
        sampled_cross_entropy(states[[row]], table, targets[[row]], negatives, torch.float32).item() for row in range(3)
    ]
    found = sampled_cross_entropy(states, table, targets, negatives, torch.float32, torch.tensor([2.0, 0.0, 0.5]))
    assert found.item() == pytest.approx(2 * each[0] + 0.5 * each[2], rel=1e-5)
