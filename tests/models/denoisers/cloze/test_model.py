"""What training makes of the probability that an interaction is clean, against windows and loops made by hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detectors import detector, detector_params
from small_models import (
    EVERY_BACKBONE,
    ITEMS,
    LENGTH,
    alone,
    batch_of,
    random_histories,
    sequences_of,
    small_config,
    spread_out,
    write_means,
)
from torch import Tensor

from iadsr.models.assembly import build
from iadsr.models.denoisers.cloze.model import Cloze, ClozeParams
from iadsr.models.recommender import Recommender
from iadsr.schemas import TRAIN
from iadsr.sequences.windows import Batch, Feed, training_tail_windows

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2, 7], [6, 8], [5, 3, 5, 8, 9, 7])
BATCH = batch_of(*WINDOWS)  # of 16 rows
DROPPED = torch.tensor([1, 0, 1, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1], dtype=torch.bool)


def cloze(inputs: str, targets: str, backbone: str = "gru4rec", theta: float = -1.0, feed: Feed | None = None) -> Cloze:
    """With a detector of large weights, and what `clean` says of the rows of BATCH: about half are dropped."""
    own: dict[str, Any] = {"inputs": inputs, "targets": targets, "detector": detector_params().model_dump()}
    own["drop_above"] = 0.5
    model = build(small_config("cloze", backbone, **own), feed)
    assert isinstance(model, Cloze)
    model.params = model.params.model_copy(update={"theta": theta})
    spread_out(model, 0.5).detector.load_state_dict(detector().state_dict())
    drawn = torch.rand(len(DROPPED), generator=torch.Generator().manual_seed(0)) / 2
    model.clean = torch.where(DROPPED, drawn, 0.5 + drawn)
    return model.eval()


def plain_loss(model: Cloze, batch: Batch) -> Tensor:
    """Of a recommender that has the same weights and no denoiser."""
    return Recommender.loss(model, batch)["ce"]


def of_each(values: Tensor) -> list[Tensor]:
    """What a tensor by row says of each window."""
    return list(values.split([len(window) for window in WINDOWS]))


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_raw_is_the_plain_loss(backbone: str) -> None:
    model = cloze("raw", "raw", backbone)
    assert torch.equal(model.loss(BATCH)["ce"], plain_loss(model, BATCH))


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_dropped_is_the_plain_loss_without_what_is_dropped(backbone: str) -> None:
    """The first window begins with a dropped item; of the third nothing is left."""
    model = cloze("dropped", "dropped", backbone)
    kept = [
        [item for item, drop in zip(window, drops, strict=True) if not drop]
        for window, drops in zip(WINDOWS, of_each(DROPPED), strict=True)
    ]
    assert kept == [[1, 1, 5], [9, 7], [], [5, 3, 9]]
    torch.testing.assert_close(model.loss(BATCH)["ce"], plain_loss(model, batch_of(*filter(None, kept))))


@pytest.mark.parametrize(("inputs", "targets"), [("raw", "dropped"), ("dropped", "raw"), ("dropped", "dropped")])
def test_windows_of_which_nothing_is_left(inputs: str, targets: str) -> None:
    """Nothing is predicted, and gradients are 0."""
    model = cloze(inputs, targets)
    model.clean.zero_()
    loss = model.loss(BATCH)["ce"]
    loss.backward()
    gradients = [each.grad for each in model.backbone.parameters()]
    assert loss.item() == 0 and not any(each is not None and each.any() for each in gradients)


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_sampled_is_dropped_by_what_was_drawn(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs and targets by the same draws, from the probabilities of each window's rows and of the row after it."""
    model, drawn = cloze("sampled", "sampled", backbone), DROPPED.flip(0)
    seen: list[Tensor] = []

    def bernoulli(clean: Tensor) -> Tensor:
        seen.append(clean)
        rows = (BATCH.rows[:, :1] + torch.arange(clean.shape[1])).clamp(max=len(drawn) - 1)
        return drawn[rows].float()

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    found, (clean,) = model.loss(BATCH)["ce"], seen
    assert clean[:, :-1][BATCH.valid].tolist() == model.clean.tolist()
    assert [clean[n, len(w)].item() for n, w in enumerate(WINDOWS[:-1])] == [
        p[0].item() for p in of_each(model.clean)[1:]
    ]
    model.params = model.params.model_copy(update={"inputs": "dropped", "targets": "dropped"})
    model.clean = drawn.float()
    torch.testing.assert_close(found, model.loss(BATCH)["ce"])


@pytest.mark.parametrize(("inputs", "targets"), [("sampled", "raw"), ("raw", "sampled"), ("sampled", "sampled")])
def test_what_is_certain_is_not_left_to_chance(inputs: str, targets: str) -> None:
    model, certain = cloze(inputs, targets), (~DROPPED).float()
    model.clean = certain
    found = model.loss(BATCH)["ce"]
    model.params = ClozeParams.model_validate(
        {
            **model.params.model_dump(),
            **{name: use.replace("sampled", "dropped") for name, use in (("inputs", inputs), ("targets", targets))},
        }
    )
    torch.testing.assert_close(found, model.loss(BATCH)["ce"])


def test_what_is_left_out_at_random_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interaction that is clean with probability p is kept with three quarters of it; otherwise as without."""
    model, asked, losses = cloze("sampled", "sampled"), list[Tensor](), []

    def bernoulli(clean: Tensor) -> Tensor:
        asked.append(clean)
        return torch.ones_like(clean)

    monkeypatch.setattr(torch, "bernoulli", bernoulli)
    for share in (0.0, 0.25):
        model.params = model.params.model_copy(update={"random_drop": share})
        losses.append(model.loss(BATCH)["ce"])
    assert torch.equal(asked[1], 0.75 * asked[0]) and torch.equal(*losses)


def test_other_interactions_are_left_out_each_time() -> None:
    model = cloze("sampled", "sampled")
    torch.manual_seed(0)
    first, second = (model.loss(BATCH)["ce"].item() for _ in range(2))
    torch.manual_seed(0)
    assert model.loss(BATCH)["ce"].item() == first != second


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
@pytest.mark.parametrize(("inputs", "targets"), list(product(["raw", "weighted", "dropped"], repeat=2)))
def test_loss_is_that_of_a_loop(inputs: str, targets: str, backbone: str) -> None:
    """Each prefix is encoded by itself; the mean over targets goes by their weights."""
    model = cloze(inputs, targets, backbone)
    total, count = torch.zeros(()), torch.zeros(())
    for window, clean in zip(WINDOWS, of_each(model.clean), strict=True):
        for place in range(1, len(window)):
            state = literal_state(model, window[:place], clean[:place])
            if state is not None:
                logits = model.head(state) @ model.items.weight[1:].T
                weight = weights(targets, clean[place])
                total = total - weight * torch.log_softmax(logits, 0)[window[place] - 1]
                count = count + weight
    torch.testing.assert_close(model.loss(BATCH)["ce"], total / count)


def weights(use: str, clean: Tensor) -> Tensor:
    return {"raw": torch.ones_like(clean), "weighted": clean, "dropped": (clean >= 0.5).float()}[use]


def literal_state(model: Cloze, items: list[int], clean: Tensor) -> Tensor | None:
    """Of one prefix; None where nothing is left of it."""
    if model.params.inputs != "dropped":
        return alone(model, items, weights(model.params.inputs, clean))
    kept = [item for item, own in zip(items, clean, strict=True) if own >= 0.5]
    return alone(model, kept, torch.ones(len(kept))) if kept else None


# --- verdicts ---


def test_a_window_whose_views_agree_less_than_theta_is_not_denoised() -> None:
    """Of 4 windows the 2 that agree least keep all items."""
    noise, agreement, _ = cloze("raw", "raw").detector.judge(BATCH)
    theta = agreement.sort().values[2].item()
    found = cloze("raw", "raw", theta=theta).judge(BATCH)
    spared = agreement < theta
    assert spared.sum() == 2 and (found.probability[spared] == 1).all() and found.kept[spared].all()
    torch.testing.assert_close(found.probability[~spared], 1 - noise[~spared])


@pytest.mark.parametrize("clean", [0.0, 0.25, 0.5 - 2**-25, 0.5, 0.75, 1.0])
def test_scores_by_hand(clean: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logarithm of the odds, finite at the ends; below 0 exactly where the item is dropped."""
    monkeypatch.setattr(Cloze, "clean_probability", lambda self, batch: torch.full(batch.items.shape, clean))
    found = cloze("raw", "raw").judge(BATCH)
    expected = torch.logit(torch.tensor(clean, dtype=torch.float64), eps=1e-6).item()
    assert found.score[0, 0].item() == pytest.approx(expected, abs=1e-6, rel=1e-2)
    assert (found.score < 0).equal(~found.kept) and found.kept.all().item() is (clean >= 0.5)


@pytest.mark.parametrize(("noise", "kept"), [(0.79, True), (0.81, False)])
def test_what_is_noise_with_more_than_a_probability_is_dropped(
    noise: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the verdicts, and by what training uses."""
    monkeypatch.setattr(Cloze, "clean_probability", lambda self, batch: torch.full(batch.items.shape, 1 - noise))
    model = cloze("dropped", "dropped")
    model.params = model.params.model_copy(update={"drop_above": 0.8})
    model.clean = torch.full_like(model.clean, 1 - noise)
    assert (model.judge(BATCH).kept == kept).all() and bool(model.loss(BATCH)["ce"] > 0) is kept


def test_all_training_rows_are_judged_and_no_others(tmp_path: Path) -> None:
    """In tiles from the end; what is held out counts as clean."""
    sequences = sequences_of(*random_histories(12, 2 * LENGTH))
    feed = Feed(sequences, write_means(tmp_path / "encoded", sequences))
    model = cloze("raw", "raw", feed=feed)
    model.detector.read(torch.randn(ITEMS + 1, model.detector.texts.shape[1]))
    model.weigh(feed, LENGTH)
    batch, expected = feed.batch(training_tail_windows(sequences, LENGTH)), torch.ones(len(sequences.items))
    expected[batch.rows[batch.valid]] = model.clean_probability(batch)[batch.valid]
    torch.testing.assert_close(model.clean, expected)
    held_out = [int(end) + more for end in sequences.history_ends(TRAIN) for more in range(2)]
    assert (model.clean[held_out] == 1).all() and (expected < 1).sum() == len(expected) - len(held_out)


def test_the_detector_is_never_trained_with_the_backbone() -> None:
    model = cloze("weighted", "weighted").train()
    assert not model.detector.training and model.backbone.training
    assert not any(each.requires_grad for each in model.detector.parameters())


def test_an_interrupted_training_goes_on_with_what_it_was_told() -> None:
    """Judged again, on another number of threads, the last digits would differ."""
    before, after = cloze("sampled", "sampled"), cloze("sampled", "sampled")
    after.clean = before.clean + 1e-7
    after.load_training_state(before.training_state())
    assert torch.equal(after.clean, before.clean)


def test_what_training_changes_is_all_but_the_detector() -> None:
    """It is taken back whole: a weight too few or too many is an error."""
    before, after = cloze("raw", "raw"), spread_out(cloze("raw", "raw"), 0.1)
    weights = before.trained_state()
    assert weights and not any(name.startswith("detector.") for name in weights)
    after.load_trained_state(weights)
    assert all(torch.equal(value, weights[name]) for name, value in after.trained_state().items())
    for wrong in ({**weights, "more": weights["items.weight"]}, {"items.weight": weights["items.weight"]}):
        with pytest.raises(RuntimeError):
            after.load_trained_state(wrong)
