"""What every denoiser must keep over each of its backbones: nothing later is seen, padding and order are nothing."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from small_models import (
    ITEMS,
    LENGTH,
    at,
    batch_of,
    padded,
    random_histories,
    sequences_of,
    small_config,
    spread_out,
    train_params,
    write_means,
)
from torch import Tensor

from iadsr.models.assembly import backbones_of, build
from iadsr.models.denoisers.registry import DENOISERS
from iadsr.models.files import load_model, save_model
from iadsr.models.recommender import Recommender, Verdicts
from iadsr.models.verdicts import judge_all
from iadsr.schemas import TEST, VALIDATION
from iadsr.sequences.windows import Batch, Feed, history_windows
from iadsr.train.fit import fit, start, train_epoch

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
BATCH = batch_of(*WINDOWS)
COMBINATIONS = [(denoiser, backbone) for denoiser in DENOISERS for backbone in backbones_of(denoiser)]


@pytest.fixture
def feed(tmp_path: Path) -> Feed:
    sequences = sequences_of(*random_histories(12, 8))
    return Feed(sequences, write_means(tmp_path / "encoded", sequences))


def fresh(denoiser: str, backbone: str, feed: Feed, seed: int = 0) -> Recommender:
    return build(small_config(denoiser, backbone, seed=seed), feed)


def trained(denoiser: str, backbone: str, feed: Feed) -> Recommender:
    """With weights as large as a trained model's, and an epoch behind it."""
    model = spread_out(fresh(denoiser, backbone, feed), 0.5)
    model.loss(BATCH)
    model.end_epoch()
    return model


def same(one: Verdicts, other: Verdicts, where: Tensor) -> None:
    for entry in fields(Verdicts):
        torch.testing.assert_close(getattr(one, entry.name)[where], getattr(other, entry.name)[where], equal_nan=True)


@pytest.mark.parametrize(("denoiser", "backbone"), COMBINATIONS)
class TestEveryDenoiser:
    def test_padding_changes_nothing(self, denoiser: str, backbone: str, feed: Feed) -> None:
        model = trained(denoiser, backbone, feed).eval()
        wider = padded(BATCH, 1)
        torch.testing.assert_close(model.states(wider), model.states(BATCH))
        for entry in fields(Verdicts):
            found = getattr(model.judge(wider), entry.name)[wider.valid]
            torch.testing.assert_close(found, getattr(model.judge(BATCH), entry.name)[BATCH.valid], equal_nan=True)

    def test_order_of_the_batch_does_not_matter(self, denoiser: str, backbone: str, feed: Feed) -> None:
        model, order = trained(denoiser, backbone, feed).eval(), torch.tensor([2, 0, 3, 1])
        torch.testing.assert_close(model.states(at(BATCH, order)), model.states(BATCH)[order])
        for entry in fields(Verdicts):
            found, expected = (getattr(model.judge(batch), entry.name) for batch in (at(BATCH, order), BATCH))
            torch.testing.assert_close(found, expected[order], equal_nan=True)

    def test_a_batch_of_one_is_its_part_of_a_larger_one(self, denoiser: str, backbone: str, feed: Feed) -> None:
        model = trained(denoiser, backbone, feed).eval()
        for row, items in enumerate(WINDOWS):
            one = cut(at(BATCH, slice(row, row + 1)), len(items))
            torch.testing.assert_close(model.states(one)[0], model.states(BATCH)[row])

    def test_verdicts_are_consistent(self, denoiser: str, backbone: str, feed: Feed) -> None:
        """Probabilities are such; a score above 0 keeps and one below drops."""
        found = trained(denoiser, backbone, feed).eval().judge(BATCH)
        probability, score, kept = (getattr(found, name)[BATCH.valid] for name in ("probability", "score", "kept"))
        assert ((probability >= 0) & (probability <= 1)).all()
        assert kept[score > 0].all() and not kept[score < 0].any()

    def test_loss_terms_have_gradients(self, denoiser: str, backbone: str, feed: Feed) -> None:
        model = trained(denoiser, backbone, feed).train()
        loss = model.loss(BATCH)
        assert "ce" in loss and all(value.isfinite() for value in loss.values())
        torch.stack(list(loss.values())).sum().backward()
        assert model.items.weight.grad is not None and model.items.weight.grad.isfinite().all()
        assert model.items.weight.grad[1:].abs().sum() > 0 and model.items.weight.grad[0].abs().sum() == 0

    def test_nothing_to_predict(self, denoiser: str, backbone: str, feed: Feed) -> None:
        """Windows of one item have no next item; the loss can be differentiated all the same."""
        model = trained(denoiser, backbone, feed).train()
        loss = model.loss(batch_of([3], [4]))
        torch.stack(list(loss.values())).sum().backward()
        assert all(value.isfinite() for value in loss.values())

    def test_goes_round(self, denoiser: str, backbone: str, feed: Feed, tmp_path: Path) -> None:
        """A saved model needs no data set, and gives the same states."""
        model = trained(denoiser, backbone, feed).eval()
        save_model(tmp_path, model, small_config(denoiser, backbone))
        loaded, _ = load_model(tmp_path, torch.device("cpu"))
        assert torch.equal(loaded.states(BATCH), model.states(BATCH))

    def test_the_same_seed_gives_the_same_loss(self, denoiser: str, backbone: str, feed: Feed) -> None:
        found = []
        for seed in (1, 1, 2):
            model = fresh(denoiser, backbone, feed, seed)
            torch.manual_seed(seed)
            found.append(save({name: value.detach() for name, value in model.loss(BATCH).items()}))
        assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("denoiser", "backbone"), [each for each in COMBINATIONS if each[0] not in ("iadsr", "ssdrec", "steam")]
)  # these in files of their own
def test_learns_one_batch_by_heart(denoiser: str, backbone: str, feed: Feed) -> None:
    """After at most 300 steps the item after every prefix is the first of the list."""
    model = fresh(denoiser, backbone, feed)
    batch = batch_of([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        model.train()
        for _ in range(10):
            optimizer.zero_grad()
            torch.stack(list(model.loss(batch).values())).sum().backward()
            optimizer.step()
        model.end_epoch()
        if knows(model.eval(), batch):
            break
    assert knows(model, batch)


@torch.no_grad()
def knows(model: Recommender, batch: Batch) -> bool:
    """Whether the next item of every prefix scores highest."""
    found = [model.states(cut(batch, length)) @ model.item_table()[1:].T for length in range(1, batch.items.shape[1])]
    return torch.equal(torch.stack(found, dim=1).argmax(2) + 1, batch.items[:, 1:])


@pytest.mark.parametrize(("denoiser", "backbone"), COMBINATIONS)
def test_held_out_items_change_nothing_before_them(denoiser: str, backbone: str, tmp_path: Path) -> None:
    """Two epochs with other test items give the same weights, verdicts, and states before them, to the last bit.

    With other validation items, too, all but the states and verdicts that may see a validation item. Each method's own
    tests look into a single window; this one into whatever it computes of a data set, graphs and thresholds included.
    """
    histories = random_histories(12, 8)
    found = [trained_on(part, denoiser, backbone, tmp_path) for part in (histories, *with_other_ends(histories))]
    weights, verdicts, states = zip(*found, strict=True)
    assert weights[0] == weights[1] == weights[2]
    assert torch.equal(states[0][VALIDATION], states[1][VALIDATION])
    assert torch.equal(states[0][VALIDATION], states[2][VALIDATION])
    assert torch.equal(states[0][TEST], states[1][TEST]) and not torch.equal(states[0][TEST], states[2][TEST])
    ends = torch.tensor([len(history) for history in histories]).cumsum(0)
    held_out = torch.zeros(len(verdicts[0].kept), dtype=torch.bool)
    held_out[ends - 1] = True
    same(verdicts[0], verdicts[1], ~held_out)
    held_out[ends - 2] = True
    same(verdicts[0], verdicts[2], ~held_out)


def with_other_ends(histories: list[list[int]]) -> list[list[list[int]]]:
    """Other test items; other validation and test items."""
    others = [[*history[:-1], history[-1] % ITEMS + 1] for history in histories]
    return [others, [[*history[:-2], history[-2] % ITEMS + 1, history[-1]] for history in others]]


def trained_on(
    histories: list[list[int]], denoiser: str, backbone: str, tmp_path: Path
) -> tuple[bytes, Verdicts, dict[str, Tensor]]:
    """Weights after two epochs, verdicts on all rows, and the states before the validation and the test items."""
    sequences = sequences_of(*histories)
    feed = Feed(sequences, write_means(tmp_path / "encoded", sequences))
    model, params = build(small_config(denoiser, backbone, dropout=0.2), feed), train_params()
    progress = start(model, params, 3)
    for _ in range(2):
        train_epoch(model, feed, params, LENGTH, progress)
    model.eval()
    windows = {split: history_windows(sequences, split, LENGTH) for split in (VALIDATION, TEST)}
    with torch.no_grad():
        states = {split: model.states(feed.batch(own)) for split, own in windows.items()}
    return save(model.state_dict()), judge_all(model, feed, LENGTH), states


@pytest.mark.parametrize(("denoiser", "backbone"), COMBINATIONS)
def test_killed_after_any_epoch_it_ends_the_same(denoiser: str, backbone: str, feed: Feed, tmp_path: Path) -> None:
    """Weights and checkpoint are those of a run that was never interrupted, dropout and drawn prefixes included."""

    def trained(checkpoint: Path, epochs: int) -> bytes:
        model = build(small_config(denoiser, backbone, dropout=0.2), feed)
        for report in fit(model, feed, train_params(prefixes=2), LENGTH, 3, checkpoint):
            if report.epoch + 1 == epochs:
                break
        return save(model.state_dict())

    expected = trained(tmp_path / "whole", 0)
    for epochs in (1, 2, 3):
        path = tmp_path / f"killed{epochs}"
        trained(path, epochs)
        torch.manual_seed(99)  # a new process has drawn other numbers
        assert trained(path, 0) == expected
        assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def cut(batch: Batch, length: int) -> Batch:
    """The first items of each window."""
    assert batch.text_vectors is not None
    rows, items, targets = (values[:, :length] for values in (batch.rows, batch.items, batch.targets))
    return Batch(rows, items, targets, batch.users, batch.text_vectors[:, :length])


def test_every_denoiser_is_tested() -> None:
    assert {denoiser for denoiser, _ in COMBINATIONS} == set(DENOISERS)
    assert ITEMS >= 12 and LENGTH >= 6  # what the batches above hold
