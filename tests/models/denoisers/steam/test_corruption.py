"""Disturbed histories against a walk item by item; what mends them gives the histories back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers.steam.corruption import (
    DELETE,
    INSERT,
    KEEP,
    Corrupted,
    Draws,
    Rates,
    Slots,
    corrupted,
    unseen,
)

pytestmark = pytest.mark.usefixtures("one_thread")
ITEMS, LENGTH, ADDED, MOST = 20, 9, 4, 3
RATES = Rates(0.4, 0.4, 0.2)
HISTORIES = ([3, 1, 4, 1, 5, 9, 2, 6, 5], [7, 8], [11], [2, 4, 6, 8, 10, 12, 14])


def batch(repeats: int = 1) -> Tensor:
    rows = [torch.tensor(history) for history in HISTORIES] * repeats
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def drawn(rows: int, seed: int = 0) -> Draws:
    torch.manual_seed(seed)
    return Draws.of(rows, LENGTH + ADDED, torch.device("cpu"))


def disturbed(items: Tensor, draws: Draws, rates: Rates = RATES, added: int = LENGTH) -> Corrupted:
    """With room for all that is inserted, unless told otherwise."""
    return corrupted(items, draws, rates, ITEMS, LENGTH, added, MOST)


def number(uniform: Tensor, count: int) -> int:
    return int(uniform.item() * count)


def literal(history: list[int], draws: Draws, row: int, rates: Rates) -> list[tuple[int, int, list[int]]]:
    """The walk: item by item (item, operation, what is missing before it, nearest first)."""
    begin = number(draws.start[row], len(history))
    part = history[begin : begin + 1 + number(draws.length[row], LENGTH)]
    strangers = [item for item in range(1, ITEMS + 1) if item not in history]
    result: list[tuple[int, int, list[int]]] = []
    pending: list[int] = []
    for time, item in enumerate(part):
        if not pending and draws.insert[row, time] < rates.insert:
            result.append((strangers[number(draws.item[row, time], len(strangers))], DELETE, []))
        rate = rates.delete if pending else rates.delete / (rates.keep + rates.delete)
        if time < len(part) - 1 and len(pending) < MOST and draws.delete[row, time] < rate:
            pending.insert(0, item)
        else:
            result.append((item, INSERT if pending else KEEP, pending))
            pending = []
    return result


def as_lists(found: Corrupted, row: int) -> list[tuple[int, int, list[int]]]:
    missing = [[item for item in items if item] for items in found.missing[row].tolist()]
    triples = zip(found.items[row].tolist(), found.operations[row].tolist(), missing, strict=True)
    return [triple for triple in triples if triple[0]]


@pytest.mark.parametrize("rates", [RATES, Rates(0.1, 0.8, 0.1), Rates(1.0, 0.0, 0.0), Rates(0.3, 0.0, 0.7)])
def test_equals_the_walk(rates: Rates) -> None:
    items, draws = batch(30), drawn(4 * 30)
    found = disturbed(items, draws, rates)
    for row in range(len(items)):
        assert as_lists(found, row) == literal(HISTORIES[row % 4], draws, row, rates)


def test_by_hand() -> None:
    """From (1, 2, 3, 4), all of it: a stranger before 1, 2 and 3 deleted, so that 4 is missing 3 and, before it, 2.

    The draw of the stranger, 0.5, is number 8 (from 0) of the 16 others, 5 to 20: item 13.
    """
    low, high, half = (torch.full((1, 13), value) for value in (0.0, 0.99, 0.5))
    insert = torch.where(torch.arange(13) == 0, low, high)
    delete = torch.where((torch.arange(13) == 1) | (torch.arange(13) == 2), low, high)
    draws = Draws(low[:, 0], high[:, 0], delete, insert, half, half, half)
    found = disturbed(torch.tensor([[1, 2, 3, 4]]), draws)
    assert found.items.tolist() == [[13, 1, 4]]
    assert found.operations.tolist() == [[DELETE, KEEP, INSERT]]
    assert found.missing.tolist() == [[[0, 0, 0], [0, 0, 0], [3, 2, 0]]]


def test_the_operations_mend_it() -> None:
    """Deleting what is to be deleted and inserting what is missing gives a run of the history; its end stays."""
    items, draws = batch(50), drawn(4 * 50, seed=1)
    found = disturbed(items, draws)
    for row in range(len(items)):
        mended: list[int] = []
        for item, operation, missing in as_lists(found, row):
            assert (operation == INSERT) == bool(missing)
            mended += [*reversed(missing), item] if operation != DELETE else []
        history = HISTORIES[row % 4]
        begin = number(draws.start[row], len(history))
        assert mended == history[begin : begin + len(mended)] and mended


def test_what_does_not_fit_is_left_out_at_the_front() -> None:
    """With strangers before all items and room for one more than the items, the newest tokens stay."""
    items, draws = batch(20), drawn(4 * 20)
    whole, cut = disturbed(items, draws, Rates(0.2, 0.0, 0.8)), disturbed(items, draws, Rates(0.2, 0.0, 0.8), added=1)
    assert cut.items.shape[1] == LENGTH + 1 < whole.items.shape[1]
    for row in range(len(items)):
        assert as_lists(cut, row) == as_lists(whole, row)[-LENGTH - 1 :]


def test_padding_and_order_change_nothing() -> None:
    items, draws, order = batch(5), drawn(20), torch.randperm(20)
    found, wider = disturbed(items, draws), disturbed(F.pad(items, (0, 2)), draws)
    moved = disturbed(items[order], Draws(*(values[order] for values in draws)))
    for name in ("items", "operations", "missing"):
        assert torch.equal(getattr(wider, name), getattr(found, name))
        assert torch.equal(getattr(moved, name), getattr(found, name)[order])


def test_rates_of_the_walk() -> None:
    """Of long histories in which nothing is cut short: a tenth of the places get a stranger, half of the rest go."""
    items = torch.arange(1, 2001).repeat(1, 1)
    torch.manual_seed(0)
    draws = Draws.of(1, 2000, torch.device("cpu"))._replace(start=torch.zeros(1), length=torch.full((1,), 0.9999))
    found = corrupted(items, draws, Rates(0.4, 0.5, 0.1), 4000, 2000, 2000, 5)
    strange = (found.operations == DELETE).sum().item()
    kept = (found.items > 0).sum().item() - strange
    runs = (found.operations == INSERT).sum().item()
    assert 1 - kept / 2000 == pytest.approx(0.52, abs=0.04)  # a run begins at 5/9 of its chances, 1.94 items long
    assert runs / kept == pytest.approx(5 / 9, abs=0.04)
    assert strange / kept == pytest.approx(0.1, abs=0.03)


def test_unseen_items_are_all_others_alike() -> None:
    """Of 6 items and the history (2, 5, 2): 1, 3, 4, 6 for a quarter of the numbers each; of the catalogue: none."""
    draws = (torch.arange(8) / 8).repeat(2, 1)
    found = unseen(torch.tensor([[2, 5, 2, 0, 0, 0], [1, 2, 3, 4, 5, 6]]), draws, 6)
    assert found.tolist() == [[1, 1, 3, 3, 4, 4, 6, 6], [0] * 8]


def test_slots_by_hand() -> None:
    """Filled slots close up; of three, where two fit, the first is left out."""
    values = torch.tensor([[0, 5, 0, 6], [7, 8, 9, 0], [0, 0, 0, 4]])
    assert Slots.of(values > 0, 9).moved(values).tolist() == [[5, 6, 0], [7, 8, 9], [4, 0, 0]]
    assert Slots.of(values > 0, 2).moved(values).tolist() == [[5, 6], [8, 9], [4, 0]]
