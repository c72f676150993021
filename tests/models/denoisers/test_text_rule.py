"""The text rule against loops over prefixes, and what is made of it: a threshold, masks, verdicts."""

from __future__ import annotations

import math
from dataclasses import replace
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
    WIDTH,
    alone,
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
    write_means,
)
from torch import Tensor
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.models.assembly import build, denoiser_params
from iadsr.models.denoisers.text_rule import (
    BELOW_ALL,
    SLACK,
    TextRule,
    TextRuleParams,
    cosines_with_the_rest,
    lowest_kept,
)
from iadsr.models.verdicts import judge_all, training_rows
from iadsr.params import read_params
from iadsr.sequences.windows import Batch, Feed, Sequences
from iadsr.train.fit import fit

pytestmark = pytest.mark.usefixtures("one_thread")
WINDOWS = ([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
BATCH = batch_of(*WINDOWS)
NAN = float("nan")


def text_rule(backbone: str = "gru4rec", threshold: float = 0.0, **changes: Any) -> TextRule:
    """Of random texts; item 4 has none."""
    torch.manual_seed(0)
    params = committed("text_rule", **changes)
    assert isinstance(params, TextRuleParams)
    model: TextRule = spread_out(TextRule(ITEMS, DIM, small_backbone(backbone), params, WIDTH), 0.5)
    model.vectors.copy_(F.normalize(torch.randn(ITEMS + 1, WIDTH), dim=1))
    model.vectors[[0, 4]] = 0
    model.threshold.fill_(threshold)
    return model


def literal_cosines(vectors: Tensor, items: list[int]) -> list[float]:
    """Of each item's vector with the mean of the others'; NaN for an item without text or without others."""
    found = []
    for place, item in enumerate(items):
        others = [vectors[other].float() for number, other in enumerate(items) if number != place]
        own, mean = vectors[item].float(), torch.stack(others).mean(0) if others else torch.zeros(WIDTH)
        empty = not own.any() or not mean.any()
        found.append(NAN if empty else torch.cosine_similarity(own, mean, dim=0).item())
    return found


def literal_keep(model: TextRule, items: list[int]) -> Tensor:
    """Kept unless the cosine is at or below the threshold."""
    cosines = literal_cosines(model.vectors, items)
    return torch.tensor([math.isnan(cosine) or cosine > model.threshold.item() for cosine in cosines])


def prefixes() -> list[tuple[int, int]]:
    return [(window, place) for window, items in enumerate(WINDOWS) for place in range(len(items))]


# --- cosines ---


def test_cosines_by_hand() -> None:
    """Vectors (1, 0), (0, 1), (0.6, 0.8), and zero for padding.

    With the rest (0.6, 1.8): 0.6 / sqrt(3.6); with (1.6, 0.8): 0.8 / sqrt(3.2); with (1, 1): 1.4 / sqrt(2).
    """
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 0.0]]])
    found = cosines_with_the_rest(vectors, vectors.sum(1, keepdim=True))
    expected = torch.tensor([[[0.6 / 3.6**0.5, 0.8 / 3.2**0.5, 1.4 / 2**0.5, NAN]]])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_rest_that_cancels_has_no_direction() -> None:
    """x and -x beside y: y has none; x has the cosine with y - x."""
    vectors = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]])
    found = cosines_with_the_rest(vectors, vectors.sum(1, keepdim=True))[0, 0]
    assert found[2].isnan() and found[0].item() == pytest.approx(-(0.5**0.5))


def test_cosines_of_every_prefix_equal_the_loops() -> None:
    """Of each prefix by itself; the last one's are the window's."""
    model = text_rule()
    of_prefixes, of_windows = model.of_prefixes(BATCH), model.of_windows(BATCH)
    numbers = 0
    for window, place in prefixes():
        expected = torch.tensor(literal_cosines(model.vectors, WINDOWS[window][: place + 1]))
        torch.testing.assert_close(of_prefixes[window, place, : place + 1], expected, equal_nan=True)
        numbers += int((~expected.isnan()).sum())
        if place == len(WINDOWS[window]) - 1:
            torch.testing.assert_close(of_windows[window, : place + 1], expected, equal_nan=True)
    assert numbers > 15


# --- the threshold ---


@pytest.mark.parametrize(("share", "lowest"), [(0.0, 0.1), (0.24, 0.1), (0.25, 0.2), (0.5, 0.3), (0.99, 0.4)])
def test_the_lowest_kept_by_hand(share: float, lowest: float) -> None:
    """Of four numbers none, none, one, two, three are below it; what is no number counts for nothing."""
    assert lowest_kept(torch.tensor([0.4, 0.1, NAN, 0.3, 0.2]), share) == pytest.approx(lowest)


def test_without_a_number_everything_is_kept() -> None:
    assert lowest_kept(torch.tensor([NAN]), 0.5) == BELOW_ALL


@pytest.fixture
def sequences() -> Sequences:
    """Training histories of 1 to 14 items, so of up to three windows."""
    return sequences_of(*random_histories(12, 16))


def read(sequences: Sequences, folder: Path, **changes: Any) -> TextRule:
    """Built as the stage does."""
    model = build(small_config("text_rule", "gru4rec", **changes), Feed(sequences, write_means(folder, sequences)))
    assert isinstance(model, TextRule)
    return model


def test_the_threshold_is_a_quantile_over_training_interactions(sequences: Sequences, tmp_path: Path) -> None:
    """Each judged in its window, which are cut from the end of the training history."""
    model, cosines = read(sequences, tmp_path, share=0.3), []
    for begin, end in sequences.offsets.unfold(0, 2, 1).tolist():
        for stop in range(end - 2, begin, -LENGTH):
            cosines += literal_cosines(model.vectors, sequences.items[max(begin, stop - LENGTH) : stop].tolist())
    numbers = sorted(cosine for cosine in cosines if not math.isnan(cosine))
    assert len(cosines) == len(sequences.items) - 24
    assert model.threshold.item() == pytest.approx(numbers[int(0.3 * len(numbers))] - SLACK, abs=1e-6)


def test_the_share_of_training_interactions_is_dropped(sequences: Sequences, tmp_path: Path) -> None:
    """No cosine occurs twice at the quantile, so it is exact, and what lies at the quantile is kept."""
    model = read(sequences, tmp_path, share=0.3)
    verdicts = judge_all(model.eval(), Feed(sequences), LENGTH)
    rows = training_rows(Feed(sequences))
    judged = int((~verdicts.score[rows].isnan()).sum())
    assert int((~verdicts.kept[rows]).sum()) == int(0.3 * judged)


def test_the_threshold_has_not_seen_what_is_held_out(sequences: Sequences, tmp_path: Path) -> None:
    held_out = torch.cat([sequences.offsets[1:] - 1, sequences.offsets[1:] - 2])
    items = sequences.items.clone()
    items[held_out] = items[held_out] % ITEMS + 1
    items[held_out[0]] = ITEMS
    one, other = (read(replace(sequences, items=rows), tmp_path) for rows in (sequences.items, items))
    assert torch.equal(one.threshold, other.threshold) and torch.equal(one.vectors, other.vectors)


def test_vectors_are_those_of_the_data_set_at_unit_length(sequences: Sequences, tmp_path: Path) -> None:
    """In half precision, and no parameter moves them."""
    model, given = read(sequences, tmp_path), torch.tensor(write_means(tmp_path, sequences).items).float()
    assert model.vectors.dtype == torch.float16 and not model.vectors[0].any()
    torch.testing.assert_close(model.vectors[1:].float().norm(dim=1), torch.ones(ITEMS), atol=1e-3, rtol=0)
    torch.testing.assert_close(model.vectors.float(), F.normalize(given, dim=1), atol=1e-3, rtol=0)
    assert {"vectors", "threshold"} <= set(model.state_dict()) - {name for name, _ in model.named_parameters()}


# --- training ---


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_every_prefix_is_encoded_under_its_own_mask(backbone: str) -> None:
    """The loss and its gradient are those of prefixes encoded one by one; so is the share that is dropped."""
    model, losses, dropped, judged = text_rule(backbone), [], 0, 0
    for window, place in prefixes():
        items = WINDOWS[window][: place + 1]
        keep = literal_keep(model, items)
        dropped, judged = dropped + int((~keep).sum()), judged + len(keep)
        if target := int(BATCH.targets[window, place]):
            logits = model.items.weight[1:] @ model.head(alone(model, items, keep))
            losses.append(logits.logsumexp(0) - logits[target - 1])
    expected, found = torch.stack(losses).mean(), model.loss(BATCH)["ce"]
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(value, [*model.parameters()]) for value in (found, expected))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)
    assert 0 < dropped < judged and model.end_epoch() == {"drop_rate": dropped / judged}
    assert model.end_epoch() == {"drop_rate": 0}


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_nothing_later_shapes_a_loss(backbone: str) -> None:
    """Other items after position p: the losses of targets up to p have the same sum, taken by themselves."""
    model = text_rule(backbone)
    for place in range(1, 4):
        one, other = (
            replace(batch, targets=batch.targets * (torch.arange(5) < place))
            for batch in (BATCH, with_future(BATCH, place))
        )
        assert torch.equal(one.targets, other.targets) and not torch.equal(one.items, other.items)
        torch.testing.assert_close(model.loss(one)["ce"], model.loss(other)["ce"])


def test_padding_and_order_change_no_loss() -> None:
    model, order = text_rule(), torch.tensor([2, 0, 3, 1])
    expected = model.loss(BATCH)["ce"]
    torch.testing.assert_close(model.loss(padded(BATCH, 1))["ce"], expected)
    torch.testing.assert_close(model.loss(at(BATCH, order))["ce"], expected)


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_a_share_of_nothing_is_the_plain_recommender(backbone: str, sequences: Sequences, tmp_path: Path) -> None:
    """The same seed gives the same losses and metrics in every epoch, and the same weights, to the last bit."""
    feed, ends, figures = Feed(sequences, write_means(tmp_path / "encoded", sequences)), [], []
    for denoiser in ("none", "text_rule"):
        changes: Any = {"share": 0.0} if denoiser == "text_rule" else {}
        model = build(small_config(denoiser, backbone, dropout=0.2, **changes), feed)
        reports = fit(model, Feed(sequences), train_params(max_epochs=2), LENGTH, 3, tmp_path / denoiser)
        figures.append([{**report.figures, "drop_rate": 0.0} for report in reports])
        own = {"vectors", "threshold"}
        ends.append(save({name: value for name, value in model.state_dict().items() if name not in own}))
    assert figures[0] == figures[1] and ends[0] == ends[1]


# --- at test time ---


@pytest.mark.parametrize("backbone", EVERY_BACKBONE)
def test_states_encode_the_history_without_what_is_dropped(backbone: str) -> None:
    model = text_rule(backbone).eval()
    found, dropped = model.states(BATCH), 0
    for window, items in enumerate(WINDOWS):
        keep = literal_keep(model, items)
        dropped += int((~keep).sum())
        torch.testing.assert_close(found[window], model.head(alone(model, items, keep)))
    assert dropped


def test_masks_at_test_can_be_switched_off() -> None:
    model = text_rule(mask_at_test=False).eval()
    assert torch.equal(model.states(BATCH), super(TextRule, model).states(BATCH))
    assert not torch.allclose(text_rule().eval().states(BATCH), model.states(BATCH))
    assert torch.equal(model.judge(BATCH).kept, text_rule().judge(BATCH).kept)


def test_verdicts_are_the_rule() -> None:
    """Scores are above 0 exactly where items are kept; item 4, which has no text, and a window of one have none."""
    model = text_rule(threshold=0.1)
    found = model.judge(BATCH)
    for window, items in enumerate(WINDOWS):
        expected = torch.tensor(literal_cosines(model.vectors, items)) - 0.1
        torch.testing.assert_close(found.score[window, : len(items)], expected, equal_nan=True)
        assert torch.equal(found.kept[window, : len(items)], literal_keep(model, items))
    assert found.score[0, 2].isnan() and found.score[2, 0].isnan() and found.kept[0, 2] and found.kept[2, 0]
    scored = ~found.score.isnan()
    assert torch.equal(found.kept[scored], found.score[scored] > 0) and not found.kept.all()
    assert torch.equal(found.probability, found.kept.float())


def test_what_lies_at_the_quantile_is_kept_however_it_is_rounded() -> None:
    """Both items of a window of two have the same cosine; SLACK is far above rounding, and below other cosines."""
    model = text_rule()
    two: Batch = batch_of([9, 2], [2, 9])
    cosines = model.of_windows(two)
    model.threshold.fill_(lowest_kept(cosines.flatten(), 0.9) - SLACK)
    assert model.judge(two).kept.all()


@pytest.mark.parametrize(("name", "value"), [("share", 1.0), ("share", -0.1), ("mask_at_test", 1)])
def test_wrong_parameters_are_named(name: str, value: Any) -> None:
    content = read_params(Path(__file__).parents[3] / "params.yaml")
    content["denoisers"]["text_rule"][name] = value
    with pytest.raises(UserError, match=rf"text_rule\.{name}: "):
        denoiser_params(content, "text_rule")
