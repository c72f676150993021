"""IADSR against loops over users, prefixes p and items t; what may leak, what carries a gradient, what is left out."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from small_models import EVERY_BACKBONE, alone, at, batch_of, iadsr, padded, plain, with_future
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers import masking
from iadsr.models.denoisers.iadsr.mask_table import unpacked
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.sequences.windows import Batch

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
BATCH = batch_of(*WINDOWS)  # rows 0-4, 5-6, 7, 8-11


def cosine(one: Tensor, other: Tensor) -> float:
    return torch.cosine_similarity(one, other, dim=0).item()


def literal_score(model: IADSR, batch: Batch, window: int, p: int, t: int, states: Tensor) -> tuple[float, float]:
    """Score (Eq. 13-16) of item t in the prefix that ends at p, and the gate's cosine (Eq. 11), from prefix states."""
    assert batch.text_vectors is not None
    long, short = model.project_long(batch.text_vectors[window]), model.project_short(batch.text_vectors[window])
    h = states[window]
    score = cosine(long[p], h[t]) + cosine(h[p], short[t]) + cosine(h[t], short[t])
    return score, cosine(long[p], h[p])


def sampled_epoch(model: IADSR, batch: Batch = BATCH) -> None:
    """One epoch of one batch, so that the masks of an epoch before exist."""
    model.loss(batch)
    model.end_epoch()


# --- masks against loops ---


@pytest.mark.parametrize("theta", [-1.0, 0.0])
def test_prefix_masks_equal_the_loops(theta: float) -> None:
    """K[p, t] is 1 where score + g_t > 0 or the prefix is below theta; it stands at [row of p, p - t]."""
    model = iadsr("gru4rec", theta=theta)
    noise = masking.gumbel(torch.Size([4, 5]), torch.Generator().manual_seed(0), torch.device("cpu"))
    states = model.prefix_states(BATCH.items)
    model.loss(BATCH)
    expected, dropped, judged, gated, qualified = torch.ones(40, 8, dtype=torch.bool), 0, 0, 0, 0
    for window, items in enumerate(WINDOWS):
        for p in range(len(items)):
            gate = literal_score(model, BATCH, window, p, p, states)[1] >= theta
            gated, qualified = gated + 1, qualified + gate
            for t in range(p + 1):
                score, _ = literal_score(model, BATCH, window, p, t, states)
                kept = not gate or score + noise[window, t].item() > 0
                expected[BATCH.rows[window, p], p - t] = kept
                dropped, judged = dropped + (not kept), judged + 1
    assert torch.equal(unpacked(model.mask_table.current), expected)
    assert unpacked(model.mask_table.previous).all()
    assert 0 < dropped < judged and (qualified < gated) == (theta == 0.0)
    assert model.end_epoch() == {"drop_rate": dropped / judged, "qualified": qualified / gated}
    assert torch.equal(unpacked(model.mask_table.previous), expected)


def test_user_masks_equal_the_loops() -> None:
    """m_t from the whole window: the newest item's interests are the long-term ones; one column, by row."""
    model = iadsr("sasrec", seed=2, masks="user", theta=0.0)
    noise = masking.gumbel(torch.Size([4, 5]), torch.Generator().manual_seed(2), torch.device("cpu"))
    states = model.prefix_states(BATCH.items)
    model.loss(BATCH)
    expected = torch.ones(40, dtype=torch.bool)
    for window, items in enumerate(WINDOWS):
        for t in range(len(items)):
            score, _ = literal_score(model, BATCH, window, len(items) - 1, t, states)
            gate = literal_score(model, BATCH, window, len(items) - 1, 0, states)[1] >= 0
            expected[BATCH.rows[window, t]] = not gate or score + noise[window, t].item() > 0
    assert torch.equal(model.mask_table.current[:, 0] > 0, expected)
    assert not expected.all()


def test_the_window_s_own_mask_is_its_newest_prefix_s() -> None:
    """The mask of Eq. 20 is exactly what is remembered for the newest prefix, and binary."""
    model = iadsr("gru4rec")
    unit = F.normalize(model.prefix_states(BATCH.items), dim=-1)
    mask, qualified = model.sample_masks(BATCH, unit, unit, *model.project_texts(BATCH))
    assert qualified.all() and set(mask[BATCH.valid].tolist()) == {0.0, 1.0}
    for window, items in enumerate(WINDOWS):
        stored = unpacked(model.mask_table.current[BATCH.rows[window, len(items) - 1]])[: len(items)].flip(0)
        assert (mask[window, : len(items)] > 0.5).tolist() == stored.tolist()


def test_one_user_with_one_item() -> None:
    """Nothing to predict or to tell apart; the only item is judged by itself."""
    model, one = iadsr("gru4rec"), batch_of([7])
    terms = model.loss(one)
    torch.stack(list(terms.values())).sum().backward()
    assert (terms["ce"].item(), terms["info"].item()) == (0, 0) and terms["recon"] > 0
    assert model.judged == 1 and model.judge(one).score.shape == (1, 1)


# --- the gate ---


@pytest.mark.parametrize("masks", ["prefix", "user"])
def test_a_gate_of_one_keeps_everything(masks: str) -> None:
    model = iadsr("gru4rec", masks=masks, theta=1.0)
    terms = model.loss(BATCH)
    assert terms["recon"] == 0  # nobody is qualified
    assert model.end_epoch() == {"drop_rate": 0, "qualified": 0}
    assert model.masked_prefix_states(BATCH).equal(model.prefix_states(BATCH.items))
    keep = model.judge(BATCH)
    assert keep.kept.all() and (keep.probability == 1).all()
    torch.testing.assert_close(model.states(BATCH), super(IADSR, model).states(BATCH))


@pytest.mark.parametrize("masks", ["prefix", "user"])
def test_a_gate_of_minus_one_lets_everybody_in(masks: str) -> None:
    """Even users whose interests are exactly opposite: h = -l."""
    model = iadsr("gru4rec", masks=masks, theta=-1.0)
    unit = F.normalize(model.prefix_states(BATCH.items), dim=-1)
    _, qualified = model.sample_masks(BATCH, unit, unit, -unit, -unit)
    assert qualified.all()
    assert model.end_epoch()["qualified"] == 1


def test_users_between_gates() -> None:
    """At theta 0 the verdicts of users at or above it are those of theta -1, all others are kept."""
    free, gated = (iadsr("sasrec", seed=1, theta=theta).judge(BATCH) for theta in (-1.0, 0.0))
    model = iadsr("sasrec", seed=1)
    states = model.prefix_states(BATCH.items)
    inside = [literal_score(model, BATCH, w, len(x) - 1, 0, states)[1] >= 0 for w, x in enumerate(WINDOWS)]
    assert 0 < sum(inside) < 4
    for window, qualified in enumerate(inside):
        assert torch.equal(gated.kept[window], free.kept[window] if qualified else torch.ones(5, dtype=torch.bool))
        assert (gated.probability[window] == 1).all() != qualified
        torch.testing.assert_close(gated.score[window], free.score[window])


# --- masks of the previous epoch ---


@pytest.mark.parametrize("masks", ["prefix", "user"])
def test_the_first_epoch_is_not_masked(masks: str) -> None:
    model = iadsr("gru4rec", masks=masks)
    expected = model.cross_entropy(model.prefix_states(BATCH.items), BATCH.targets)
    for _ in range(2):  # also later in the first epoch, when masks have been sampled but not yet taken over
        torch.testing.assert_close(model.loss(BATCH)["ce"], expected)
    model.end_epoch()
    assert model.loss(BATCH)["ce"] != expected


@pytest.mark.parametrize("masks", ["prefix", "user"])
def test_an_epoch_uses_the_masks_of_the_one_before(masks: str) -> None:
    """The whole second epoch is masked by the first one's table, whatever it samples itself."""
    model = iadsr("gru4rec", masks=masks)
    sampled_epoch(model)
    table = model.mask_table
    first = table.previous.clone()
    states = model.masked_prefix_states(BATCH)
    model.loss(BATCH)
    assert torch.equal(table.previous, first) and not torch.equal(table.current, first)
    assert torch.equal(model.masked_prefix_states(BATCH), states)


def test_counters_start_anew_each_epoch() -> None:
    model = iadsr("gru4rec")
    sampled_epoch(model)
    assert (model.dropped, model.judged, model.qualified, model.gated) == (0, 0, 0, 0)
    model.loss(BATCH)
    assert (model.judged, model.gated) == (15 + 3 + 1 + 10, 12)


def test_training_state_is_all_that_resuming_needs() -> None:
    """A model with the same weights and the state of another samples the same masks and losses from then on."""
    model = iadsr("gru4rec")
    sampled_epoch(model)
    again = iadsr("gru4rec", seed=5)
    again.load_state_dict(model.state_dict())
    again.load_training_state(copy.deepcopy(model.training_state()))
    for _ in range(2):
        one, other = model.loss(BATCH), again.loss(BATCH)
        assert {name: value.item() for name, value in one.items()} == {name: v.item() for name, v in other.items()}
        assert model.end_epoch() == again.end_epoch()
    assert torch.equal(model.mask_table.current, again.mask_table.current)


# --- losses ---


def test_reconstruction_by_hand() -> None:
    """With a decoder of zeros X_hat is 0, so each user's error is the squared length of its embeddings.

    Of users with errors 2 (two items of length 1), 1 and 4, the first and last qualified: (2 + 4) / 2 = 3.
    """
    model, batch = iadsr("gru4rec"), batch_of([1, 1], [1], [2, 0][:1])
    with torch.no_grad():
        model.decoder.weight.zero_()
        model.decoder.bias.zero_()
        model.items.weight[1:3] = 0
        model.items.weight[1, 0], model.items.weight[2, 3] = 1.0, 2.0
    states, mask = model.prefix_states(batch.items), torch.ones(3, 2)
    loss = model.reconstruction(batch, states, mask, torch.tensor([True, False, True]))
    assert loss.item() == pytest.approx(3)
    assert model.reconstruction(batch, states, mask, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_reconstruction_equals_the_loops() -> None:
    """Eq. 20-21: the decoder of the masked states against the unmasked embeddings, summed, mean over the qualified."""
    model = iadsr("sasrec")
    states = model.prefix_states(BATCH.items)
    mask = (torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) < 0.6).float()
    total = 0.0
    for window in (0, 3):
        for t, item in enumerate(WINDOWS[window]):
            rebuilt = model.decoder(states[window, t] * mask[window, t])
            total += (rebuilt - model.items.weight[item]).square().sum().item()
    qualified = torch.tensor([True, False, False, True])
    assert model.reconstruction(BATCH, states, mask, qualified).item() == pytest.approx(total / 2, rel=1e-5)


def literal_info(anchors: list[Tensor], positives: list[Tensor]) -> float:
    """Eq. 9-10 pair by pair, at temperature 0.1."""
    total = 0.0
    for place, anchor in enumerate(anchors):
        powers = [math.exp(cosine(anchor, positive) / 0.1) for positive in positives]
        total -= math.log(powers[place] / sum(powers))
    return total / len(anchors)


def test_the_terms_of_a_later_epoch_equal_the_loops() -> None:
    """Masked states against their encodings, long with long and short with short; the decoder on this epoch's mask."""
    model = iadsr("gru4rec", masks="user", info_temperature=0.1, gumbel_temperature=0.7)
    sampled_epoch(model)
    noise = masking.gumbel(torch.Size([4, 5]), copy_of(model.generator), torch.device("cpu"))
    states = model.masked_prefix_states(BATCH).detach()
    assert not torch.equal(states, model.prefix_states(BATCH.items))
    terms = model.loss(BATCH)
    long: tuple[list[Tensor], list[Tensor]] = ([], [])
    short: tuple[list[Tensor], list[Tensor]] = ([], [])
    rebuilt = 0.0
    assert BATCH.text_vectors is not None
    for window, items in enumerate(WINDOWS):
        for t, item in enumerate(items):
            newest = t == len(items) - 1
            project, pairs = (model.project_long, long) if newest else (model.project_short, short)
            pairs[0].append(states[window, t])
            pairs[1].append(project(BATCH.text_vectors[window])[t])
            score, _ = literal_score(model, BATCH, window, len(items) - 1, t, states)
            kept = float(score + noise[window, t].item() > 0)
            error = model.decoder(states[window, t] * kept) - model.items.weight[item]
            rebuilt += error.square().sum().item() / len(WINDOWS)
    assert terms["info"].item() == pytest.approx(literal_info(*long) + literal_info(*short), rel=1e-4)
    assert terms["recon"].item() == pytest.approx(rebuilt, rel=1e-4)


def copy_of(generator: torch.Generator) -> torch.Generator:
    """One that draws the same numbers next."""
    return torch.Generator().set_state(generator.get_state())


def test_the_decoder_begins_at_zero_and_what_it_rebuilds_takes_part_in_the_gradient() -> None:
    """So at first X_hat is 0, no mask or state has a gradient from L_recon, and the embeddings x have 2 x, by item."""
    model = iadsr("gru4rec", spread=None)
    states, mask = model.prefix_states(BATCH.items), torch.ones(4, 5, requires_grad=True)
    loss = model.reconstruction(BATCH, states.detach(), mask, torch.ones(4, dtype=torch.bool))
    by_mask, by_items = torch.autograd.grad(loss, (mask, model.items.weight))
    assert not by_mask.any()
    counts = torch.bincount(BATCH.items[BATCH.valid], minlength=len(by_items))
    torch.testing.assert_close(by_items, 2 * model.items.weight * counts[:, None] / 4)


def test_weights_scale_their_terms() -> None:
    one, other = iadsr("gru4rec").loss(BATCH), iadsr("gru4rec", lambda_info=0.5, lambda_recon=3.0).loss(BATCH)
    torch.testing.assert_close(other["ce"], one["ce"])
    torch.testing.assert_close(other["info"], one["info"] * 0.5)
    torch.testing.assert_close(other["recon"], one["recon"] * 3)


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_without_its_parts_it_is_the_plain_recommender(backbone: str) -> None:
    """The same seed gives the same weights and, in every epoch, the same loss and states."""
    model = iadsr(backbone, spread=None, lambda_info=0.0, lambda_recon=0.0, masks="none")
    base = plain(backbone, spread=None)
    for name, value in base.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    for _ in range(2):
        assert model.loss(BATCH).keys() == {"ce"}
        assert torch.equal(model.loss(BATCH)["ce"], base.loss(BATCH)["ce"])
        model.end_epoch()
    assert torch.equal(model.states(BATCH), base.states(BATCH))


@pytest.mark.parametrize(
    ("changes", "names"), [({"lambda_info": 0.0}, {"ce", "recon"}), ({"lambda_recon": 0.0}, {"ce", "info"})]
)
def test_an_ablated_loss_is_absent_and_masks_go_on(changes: dict[str, Any], names: set[str]) -> None:
    model = iadsr("gru4rec", **changes)
    assert model.loss(BATCH).keys() == names
    assert model.end_epoch()["drop_rate"] > 0


@pytest.mark.parametrize(
    ("interests", "names"), [("long", ("c1", "c2")), ("short", ("c3",)), ("both", ("c1", "c2", "c3"))]
)
def test_scores_of_one_kind_of_interest(interests: str, names: tuple[str, ...]) -> None:
    keep = iadsr("gru4rec", interests=interests).judge(BATCH)
    torch.testing.assert_close(keep.score, sum(getattr(keep, name) for name in names))
    torch.testing.assert_close(keep.probability, masking.keep_probability(keep.score))
    assert torch.equal(keep.kept, keep.score > 0)


# --- at test time ---


SEEDS = {"ligr": 1}  # with which something is dropped


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_states_encode_the_history_without_what_is_dropped(backbone: str) -> None:
    """Judge the unmasked history from its newest item, drop scores of at most 0, encode again: user by user."""
    model = iadsr(backbone, seed=SEEDS.get(backbone, 0)).eval()
    states, found = model.prefix_states(BATCH.items), model.states(BATCH)
    dropped = 0
    for window, items in enumerate(WINDOWS):
        last = len(items) - 1
        scores = [literal_score(model, BATCH, window, last, t, states)[0] for t in range(len(items))]
        keep = torch.tensor([score > 0 for score in scores])
        dropped += int((~keep).sum())
        torch.testing.assert_close(found[window], model.head(alone(model, items, keep)))
        torch.testing.assert_close(model.judge(BATCH).score[window, : len(items)], torch.tensor(scores))
    assert dropped


@pytest.mark.parametrize("changes", [{"mask_at_test": False}, {"masks": "none"}])
def test_masks_at_test_can_be_switched_off(changes: dict[str, Any]) -> None:
    model = iadsr("gru4rec", **changes)
    plain_states = model.head(model.prefix_states(BATCH.items)[torch.arange(4), BATCH.last])
    assert torch.equal(model.states(BATCH), plain_states)
    assert not torch.equal(iadsr("gru4rec").states(BATCH), plain_states)


def test_evaluation_does_not_depend_on_the_masks_of_training() -> None:
    model = iadsr("gru4rec").eval()
    expected = model.states(BATCH)
    sampled_epoch(model)
    assert torch.equal(model.states(BATCH), expected)


# --- invariances ---


def masks_and_losses(backbone: str, batch: Batch, training: bool, masks: str) -> tuple[Tensor, Tensor, Tensor]:
    """Two epochs on one batch from the same seed: the first one's masks, the second one's states and CE by position."""
    model = iadsr(backbone, masks=masks).train(training)
    sampled_epoch(model, batch)
    states = model.masked_prefix_states(batch)
    logits = F.log_softmax(model.head(states) @ model.item_table()[1:].T, -1)
    losses = -logits.gather(2, (batch.targets - 1).clamp(min=0)[..., None])[..., 0] * (batch.targets > 0)
    torch.testing.assert_close(losses.sum() / (batch.targets > 0).sum(), model.cross_entropy(states, batch.targets))
    return model.mask_table.previous, states, losses


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_prefix_masks_do_not_leak_the_future(backbone: str, training: bool) -> None:
    """Other items and texts after position p: masks K[p', t], states p' <= p and losses of targets <= p stay.

    That holds over two epochs, so also for states that masks of the epoch before have shaped.
    """
    masks, states, losses = masks_and_losses(backbone, BATCH, training, "prefix")
    assert (masks < 255).any()
    for place in range(4):
        others = masks_and_losses(backbone, with_future(BATCH, place), training, "prefix")
        until = BATCH.rows[:, : place + 1]
        until = until[until >= 0]
        assert torch.equal(others[0][until], masks[until])
        torch.testing.assert_close(others[1][:, : place + 1], states[:, : place + 1])
        torch.testing.assert_close(others[2][:, :place], losses[:, :place])


def test_user_masks_do_leak_the_future_in_training() -> None:
    """The documented exception: a mask of the whole history lets later items change earlier states."""
    masks, states, losses = masks_and_losses("caser", BATCH, True, "user")
    others = masks_and_losses("caser", with_future(BATCH, 2), True, "user")
    early = [0, 1, 2, 8, 9, 10]
    assert not torch.equal(others[0][early], masks[early])
    assert not torch.allclose(others[1][:, :3], states[:, :3])
    assert not torch.allclose(others[2][:, :2], losses[:, :2])


@pytest.mark.parametrize("masks", ["prefix", "user"])
@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
class TestInvariances:
    def trained(self, backbone: str, masks: str) -> IADSR:
        """A model that has masks of an epoch before, and whose own masks are not drawn (theta = 1)."""
        model = iadsr(backbone, masks=masks)
        sampled_epoch(model)
        model.params = model.params.model_copy(update={"theta": 1.0})
        return model.eval()

    def test_padding_changes_nothing(self, backbone: str, masks: str) -> None:
        model, wide = self.trained(backbone, masks), padded(BATCH, 1)
        torch.testing.assert_close(model.loss(wide), model.loss(BATCH))
        model.params = model.params.model_copy(update={"theta": -1.0})
        torch.testing.assert_close(model.states(wide), model.states(BATCH))
        torch.testing.assert_close(model.judge(wide).score[:, :5][BATCH.valid], model.judge(BATCH).score[BATCH.valid])

    def test_order_of_the_batch_does_not_matter(self, backbone: str, masks: str) -> None:
        model, order = self.trained(backbone, masks), torch.tensor([2, 0, 3, 1])
        mixed = at(BATCH, order)
        torch.testing.assert_close(model.loss(mixed), model.loss(BATCH))
        model.params = model.params.model_copy(update={"theta": -1.0})
        torch.testing.assert_close(model.states(mixed), model.states(BATCH)[order])
        valid = BATCH.valid[order]
        torch.testing.assert_close(model.judge(mixed).score[valid], model.judge(BATCH).score[order][valid])

    def test_a_batch_of_one_is_its_part_of_a_larger_one(self, backbone: str, masks: str) -> None:
        model = self.trained(backbone, masks)
        model.params = model.params.model_copy(update={"theta": -1.0})
        for window, items in enumerate(WINDOWS):
            one = at(BATCH, slice(window, window + 1))
            assert one.text_vectors is not None
            rows, numbers, targets = (values[:, : len(items)] for values in (one.rows, one.items, one.targets))
            one = Batch(rows, numbers, targets, one.users, one.text_vectors[:, : len(items)])
            torch.testing.assert_close(model.states(one)[0], model.states(BATCH)[window])
            torch.testing.assert_close(
                model.masked_prefix_states(one)[0], model.masked_prefix_states(BATCH)[window, : len(items)]
            )

    def test_learns_one_batch_by_heart(self, backbone: str, masks: str) -> None:
        """Cross-entropy and alignment fall below a quarter within 100 steps of 5 epochs, masks and all."""
        batch = batch_of([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12])
        model = iadsr(backbone, spread=None, masks=masks, lambda_recon=0.1)  # at 1 it pulls embeddings to zero
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        first = {name: value.item() for name, value in model.loss(batch).items()}
        for step in range(100):
            terms = model.loss(batch)
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            if step % 20 == 19:
                model.end_epoch()
        assert terms["ce"].item() < 0.25 * first["ce"]
        assert terms["info"].item() < 0.25 * first["info"]


# --- gradients ---


def reached(model: IADSR, term: str) -> set[str]:
    """The parts of the model that a loss term moves."""
    model.zero_grad()
    model.loss(BATCH)[term].backward()
    return {
        name.split(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and (parameter.grad != 0).any()
    }


@pytest.mark.parametrize("masks", ["prefix", "user"])
@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_what_each_loss_reaches(backbone: str, masks: str) -> None:
    """Reconstruction reaches the projections through the mask alone, so it must be straight-through."""
    everything = {"items", "backbone", "project_long", "project_short"}
    head = set() if backbone in ("sasrec", "ligr") else {"head"}
    for epoch in range(2):  # the second with masks of the first
        model = iadsr(backbone, masks=masks)
        if epoch:
            sampled_epoch(model)
        assert reached(model, "ce") == {"items", "backbone"} | head
        assert reached(model, "info") == everything
        assert reached(model, "recon") == everything | {"decoder"}


def test_reconstruction_without_masks_leaves_the_projections() -> None:
    assert reached(iadsr("gru4rec", masks="none"), "recon") == {"items", "backbone", "decoder"}


@pytest.mark.parametrize(
    ("interests", "reach"), [("long", {"project_long", "project_short"}), ("short", {"project_short"})]
)
def test_reconstruction_reaches_the_projections_of_its_scores(interests: str, reach: set[str]) -> None:
    assert reached(iadsr("gru4rec", interests=interests), "recon") == reach | {"items", "backbone", "decoder"}


def test_temperatures_matter() -> None:
    """That of Gumbel-sigmoid scales the gradient through the masks, that of InfoNCE its loss."""
    gradients, losses = [], []
    for gumbel, info in ((1.0, 0.1), (0.5, 0.3)):
        model = iadsr("gru4rec", gumbel_temperature=gumbel, info_temperature=info)
        terms = model.loss(BATCH)
        losses.append(terms["info"].item())
        gradients.append(torch.autograd.grad(terms["recon"], model.project_short.weight)[0])
    assert not torch.allclose(gradients[0], gradients[1]) and losses[0] != pytest.approx(losses[1])


def test_remembered_masks_carry_no_gradient() -> None:
    model = iadsr("gru4rec")
    model.loss(BATCH)
    assert not model.mask_table.current.requires_grad
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}  # nor are they weights


def test_padding_s_embedding_stays_zero() -> None:
    model = iadsr("gru4rec", spread=None)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        torch.stack(list(model.loss(BATCH).values())).sum().backward()
        optimizer.step()
        model.end_epoch()
    assert (model.items.weight[0] == 0).all() and math.isfinite(model.loss(BATCH)["recon"].item())
