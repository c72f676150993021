"""fit(): the same bytes from the same seed, interrupted or not; early stopping; what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file
from small_models import (
    DIM,
    ITEMS,
    LENGTH,
    SETTINGS,
    WIDTH,
    iadsr_params,
    random_histories,
    sequences_of,
    small_config,
    train_params,
    write_means,
)
from torch import Tensor

from iadsr.errors import UserError
from iadsr.models import recommender
from iadsr.models.assembly import build
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.iadsr import alignment
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.models.ranking import rank_targets
from iadsr.models.recommender import Recommender
from iadsr.sequences.windows import Batch, Feed
from iadsr.train.average import Average
from iadsr.train.fit import EpochReport, fit, start, train_epoch
from iadsr.train.history import STOPPING_METRIC, read_history, write_history

pytestmark = pytest.mark.usefixtures("one_thread")
MAX_LENGTH = 4  # shorter than the longest training histories, so that windows move from epoch to epoch


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    """12 users with 1 to 8 training rows."""
    sequences = sequences_of(*random_histories(12, 10))
    return Feed(sequences, write_means(tmp_path / "encoded", sequences, MAX_LENGTH))


ABLATED = {"masks": "none", "lambda_info": 0.0, "lambda_recon": 0.0}


def fresh(kind: str, feed: Feed, backbone: str = "gru4rec", seed: int = 3) -> Recommender:
    """Built anew as the stage does: `none`, or IADSR with `prefix` or `user` masks or ablated, with dropout."""
    masks = iadsr_params(**(ABLATED if kind == "ablated" else {"masks": kind if kind != "none" else "prefix"}))
    config = ModelConfig(
        dataset="small",
        backbone=backbone,
        backbone_params={**SETTINGS[backbone], "dropout": 0.2},
        denoiser="none" if kind == "none" else "iadsr",
        denoiser_params={} if kind == "none" else masks.model_dump(),
        user_count=feed.sequences.users,
        item_count=ITEMS,
        dim=DIM,
        max_length=MAX_LENGTH,
        seed=seed,
        encodings={"dim": WIDTH},
    )
    return build(config, feed)


def trained(
    kind: str, feed: Feed, checkpoint: Path, epochs: int | None = None, backbone: str = "gru4rec", **changes: Any
) -> tuple[Recommender, list[EpochReport]]:
    """Train, or give up after so many epochs as a killed process would."""
    model, reports = fresh(kind, feed, backbone), []
    for report in fit(model, feed, train_params(**changes), MAX_LENGTH, 3, checkpoint):
        reports.append(report)
        if len(reports) == epochs:
            break
    return model, reports


def all_bytes(model: Recommender) -> bytes:
    """Weights, and what a denoiser keeps beside them."""
    return save({**model.state_dict(), **{f"extra.{name}": value for name, value in model.training_state().items()}})


KINDS = ("none", "prefix", "user")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes(kind: str, feed: Feed, tmp_path: Path) -> None:
    one, first = trained(kind, feed, tmp_path / "one")
    torch.rand(100)  # whatever happened before in the process
    other, second = trained(kind, feed, tmp_path / "other")
    assert all_bytes(one) == all_bytes(other)
    assert [report.figures for report in first] == [report.figures for report in second]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_another_seed_gives_another_model(feed: Feed, tmp_path: Path) -> None:
    model, _ = trained("none", feed, tmp_path / "one")
    other = fresh("none", feed, seed=4)
    list(fit(other, feed, train_params(), MAX_LENGTH, 4, tmp_path / "other"))
    assert all_bytes(model) != all_bytes(other)


def test_an_average_changes_what_is_kept_and_not_the_training(feed: Feed, tmp_path: Path) -> None:
    """Losses are the same to the last bit; validation and the weights at the end are others."""
    (last, plain), (mean, averaged) = (
        trained("prefix", feed, tmp_path / str(decay), average=decay, repeat="learned") for decay in (0.0, 0.9)
    )
    losses = [[report.figures["loss_ce"] for report in reports] for reports in (plain, averaged)]
    assert losses[0] == losses[1]
    assert [report.figures for report in plain] != [report.figures for report in averaged]
    assert all_bytes(last) != all_bytes(mean)


def test_killed_with_an_average_it_ends_the_same(feed: Feed, tmp_path: Path) -> None:
    expected, _ = trained("prefix", feed, tmp_path / "whole", average=0.9)
    for epochs in (1, 3):
        trained("prefix", feed, tmp_path / f"killed{epochs}", epochs, average=0.9)
        model, _ = trained("prefix", feed, tmp_path / f"killed{epochs}", average=0.9)
        assert all_bytes(model) == all_bytes(expected)
        assert (tmp_path / f"killed{epochs}").read_bytes() == (tmp_path / "whole").read_bytes()


def test_an_average_by_hand() -> None:
    """Decays are at most .1, 2/11 and 3/12 at first: early steps reach less far back. Of counts the newest is kept."""
    model, norm, average = build(small_config("none", "gru4rec")), torch.nn.BatchNorm1d(2), Average(0.5)
    model.add_module("norm", norm)
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            norm.weight.fill_(value)
        norm(torch.randn(3, 2))
        average.update(model)
    expected = torch.full((2,), 0.25 * (2 / 11 * 1.0 + 9 / 11 * 2.0) + 0.75 * 4.0)
    torch.testing.assert_close(average.weights["norm.weight"], expected)
    assert average.weights["norm.num_batches_tracked"] == 3
    with average.in_place(model):
        torch.testing.assert_close(norm.weight.detach(), expected)
    assert norm.weight.tolist() == [4, 4]


def test_item_embeddings_are_held_to_where_they_began(feed: Feed) -> None:
    """The harder, the less they have moved after three epochs."""
    moved = []
    for decay in (0.0, 1.0, 10.0):
        model, params = fresh("none", feed), train_params(item_decay=decay)
        begun, progress = model.items.weight.detach().clone(), start(model, params, 3)
        for _ in range(3):
            train_epoch(model, feed, params, MAX_LENGTH, progress, begun)
        moved.append((model.items.weight.detach() - begun).norm().item())
    assert moved[0] > moved[1] > moved[2]


def test_the_pull_of_a_step_by_hand(feed: Feed) -> None:
    """Its gradient is 2 decay / items times the distance; padding has none."""
    model, params = fresh("none", feed), train_params(item_decay=3.0, batch_size=100, learning_rate=1e-9)
    begun = model.items.weight.detach() + torch.arange(ITEMS + 1.0)[:, None]
    found = {}
    for name, held in (("free", None), ("held", begun)):
        progress = start(model, params, 3)
        figures = train_epoch(model, feed, params, MAX_LENGTH, progress, held)
        assert model.items.weight.grad is not None
        found[name] = model.items.weight.grad.clone()
    expected = -2 * 3.0 / ITEMS * torch.arange(ITEMS + 1.0)[:, None].expand(-1, DIM)
    torch.testing.assert_close(found["held"] - found["free"], expected, atol=1e-4, rtol=1e-4)
    assert figures["loss_held"] == pytest.approx(3.0 * DIM * sum(i * i for i in range(ITEMS + 1)) / ITEMS, rel=1e-4)


def test_killed_while_held_it_ends_the_same(feed: Feed, tmp_path: Path) -> None:
    """They are held to where the training began, not to where it went on."""
    expected, _ = trained("none", feed, tmp_path / "whole", item_decay=10.0)
    trained("none", feed, tmp_path / "killed", 2, item_decay=10.0)
    model, _ = trained("none", feed, tmp_path / "killed", item_decay=10.0)
    assert all_bytes(model) == all_bytes(expected)


@pytest.mark.parametrize(
    ("kind", "backbone"), [*((kind, "gru4rec") for kind in (*KINDS, "ablated")), ("prefix", "sasrec")]
)
def test_killed_after_any_epoch_it_ends_the_same(kind: str, backbone: str, feed: Feed, tmp_path: Path) -> None:
    """Weights, masks, generators, checkpoint and history are those of a run that was never interrupted."""
    expected, reports = trained(kind, feed, tmp_path / "whole", backbone=backbone)
    for epochs in (1, 2, 3, 4):
        path = tmp_path / f"killed{epochs}"
        trained(kind, feed, path, epochs, backbone)
        torch.manual_seed(99)  # a new process has drawn other numbers
        model, resumed = trained(kind, feed, path, backbone=backbone)
        assert all_bytes(model) == all_bytes(expected)
        assert path.read_bytes() == (tmp_path / "whole").read_bytes()
        assert [report.figures for report in resumed] == [report.figures for report in reports]
        assert [report.best for report in resumed] == [report.best for report in reports]
        assert [report.seconds is None for report in resumed] == [place < epochs for place in range(4)]


@pytest.mark.parametrize("kind", ["none", "prefix"])
def test_killed_under_a_sampled_loss_it_ends_the_same(kind: str, feed: Feed, tmp_path: Path) -> None:
    """Negatives and the sparse optimiser go on as well; and it is another training than that of the full loss."""
    sampled: Any = {"full_catalogue": ITEMS - 1}
    expected, reports = trained(kind, feed, tmp_path / "whole", **sampled)
    assert expected.settings.negatives == 6 and expected.items.weight.grad.is_sparse  # type: ignore[union-attr]
    trained(kind, feed, tmp_path / "killed", 2, **sampled)
    model, resumed = trained(kind, feed, tmp_path / "killed", **sampled)
    assert all_bytes(model) == all_bytes(expected)
    assert [report.figures for report in resumed] == [report.figures for report in reports]
    assert all_bytes(trained(kind, feed, tmp_path / "full")[0]) != all_bytes(expected)


def test_the_largest_full_catalogue(feed: Feed) -> None:
    """As many items as `full_catalogue` says are all scored; of one more some are sampled."""
    for most, negatives in ((ITEMS, None), (ITEMS - 1, 6)):
        model = fresh("none", feed)
        start(model, train_params(full_catalogue=most), 0)
        assert model.settings.negatives == negatives and model.items.sparse == (negatives is not None)


def test_products_are_in_the_format_asked_for(feed: Feed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of both losses over pairs, in every batch."""
    seen = set()

    def note(states: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype, *rest: Any) -> Tensor:
        seen.add(dtype)
        return original(states, table, targets, dtype, *rest)

    for module in (recommender, alignment):
        original = module.catalogue_cross_entropy
        monkeypatch.setattr(module, "catalogue_cross_entropy", note)
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        model, params = fresh("prefix", feed), train_params(dtype=name)
        train_epoch(model, feed, params, MAX_LENGTH, start(model, params, 0))
        assert seen == {dtype}
        seen.clear()


@pytest.mark.parametrize("key", ["weight_decay", "item_decay"])
def test_a_sampled_loss_takes_no_decay(key: str, feed: Feed, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"train\.{key}: must be 0"):
        trained("none", feed, tmp_path / "checkpoint", full_catalogue=0, **dict[str, Any]({key: 0.1}))


def test_a_denoiser_that_needs_the_loss_over_all_items(feed: Feed) -> None:
    """As many as `full_catalogue` says are all scored; one more is an error, before anything is trained."""
    model = build(small_config("steam", "none"))
    start(model, train_params(full_catalogue=ITEMS), 0)
    with pytest.raises(UserError, match=r"train\.full_catalogue: .* computes with all 12 in each batch"):
        start(model, train_params(full_catalogue=ITEMS - 1), 0)


def test_a_checkpoint_goes_on_with_its_number_of_threads(feed: Feed, tmp_path: Path) -> None:
    """Sums of floats depend on it; one_thread puts it back."""
    torch.set_num_threads(2)
    trained("none", feed, tmp_path / "checkpoint", 1)
    torch.set_num_threads(1)
    trained("none", feed, tmp_path / "checkpoint")
    assert torch.get_num_threads() == 2


def test_killed_twice_it_ends_the_same(feed: Feed, tmp_path: Path) -> None:
    expected, _ = trained("prefix", feed, tmp_path / "whole")
    trained("prefix", feed, tmp_path / "killed", 1)
    trained("prefix", feed, tmp_path / "killed", 3)
    assert all_bytes(trained("prefix", feed, tmp_path / "killed")[0]) == all_bytes(expected)


def test_masks_shape_the_second_epoch(feed: Feed, tmp_path: Path) -> None:
    """So the tests above do compare masked training: something was dropped, and masks hold it."""
    model, reports = trained("prefix", feed, tmp_path / "checkpoint")
    assert isinstance(model, IADSR) and (model.mask_table.previous < 255).any()
    assert all(0 < report.figures["drop_rate"] < 1 for report in reports)


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Validation metrics as given, epoch by epoch."""
    left = iter(values)
    monkeypatch.setattr("iadsr.train.fit.summarise", lambda ranks, cutoffs, prefix: {STOPPING_METRIC: next(left)})


def test_stops_after_patience_and_restores_the_best(
    feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Best at epoch 1 (0.3); epochs 2 (equal: no better) and 3 pass without improvement: stop, weights of epoch 1."""
    scripted(monkeypatch, [0.1, 0.3, 0.3, 0.2, 0.9])
    model, weights, reports = fresh("none", feed), [], []
    for report in fit(model, feed, train_params(patience=2, max_epochs=50), MAX_LENGTH, 3, tmp_path / "checkpoint"):
        weights.append(save(dict(model.state_dict())))
        reports.append(report)
    assert [report.best for report in reports] == [True, True, False, False]
    assert save(dict(model.state_dict())) == weights[1] != weights[3]
    assert not model.training


def test_resumed_it_stops_at_the_same_epoch(feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience is counted over the interruption, and the best weights are those from before it."""
    values = [0.3, 0.2, 0.1, 0.4]
    scripted(monkeypatch, values)
    whole, reports = trained("none", feed, tmp_path / "whole", patience=2, max_epochs=50)
    scripted(monkeypatch, values)
    trained("none", feed, tmp_path / "killed", 2, patience=2, max_epochs=50)
    model, resumed = trained("none", feed, tmp_path / "killed", patience=2, max_epochs=50)
    assert len(resumed) == len(reports) == 3
    assert all_bytes(model) == all_bytes(whole)


def test_ends_at_max_epochs(feed: Feed, tmp_path: Path) -> None:
    _, reports = trained("none", feed, tmp_path / "checkpoint", max_epochs=1)
    assert [report.epoch for report in reports] == [0] and reports[0].best


class Counting(Recommender):
    """One weight; the loss terms of a batch are the number of its windows and 1."""

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        zero = self.items.weight.sum() * 0
        return {"windows": zero + len(batch.items), "one": zero + 1}


def test_figures_are_means_over_batches(feed: Feed, tmp_path: Path) -> None:
    """12 users of up to 4 training rows each in batches of at most 5, evenly 4: losses 4, 4, 4 and 1, 1, 1."""
    short = Feed(sequences_of(*[[1, 2, 3, ITEMS]] * 12))
    torch.manual_seed(0)
    model = Counting(ITEMS, DIM, fresh("none", feed).backbone)
    params = train_params()
    figures = train_epoch(model, short, params, MAX_LENGTH, start(model, params, 0))
    assert figures == {"loss_windows": 4.0, "loss_one": 1.0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(value: float, feed: Feed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recommender, "cross_entropy", lambda self, *rest, **more: self.items.weight.sum() * value)
    with pytest.raises(UserError, match=r"train\.learning_rate: .* epoch 0; lower the rate"):
        trained("none", feed, tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


def test_weights_that_are_no_numbers_are_not_the_best(feed: Feed, tmp_path: Path) -> None:
    """A last step that breaks the weights shows in no loss of its epoch; a NaN score must not win the ranking."""
    model = fresh("none", feed)
    with torch.no_grad():
        model.items.weight[1:] = math.nan
    ranks = rank_targets(model.eval(), feed, "validation", MAX_LENGTH)
    assert set(ranks.unfiltered.tolist()) == {(ITEMS + 1) / 2}


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\xff" * 100])
def test_a_corrupt_checkpoint(content: bytes, feed: Feed, tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(
        UserError, match=r"checkpoint: not a checkpoint of this training; it is checkpoint.damaged now, and the"
    ):
        trained("none", feed, tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint.damaged").read_bytes() == content
    trained("none", feed, tmp_path / "checkpoint", 1)


def test_a_checkpoint_cut_short_or_of_something_else(feed: Feed, tmp_path: Path) -> None:
    """Half a file; a tensor file without our header; one of another model."""
    path = tmp_path / "checkpoint"
    trained("none", feed, path, 1)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="begins anew"):
        trained("none", feed, path)
    save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="begins anew"):
        trained("none", feed, path)
    save_file({"weight": torch.zeros(1)}, path, {"progress": '{"history": [], "best_epoch": -1}'})
    with pytest.raises(UserError, match="begins anew"):
        trained("none", feed, path)
    trained("none", feed, path, 1)
    with pytest.raises(UserError, match="begins anew"):
        trained("prefix", feed, path)


def test_history_goes_round(tmp_path: Path) -> None:
    """One row an epoch, numbered from 0; every float comes back as it was."""
    history = [{"loss_ce": 1 / 3, STOPPING_METRIC: 0.0}, {"loss_ce": 1e-17, STOPPING_METRIC: 0.25}]
    write_history(tmp_path / "history.csv", history)
    assert read_history(tmp_path / "history.csv", 2) == history
    assert (tmp_path / "history.csv").read_text().splitlines()[0] == f"epoch,loss_ce,{STOPPING_METRIC}"


def test_windows_without_any_target_can_be_trained_on(feed: Feed) -> None:
    """Users with one training row only: the loss is 0, and so is every step."""
    short = Feed(sequences_of([1, 2, 3], [4, 5, ITEMS]))
    model, params = fresh("none", feed), train_params()
    figures = train_epoch(model, short, params, LENGTH, start(model, params, 0))
    assert figures == {"loss_ce": 0.0}
