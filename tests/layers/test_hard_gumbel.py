"""Hard choices among the catalogue against a softmax written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iadsr.layers import hard_gumbel
from iadsr.layers.hard_gumbel import hard_choice
from iadsr.models.denoisers import masking

pytestmark = pytest.mark.usefixtures("one_thread")
ITEMS, CHOICES, DIM = 300, 9, 4


def written_out(queries: Tensor, table: Tensor, noise: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """F.gumbel_softmax(..., hard=True) @ table for given noise."""
    soft = torch.softmax((queries @ table.T + noise) / temperature, dim=1)
    numbers = soft.argmax(1)
    hard = torch.nn.functional.one_hot(numbers, len(table)).to(soft.dtype)
    return (hard - soft.detach() + soft) @ table, numbers


def inputs(items: int = ITEMS, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(CHOICES, DIM, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(items, DIM, generator=generator, dtype=torch.float64, requires_grad=True)
    noise = masking.gumbel(torch.Size([4, items]), generator, torch.device("cpu")).double()
    return queries, table, noise, torch.tensor([0, 0, 1, 1, 1, 2, 3, 3, 3])


@pytest.mark.parametrize("temperature", [2.0, 0.5, 0.05])
@pytest.mark.parametrize("cells", [1, 2 * ITEMS, 10**6])
def test_equals_the_softmax_written_out(temperature: float, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, numbers and both gradients, chunk by chunk as in one."""
    monkeypatch.setattr(hard_gumbel, "CPU_CELLS", cells)
    queries, table, noise, which = inputs()
    found = hard_choice(queries, table, noise, which, temperature)
    rows, numbers = written_out(queries, table, noise[which], temperature)
    assert torch.equal(found.numbers, numbers)
    torch.testing.assert_close(found.rows, rows)
    weights = torch.randn(rows.shape, dtype=torch.float64)
    grads = [torch.autograd.grad((chosen * weights).sum(), (queries, table)) for chosen in (found.rows, rows)]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 / temperature, rtol=1e-5)
        assert theirs.abs().max() > 0


def test_cold_choices_are_constant() -> None:
    """At a temperature of 1e-6 only the table has a gradient, that of the chosen rows."""
    queries, table, noise, which = inputs()
    found = hard_choice(queries, table, noise, which, 1e-6)
    queries_grad, table_grad = torch.autograd.grad(found.rows.sum(), (queries, table))
    expected = torch.bincount(found.numbers, minlength=ITEMS).double()
    assert queries_grad.abs().sum() == 0 and torch.equal(table_grad, expected[:, None].expand(-1, DIM))


@pytest.mark.parametrize("items", [2, 127, 128, 129, 1000])
def test_the_largest_and_its_lead(items: int) -> None:
    """Whatever the number of blocks, also where both largest are in one."""
    queries, table, noise, which = inputs(items)
    logits = queries @ table.T + noise[which]
    assert torch.equal(hard_choice(queries, table, noise, which, 1.0).numbers, logits.argmax(1))
    width = -(-items // 128) * 128
    blocks = torch.nn.functional.pad(logits, (0, width - items), value=float("-inf")).unflatten(1, (-1, 128))
    best = logits.topk(2, dim=1).values
    torch.testing.assert_close(hard_gumbel._largest(blocks)[1], best[:, 0] - best[:, 1])


@pytest.mark.parametrize(("spread", "sure"), [(0.1, True), (1.0, False), (30.0, False)])
def test_a_shortlist_is_believed_only_where_nothing_else_can_be_larger(spread: float, sure: bool) -> None:
    """The narrower the items, the more the noise decides; a lead is never said to be larger than it is."""
    queries, table, noise, which = inputs(1000)
    table = table * spread + 5
    logits = queries @ table.T + noise[which]
    numbers, lead = hard_gumbel._shortlisted(queries, table, noise, which)
    believed = lead > 0
    best = logits.topk(2, dim=1)
    assert torch.equal(numbers[believed], best.indices[believed, 0])
    assert (lead <= best.values[:, 0] - best.values[:, 1] + 1e-9).all()
    assert believed.any() and bool(believed.all()) == sure
    assert torch.equal(hard_choice(queries, table, noise, which, 0.5).numbers, best.indices[:, 0])


def test_queries_may_ask_rows_of_noise_in_any_order() -> None:
    queries, table, noise, which = inputs(1000)
    order = torch.tensor([4, 0, 8, 2, 6, 1, 7, 3, 5])
    found = hard_choice(queries[order], table, noise, which[order], 0.5).numbers
    assert torch.equal(found, hard_choice(queries, table, noise, which, 0.5).numbers[order])


def test_nothing_to_choose() -> None:
    _, table, noise, _ = inputs()
    queries = torch.empty(0, DIM, dtype=torch.float64, requires_grad=True)
    found = hard_choice(queries, table, noise, torch.empty(0, dtype=torch.long), 0.5)
    assert found.rows.shape == (0, DIM)
    assert torch.autograd.grad(found.rows.sum(), (queries, table))[1].abs().sum() == 0


def test_items_are_chosen_as_often_as_their_softmax_says() -> None:
    """Of 40,000 windows that share numbers among two choices, each choice has its own distribution."""
    table = torch.tensor([[0.0], [1.0], [2.0]])
    noise = masking.gumbel(torch.Size([40000, 3]), torch.Generator().manual_seed(0), torch.device("cpu"))
    which = torch.arange(40000).repeat_interleave(2)
    queries = torch.tensor([[1.0], [-0.5]]).repeat(40000, 1)
    numbers = hard_choice(queries, table, noise, which, 0.5).numbers.view(-1, 2)
    for place, query in enumerate((1.0, -0.5)):
        shares = torch.bincount(numbers[:, place], minlength=3) / 40000
        torch.testing.assert_close(shares, torch.softmax(table[:, 0] * query, dim=0), atol=0.01, rtol=0)
