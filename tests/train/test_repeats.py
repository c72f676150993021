"""Learning whether items come again: which histories are looked at, the likeliest biases, nothing that is held out."""

from __future__ import annotations

import pytest
import torch
from small_models import LENGTH, plain, random_histories, sequences_of
from torch.nn import functional as F

from iadsr.models.recommender import Recommender
from iadsr.models.repeats import AGES, Repeats, met_in
from iadsr.sequences.windows import Feed
from iadsr.train.repeats import SPREAD, Meetings, drawn_prefixes, fit_repeats, likeliest

pytestmark = pytest.mark.usefixtures("one_thread")


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def fitted(*histories: list[int]) -> Recommender:
    model = plain("gru4rec").eval()
    model.repeats = Repeats()
    fit_repeats(model, Feed(sequences_of(*histories)), LENGTH, generator())
    return model


def biases(*histories: list[int]) -> torch.Tensor:
    model = fitted(*histories)
    assert model.repeats is not None
    return model.repeats.biases


def test_histories_before_every_training_target() -> None:
    """All rows but each user's first and the two that are held out, with at most two items before them."""
    feed = Feed(sequences_of([1, 2, 3, 4, 8, 9], [5, 9, 9]))
    found = drawn_prefixes(feed, 2, generator())
    assert sorted(zip(found.starts.tolist(), found.lengths.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]


def test_likeliest_by_hand() -> None:
    """Everybody has one item, which came again for 30 of 40; it and the rest are as likely at first: exp(b) is 3."""
    rows = torch.arange(40)
    cells = Meetings(rows, 0 * rows, torch.zeros(40, dtype=torch.float64), rows < 30)
    found = likeliest(torch.zeros(40, dtype=torch.float64), cells)
    assert found[0].exp().item() == pytest.approx(3, rel=0.02) and not found[1:].any()


def test_no_slope_is_left() -> None:
    """Of the loss written out over the whole catalogue: cross-entropy of biased scores, and the squares."""
    histories = random_histories(20, 8)
    model = fitted(*histories)
    feed = Feed(sequences_of(*histories))
    windows = drawn_prefixes(feed, LENGTH, generator())
    batch, targets = feed.batch(windows), feed.sequences.items[windows.starts + windows.lengths]
    assert model.repeats is not None
    found = model.repeats.biases.double().requires_grad_()
    scores, met = (model.states(batch) @ model.item_table()[1:].T).double(), met_in(batch.items)
    scores = scores.index_put((met.rows, met.items - 1), found[met.ages], accumulate=True)
    loss = F.cross_entropy(scores, targets - 1, reduction="sum") + found.square().sum() / (2 * SPREAD**2)
    (slope,) = torch.autograd.grad(loss, found)
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-3, rtol=0)


def test_where_nobody_repeats_and_where_everybody_does() -> None:
    never = biases(*([1 + (start + n) % 9 for n in range(7)] for start in range(9)))
    always = biases(*([1 + start % 9] * 7 for start in range(9)))
    assert (never[:3] < -3).all() and always[0] > 2 and len(never) == AGES


def test_what_is_held_out_is_not_seen() -> None:
    one, other = ([[*random, *held] for random in random_histories(9, 6)] for held in ([1, 2], [7, 7]))
    assert torch.equal(biases(*one), biases(*other))


def test_histories_of_one_training_item_teach_nothing() -> None:
    assert not biases([1, 2, 3], [4, 5, 6]).any()
