"""The plain recommender: its loss by hand, and what every backbone must keep under it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from small_models import DIM, EVERY_BACKBONE, ITEMS, at, batch_of, padded, plain, with_future
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.layers.principal import centred, principal_map
from iadsr.models import recommender
from iadsr.models.recommender import LossSettings, Recommender, Verdicts, newest
from iadsr.sequences.windows import Batch

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])


class Sums(nn.Module):
    """A backbone that can be worked by hand: the state of a prefix is the sum of its inputs."""

    hidden, receptive_field = 2, None

    def forward(self, inputs: Tensor, valid: Tensor, positions: Tensor | None = None) -> Tensor:
        return inputs.cumsum(1)


def by_hand() -> Recommender:
    """Items 1, 2, 3 are (ln 3, 0), (0, 0), (ln 3, ln 2); scores are inner products of sums with these."""
    model = Recommender(3, 2, Sums())
    with torch.no_grad():
        model.items.weight.copy_(
            torch.tensor([[0, 0], [math.log(3), 0], [0, 0], [math.log(3), math.log(2)]], dtype=torch.float32)
        )
    return model


def test_cross_entropy_by_hand() -> None:
    """States (1, 0) and (0, 1) give logits (ln 3, 0, ln 3) and (0, 0, ln 2).

    So P(2) = 1 / (3 + 1 + 3) at the first position, P(3) = 2 / (1 + 1 + 2) at the second; the third has no target.
    The mean of -ln is (ln 7 + ln 2) / 2.
    """
    states = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    loss = by_hand().cross_entropy(states, torch.tensor([[2, 3, 0]]))
    assert loss.item() == pytest.approx((math.log(7) + math.log(2)) / 2, rel=1e-6)


def test_no_targets_cost_nothing() -> None:
    """One user with one item: the loss is 0, and it can be differentiated."""
    model = plain("gru4rec")
    loss = model.loss(batch_of([3]))["ce"]
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or (parameter.grad == 0).all() for parameter in model.parameters())


def test_masked_items_have_zero_embeddings() -> None:
    """Sums of items 1, 3, 1 without the second: (ln 3, 0), the same, (2 ln 3, 0)."""
    items = torch.tensor([[1, 3, 1]])
    states = by_hand().prefix_states(items, torch.tensor([[True, False, True]]))
    expected = torch.tensor([[[1.0, 0], [1, 0], [2, 0]]]) * math.log(3)
    torch.testing.assert_close(states, expected)


def test_states_are_of_the_newest_item() -> None:
    """Windows (1, 1) and (3): states 2 (ln 3, 0) and (ln 3, ln 2), padding or not."""
    expected = torch.tensor([[2 * math.log(3), 0], [math.log(3), math.log(2)]])
    torch.testing.assert_close(by_hand().states(batch_of([1, 1], [3], width=4)), expected)


def test_newest_by_hand() -> None:
    states = torch.arange(12.0).view(2, 3, 2)
    assert newest(states, torch.tensor([2, 0])).tolist() == [[4, 5], [6, 7]]


def test_sampled_decisions() -> None:
    """Kept always, never, in three cases of four, and where nothing was judged."""
    probability = torch.tensor([1.0, 0.0, 0.75, math.nan]).expand(4000, 4)
    nothing = torch.full_like(probability, math.nan)
    verdicts = Verdicts(nothing, nothing, nothing, nothing, probability, torch.ones_like(probability).bool())
    first, again = (verdicts.sampled(torch.Generator().manual_seed(0)) for _ in range(2))
    assert torch.equal(first, again)
    shares = first.float().mean(0).tolist()
    assert shares[:2] == [1, 0] and shares[2] == pytest.approx(0.75, abs=0.03) and shares[3] == 1


def test_a_plain_recommender_keeps_everything() -> None:
    model = plain("gru4rec")
    verdicts = model.judge(batch_of([1, 2], [3]))
    assert verdicts.kept.all() and (verdicts.probability == 1).all()
    assert all(getattr(verdicts, name).isnan().all() for name in ("c1", "c2", "c3", "score"))
    assert (model.end_epoch(), model.training_state()) == ({}, {})


def test_a_head_stands_between_unequal_widths_only() -> None:
    assert isinstance(plain("sasrec").head, nn.Identity)
    assert plain("gru4rec").head.weight.shape == (DIM, 6)


def losses_by_position(model: Recommender, batch: Batch) -> Tensor:
    """-ln softmax of each position's target, one position at a time; 0 without a target."""
    logits = model.head(model.prefix_states(batch.items)) @ model.item_table()[1:].T
    result = torch.zeros(batch.items.shape)
    for window, place in (batch.targets > 0).nonzero().tolist():
        result[window, place] = -F.log_softmax(logits[window, place], -1)[batch.targets[window, place] - 1]
    return result


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
class TestEveryBackbone:
    @pytest.mark.parametrize("training", [True, False])
    def test_the_loss_is_the_mean_over_positions(self, backbone: str, training: bool) -> None:
        model, batch = plain(backbone).train(training), batch_of(*WINDOWS)
        expected = losses_by_position(model, batch).sum() / 8
        torch.testing.assert_close(model.loss(batch)["ce"], expected)

    @pytest.mark.parametrize("training", [True, False])
    def test_the_future_changes_nothing_before_it(self, backbone: str, training: bool) -> None:
        """Items after position p leave the states up to p and the losses of targets up to p as they were."""
        model, batch = plain(backbone).train(training), batch_of(*WINDOWS)
        states, losses = model.prefix_states(batch.items), losses_by_position(model, batch)
        for place in range(4):
            changed = with_future(batch, place)
            assert (changed.items != batch.items).any()
            torch.testing.assert_close(model.prefix_states(changed.items)[:, : place + 1], states[:, : place + 1])
            torch.testing.assert_close(losses_by_position(model, changed)[:, :place], losses[:, :place])

    def test_padding_changes_nothing(self, backbone: str) -> None:
        model, batch = plain(backbone).eval(), batch_of(*WINDOWS)
        torch.testing.assert_close(model.loss(padded(batch, 1)), model.loss(batch))
        torch.testing.assert_close(model.states(padded(batch, 1)), model.states(batch))

    def test_order_of_the_batch_does_not_matter(self, backbone: str) -> None:
        model, batch, order = plain(backbone).eval(), batch_of(*WINDOWS), torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(model.loss(at(batch, order)), model.loss(batch))
        torch.testing.assert_close(model.states(at(batch, order)), model.states(batch)[order])

    def test_a_batch_of_one_is_its_part_of_a_larger_one(self, backbone: str) -> None:
        model, batch = plain(backbone).eval(), batch_of(*WINDOWS)
        for place in range(4):
            one = batch_of(WINDOWS[place])
            torch.testing.assert_close(model.states(one)[0], model.states(batch)[place])

    def test_learns_one_batch_by_heart(self, backbone: str) -> None:
        """From ln 12 = 2.48 at random to below a tenth of it, padding's embedding still zero."""
        model, batch = plain(backbone, spread=None), batch_of([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12])
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03, weight_decay=1e-4)
        first = model.loss(batch)["ce"].item()
        assert first == pytest.approx(math.log(ITEMS), rel=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            loss = model.loss(batch)["ce"]
            loss.backward()
            optimizer.step()
        assert loss.item() < 0.1 * first
        assert (model.items.weight[0] == 0).all()


def test_every_item_can_be_a_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    """And padding cannot: over 200 draws of two, each of the three items comes, and nothing else."""
    model, drawn = by_hand(), set()

    def note(states: Tensor, table: Tensor, targets: Tensor, negatives: Tensor, *rest: Any) -> Tensor:
        drawn.update(negatives.tolist())
        return states.sum()

    monkeypatch.setattr(recommender, "sampled_cross_entropy", note)
    model.settings = LossSettings(negatives=2)
    for _ in range(200):
        model.cross_entropy(torch.ones(1, 1, 2), torch.tensor([[1]]))
    assert drawn == {1, 2, 3}


# --- the first embeddings ---


def test_embeddings_begin_as_components_of_texts() -> None:
    """Item 2 has no text and begins as it would; so does the third number of each, as texts have but two dimensions."""
    texts = torch.tensor([[0.0, 0], [1, 0], [0, 0], [0, 1], [1, 1]])
    backbone = Sums()
    backbone.hidden = 3
    model, before = (Recommender(4, 3, backbone) for _ in range(2))
    with torch.no_grad():
        model.items.weight.copy_(before.items.weight)
    model.start_from(texts)
    found, known = model.items.weight.detach(), centred(texts[1:])[[0, 2, 3]]
    torch.testing.assert_close(found[[1, 3, 4], :2], known @ principal_map(known, 2).T)
    assert torch.equal(found[:, 2], before.items.weight[:, 2]) and torch.equal(found[2], before.items.weight[2])
    assert not found[0].any()
