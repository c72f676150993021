"""ADT against losses taken position by position; what it leaves out, what it weighs, and what it says of an item."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from small_models import (
    DIM,
    EVERY_BACKBONE,
    ITEMS,
    LENGTH,
    at,
    batch_of,
    committed,
    padded,
    random_histories,
    sequences_of,
    small_backbone,
    small_config,
    spread_out,
    train_params,
    with_future,
)
from torch import Tensor

from iadsr.errors import UserError
from iadsr.models.assembly import build, denoiser_params
from iadsr.models.denoisers import adt as module
from iadsr.models.denoisers.adt import ADT, ADTParams
from iadsr.models.recommender import LossSettings, Recommender
from iadsr.params import read_params
from iadsr.sequences.windows import Batch, Feed
from iadsr.train.fit import fit, start

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])  # 4 + 1 + 0 + 3 positions with a target
BATCH = batch_of(*WINDOWS)


def adt(backbone: str = "gru4rec", seed: int = 0, spread: float | None = 0.5, **changes: Any) -> ADT:
    """At its largest share from the second batch on."""
    torch.manual_seed(seed)
    params = committed("adt", **{"gradual_steps": 1, "largest_share": 0.5, **changes})
    assert isinstance(params, ADTParams)
    model: ADT = spread_out(ADT(ITEMS, DIM, small_backbone(backbone), params), spread)
    return model


def at_full_share(model: ADT) -> ADT:
    """After its first batch, of which nothing is left out."""
    model.loss(BATCH)
    model.end_epoch()
    return model


def losses_one_by_one(model: Recommender, batch: Batch) -> dict[tuple[int, int], Tensor]:
    """-log softmax over all items of each (window, position) with a target, of a prefix that is encoded by itself."""
    found = {}
    for window, place in (batch.targets > 0).nonzero().tolist():
        prefix = batch.items[window : window + 1, : place + 1]
        state = model.head(model.prefix_states(prefix)[0, -1])
        logits = model.items.weight[1:] @ state
        found[window, place] = logits.logsumexp(0) - logits[batch.targets[window, place] - 1]
    return found


def in_order(model: Recommender) -> list[Tensor]:
    """Of the batch, the smallest first."""
    return sorted(losses_one_by_one(model, BATCH).values(), key=Tensor.item)


# --- truncated ---


@pytest.mark.parametrize(
    ("steps", "shares"), [(5, [0, 0.05, 0.1, 0.15, 0.2, 0.2]), (2, [0, 0.2, 0.2]), (1, [0, 0.2, 0.2])]
)
def test_the_share_by_hand(steps: int, shares: list[float]) -> None:
    """numpy.linspace(0, 0.2, steps)[batch], as the released code has it, and 0.2 from then on."""
    model, found = adt(largest_share=0.2, gradual_steps=steps), []
    for _ in shares:
        found.append(model.share())
        model.loss(BATCH)
    assert found == pytest.approx(shares)


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_the_largest_losses_are_left_out(backbone: str) -> None:
    """Half of the eight: the loss and its gradient are those of the mean of the four smallest."""
    model = at_full_share(adt(backbone))
    expected, found = torch.stack(in_order(model)[:4]).mean(), model.loss(BATCH)["ce"]
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(value, [*model.parameters()]) for value in (found, expected))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert model.end_epoch() == {"drop_rate": 0.5}


@pytest.mark.parametrize(("share", "count"), [(0.12, 0), (0.13, 1), (0.99, 7)])
def test_whole_positions_are_left_out(share: float, count: int) -> None:
    """Of eight, rounded down: so something is always left."""
    model = at_full_share(adt(largest_share=share))
    expected = torch.stack(in_order(model)[: 8 - count]).mean()
    torch.testing.assert_close(model.loss(BATCH)["ce"], expected)
    assert model.end_epoch() == {"drop_rate": count / 8}


def test_the_first_batch_loses_nothing() -> None:
    model = adt()
    torch.testing.assert_close(model.loss(BATCH)["ce"], torch.stack(in_order(model)).mean())
    assert model.threshold == math.inf and model.end_epoch() == {"drop_rate": 0}


def test_the_threshold_by_hand() -> None:
    """The first batch's 4 sets it; 6 moves it a hundredth of the way, to 4.02; 2.02 to 4.00."""
    model = adt()
    for smallest, threshold in ((4.0, 4.0), (6.0, 4.02), (2.02, 4.0)):
        model.move_threshold(torch.tensor(smallest))
        assert model.threshold.item() == pytest.approx(threshold)


def test_the_threshold_is_the_smallest_loss_left_out() -> None:
    """The fourth largest of eight."""
    model = at_full_share(adt())
    expected = in_order(model)[4].detach()
    model.loss(BATCH)
    torch.testing.assert_close(model.threshold, expected)


def test_a_planted_target_is_not_learnt() -> None:
    """Of 18 positions the one that contradicts two others is left out; the rest is learnt by heart, and is kept."""
    batch = batch_of([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], [1, 2, 3, 9])
    model = adt(spread=None, largest_share=0.06, gradual_steps=50)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    first = model.loss(batch)["ce"].item()
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(batch)["ce"]
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first
    dropped = ~model.eval().judge(batch).kept
    assert dropped.nonzero().tolist() == [[3, 3]]


# --- reweighted ---


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_losses_are_weighted_by_a_power_of_their_probability(backbone: str) -> None:
    """Mean of p^0.3 * -log p over the eight positions; in the gradient p^0.3 is a constant."""
    model = adt(backbone, loss="reweighted", alpha=0.3)
    losses = torch.stack(in_order(model))
    weights = torch.exp(-losses.detach()) ** 0.3
    expected, found = (weights * losses).sum() / 8, model.loss(BATCH)["ce"]
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(value, [*model.parameters()]) for value in (found, expected))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert model.end_epoch() == pytest.approx({"weight": weights.mean().item()})
    assert model.end_epoch() == {"weight": 0}


# --- without its part it is the plain recommender ---


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
@pytest.mark.parametrize("nothing", [{"largest_share": 0.0}, {"loss": "reweighted", "alpha": 0.0}])
def test_without_its_part_it_is_the_plain_recommender(backbone: str, nothing: dict[str, Any], tmp_path: Path) -> None:
    """The same seed gives the same losses in every epoch, and the same weights, to the last bit."""
    feed = Feed(sequences_of(*random_histories(12, 8)))
    ends, losses = [], []
    for denoiser, changes in (("none", {}), ("adt", {"gradual_steps": 1, **nothing})):
        model = build(small_config(denoiser, backbone, dropout=0.2, **changes), feed)
        reports = fit(model, feed, train_params(max_epochs=2), LENGTH, 3, tmp_path / denoiser)
        losses.append([report.figures["loss_ce"] for report in reports])
        ends.append(save({name: value for name, value in model.state_dict().items() if name != "threshold"}))
    assert losses[0] == losses[1] and ends[0] == ends[1]


# --- verdicts ---


def test_verdicts_are_about_items_as_targets() -> None:
    """An item's loss after the items before it, against the threshold; a window's first item has none."""
    model = adt().eval()
    model.threshold.fill_(3.0)
    found, losses = model.judge(BATCH), losses_one_by_one(model, BATCH)
    for window, items in enumerate(WINDOWS):
        assert found.score[window, 0].isnan() and found.kept[window, 0] and found.probability[window, 0] == 1
        for place in range(1, len(items)):
            score = 3 - losses[window, place - 1].item()
            assert found.score[window, place].item() == pytest.approx(score, abs=1e-5)
            assert found.kept[window, place] == (score > 0) == (found.probability[window, place] == 1)
    assert not found.kept[BATCH.valid].all()


def test_verdicts_before_anything_was_left_out() -> None:
    """There is no threshold, so there are no scores."""
    found = adt().judge(BATCH)
    assert found.kept.all() and found.score.isnan().all() and (found.probability == 1).all()


def test_verdicts_of_weights() -> None:
    """All are kept, and would be by a sampled decision; the score is the weight that the item has as a target."""
    model = adt(loss="reweighted", alpha=0.3).eval()
    found, losses = model.judge(BATCH), losses_one_by_one(model, BATCH)
    assert found.kept.all() and (found.probability == 1).all() and found.score[:, 0].isnan().all()
    for (window, place), loss in losses.items():
        weight = math.exp(-loss.item()) ** 0.3
        assert found.score[window, place + 1].item() == pytest.approx(weight, rel=1e-4)


@pytest.mark.parametrize("loss", ["truncated", "reweighted"])
@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_a_verdict_has_not_seen_what_comes_later(loss: str, backbone: str) -> None:
    """Within one window, too: other items after position p leave the verdicts up to p as they were."""
    model = adt(backbone, loss=loss)
    model.threshold.fill_(3.0)
    for place in range(4):
        one, other = (model.judge(batch) for batch in (BATCH, with_future(BATCH, place)))
        until = slice(None), slice(place + 1)
        torch.testing.assert_close(one.score[until], other.score[until], equal_nan=True)
        assert torch.equal(one.kept[until], other.kept[until])


# --- training ---


@pytest.mark.parametrize("loss", ["truncated", "reweighted"])
def test_padding_and_order_change_no_loss(loss: str) -> None:
    model, order = at_full_share(adt(loss=loss)), torch.tensor([2, 0, 3, 1])
    expected = model.loss(BATCH)["ce"]
    torch.testing.assert_close(model.loss(padded(BATCH, 1))["ce"], expected)
    torch.testing.assert_close(model.loss(at(BATCH, order))["ce"], expected)


def test_losses_are_in_the_format_of_the_products_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.dtype] = []

    def note(states: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        seen.append(dtype)
        return torch.ones(len(states))

    monkeypatch.setattr(module, "catalogue_losses", note)
    for loss in ("truncated", "reweighted"):
        model = adt(loss=loss)
        model.settings = LossSettings(torch.bfloat16)
        at_full_share(model).loss(BATCH)
        model.eval().judge(BATCH)
    assert seen == [torch.bfloat16, torch.float32, torch.bfloat16, torch.bfloat16, torch.float32]


@pytest.mark.parametrize("loss", ["truncated", "reweighted"])
def test_killed_in_the_middle_of_the_schedule_it_ends_the_same(loss: str, tmp_path: Path) -> None:
    """Three batches an epoch, the largest share after the seventh: threshold and weights go on."""
    feed = Feed(sequences_of(*random_histories(12, 8)))
    changes: Any = {"loss": loss, "largest_share": 0.5, "gradual_steps": 7}

    def trained(checkpoint: Path, epochs: int) -> tuple[bytes, list[dict[str, float]]]:
        model = build(small_config("adt", "gru4rec", dropout=0.2, **changes), feed)
        figures = []
        for report in fit(model, feed, train_params(), LENGTH, 3, checkpoint):
            figures.append(report.figures)
            if report.epoch + 1 == epochs:
                break
        return save(dict(model.state_dict())), figures

    expected, figures = trained(tmp_path / "whole", 0)
    if loss == "truncated":
        rates = [row["drop_rate"] for row in figures]
        assert 0 < rates[0] < rates[1] < rates[3] <= 0.5
    for epochs in (1, 2, 3):
        trained(tmp_path / f"killed{epochs}", epochs)
        assert trained(tmp_path / f"killed{epochs}", 0) == (expected, figures)


def test_its_loss_cannot_be_sampled() -> None:
    """With as many items as `full_catalogue` says it trains; one more is refused."""
    start(adt(), train_params(full_catalogue=ITEMS), 0)
    with pytest.raises(UserError, match=r"train\.full_catalogue: 11 items, .* all 12"):
        start(adt(), train_params(full_catalogue=ITEMS - 1), 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("loss", "dropped"), ("largest_share", 1.0), ("largest_share", -0.1), ("gradual_steps", 0), ("alpha", 1.5)],
)
def test_wrong_parameters_are_named(name: str, value: Any) -> None:
    content = read_params(Path(__file__).parents[3] / "params.yaml")
    content["denoisers"]["adt"][name] = value
    with pytest.raises(UserError, match=rf"adt\.{name}: "):
        denoiser_params(content, "adt")


def test_a_large_loss_still_weighs_something() -> None:
    """So that a score is above 0 where an item is kept: 87 is the largest loss there is."""
    weights = adt(loss="reweighted", alpha=1.0).weights(torch.tensor([0.0, 87.0, -0.001]))
    assert (weights > 0).all() and weights[0] == 1 == weights[2]
