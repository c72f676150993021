"""A bias for items of the history: which items, how long ago, and what it changes of scores and ranks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import EVERY_BACKBONE, LENGTH, batch_of, plain, sequences_of

from iadsr.models.ranking import rank_targets
from iadsr.models.recommender import LossSettings, Recommender
from iadsr.models.repeats import AGES, Repeats, age_of, met_in, others_met
from iadsr.schemas import TEST
from iadsr.sequences.windows import Feed

pytestmark = pytest.mark.usefixtures("one_thread")


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=7), min_size=1, max_size=4))
def test_what_is_met_by_a_literal_loop(windows: list[list[int]]) -> None:
    """Each distinct item once, at its last place; the newest was met 0 interactions ago."""
    expected = [
        (row, item, int(age_of(torch.tensor([window[::-1].index(item)]))))
        for row, window in enumerate(windows)
        for item in sorted(set(window), key=lambda item: -window[::-1].index(item))
    ]
    assert list(zip(*(each.tolist() for each in met_in(batch_of(*windows).items)), strict=True)) == expected


def test_items_met_that_are_left_out_by_a_literal_loop() -> None:
    """At each position with a target, all items up to there but the target, which may have been met."""
    windows = [[3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8]]
    batch = batch_of(*windows)
    expected, position = set(), 0
    for window, targets in zip(windows, batch.targets.tolist(), strict=True):
        for place, target in enumerate(targets):
            if target:
                expected |= {(position, item) for item in window[: place + 1] if item != target}
                position += 1
    found = others_met(batch.items, batch.targets)
    assert set(zip(found.positions.tolist(), found.items.tolist(), strict=True)) == expected
    assert (found.positions.diff() >= 0).all()


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
@pytest.mark.parametrize("negatives", [None, 500])
def test_training_does_not_ask_to_score_met_items_low(backbone: str, negatives: int | None) -> None:
    """Without a gradient for an item that was met and never is a target; with one where repeats are not learnt."""
    batch = batch_of([3, 1, 4], [3, 2, 5])
    for learnt in (True, False):
        model = plain(backbone)
        model.repeats = Repeats() if learnt else None
        model.prepare(LossSettings(negatives=negatives))
        states = model.prefix_states(batch.items).detach()
        (of_table,) = torch.autograd.grad(
            model.cross_entropy(states, batch.targets, items=batch.items), model.items.weight
        )
        of_table = of_table.to_dense() if of_table.is_sparse else of_table
        assert bool(of_table[3].any()) is not learnt and of_table[[1, 2, 4, 5]].any(1).all()


def test_biases_are_added_by_hand() -> None:
    """Of [3, 1, 3] item 3 is the newest and item 1 the one before; nothing else changes."""
    repeats, scores = Repeats(), torch.zeros(1, 4)
    repeats.biases[:2] = torch.tensor([-1.0, 5.0])
    repeats.add_to(scores, torch.tensor([[3, 1, 3, 0, 0]]))
    assert scores.tolist() == [[5, 0, -1, 0]]


def repeating(backbone: str, bias: float) -> Recommender:
    model = plain(backbone).eval()
    model.repeats = Repeats()
    model.repeats.biases.fill_(bias)
    return model


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_what_is_never_repeated_ranks_as_if_it_were_filtered(backbone: str) -> None:
    """Histories are no longer than a window, and no target is in its history."""
    feed = Feed(sequences_of([3, 1, 4, 5, 9], [9, 2, 7, 8], [6, 8, 1, 2, 5, 7]))
    assert max(feed.sequences.offsets.diff()) <= LENGTH + 1
    found = rank_targets(repeating(backbone, -1e4), feed, TEST, LENGTH)
    assert found.unfiltered.tolist() == found.filtered.tolist()
    assert found.filtered.tolist() == rank_targets(repeating(backbone, 0.0), feed, TEST, LENGTH).filtered.tolist()


def test_what_is_always_repeated_ranks_first() -> None:
    """The target of the first user is in his history, among three; that of the second is not."""
    found = rank_targets(repeating("gru4rec", 1e4), Feed(sequences_of([3, 1, 4, 1], [2, 5, 9, 7])), TEST, LENGTH)
    assert found.unfiltered[0] <= 3 < found.unfiltered[1]


def test_there_are_ages_for_any_distance() -> None:
    assert set(age_of(torch.arange(10_000)).tolist()) == set(range(AGES))
