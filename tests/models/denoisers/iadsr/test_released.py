"""What the released code does otherwise, against loops, and what each quirk leaves as it is."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from small_models import batch_of, iadsr, iadsr_params
from torch import Tensor
from torch.nn import functional as F

from iadsr.models.denoisers import masking
from iadsr.models.denoisers.iadsr.alignment import alignment_loss
from iadsr.models.denoisers.iadsr.model import IADSR
from iadsr.models.denoisers.iadsr.released import in_batch_loss, newest_targets, pooled

pytestmark = pytest.mark.usefixtures("one_thread")
BATCH = batch_of([3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 8])
RELEASED = ["in_batch_loss", "newest_target", "pooled_interest", "decoder_masks"]


def test_the_loss_within_a_batch_equals_the_loops() -> None:
    """The same item twice is two columns; logits lie between -1 and 1, so the loss has a bound that it never passes."""
    torch.manual_seed(0)
    states = 3 * torch.randn(4, 5)
    items = torch.randn(3, 5)[[0, 1, 0, 2]]
    expected = 0.0
    for row in range(4):
        logits = [math.tanh(float(states[row] @ items[column])) for column in range(4)]
        expected += (math.log(sum(map(math.exp, logits))) - logits[row]) / 4
    assert in_batch_loss(states, items).item() == pytest.approx(expected, rel=1e-5)
    assert in_batch_loss(100 * items[:2], 100 * items[:2]).item() >= math.log(1 + math.exp(-2)) - 1e-6
    assert in_batch_loss(states[:0], items[:0]).item() == 0


def test_the_newest_target_of_each_window() -> None:
    targets = torch.tensor([[4, 2, 7], [3, 5, 0], [6, 0, 0], [0, 0, 0]])
    assert newest_targets(targets).tolist() == [[0, 0, 7], [0, 5, 0], [6, 0, 0], [0, 0, 0]]


def test_pooled_interests_by_hand() -> None:
    states = torch.tensor([[[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]]])
    assert pooled(states).tolist() == [[[1, -2], [1, 3], [2, 3]]]


def test_each_quirk_changes_its_own_terms() -> None:
    """Nothing is masked in the first epoch, and the decoder begins at zero: the others are the same to the last bit."""
    as_paper = iadsr("gru4rec").loss(BATCH)
    for quirks, changed in (
        (["in_batch_loss"], {"ce"}),
        (["newest_target"], {"ce"}),
        (["pooled_interest", "decoder_masks"], {"info"}),
        (["decoder_masks"], set()),
    ):
        found = iadsr("gru4rec", quirks=quirks).loss(BATCH)
        different = {name for name, value in found.items() if not torch.equal(value, as_paper[name])}
        assert different == changed, quirks


def test_the_released_loss_is_that_of_its_parts() -> None:
    model = iadsr("gru4rec", quirks=RELEASED)
    states, targets = model.prefix_states(BATCH.items), newest_targets(BATCH.targets)
    here = targets > 0
    expected = in_batch_loss(model.head(states[here]), model.items.weight[targets[here]])
    torch.testing.assert_close(model.loss(BATCH)["ce"], expected)


def test_masks_for_the_decoder_hide_no_input() -> None:
    """Though many are sampled, in the next epoch and at test the backbone reads histories as they are."""
    model = iadsr("gru4rec", quirks=["decoder_masks"])
    as_it_is = model.prefix_states(BATCH.items)
    first = model.loss(BATCH)
    assert model.end_epoch()["drop_rate"] > 0.1
    assert torch.equal(model.masked_prefix_states(BATCH), as_it_is)
    assert torch.equal(model.loss(BATCH)["ce"], first["ce"])
    last = model.head(as_it_is[torch.arange(4), BATCH.last])
    assert torch.equal(model.states(BATCH), last) and not model.masks_at_test


def interests(model: IADSR) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of unit length: states, their running maxima, and the texts in both roles."""
    states = model.prefix_states(BATCH.items)
    long_semantic, short_semantic = model.project_texts(BATCH)
    maxima = torch.stack([states[:, : place + 1].amax(1) for place in range(states.shape[1])], 1)
    return F.normalize(states, dim=-1), F.normalize(maxima, dim=-1), long_semantic, short_semantic


def test_a_pooled_interest_is_aligned() -> None:
    """Long-term semantic interests with the largest values, short-term ones with the states."""
    model = iadsr("gru4rec", quirks=["pooled_interest", "decoder_masks"])
    unit, maxima, long_semantic, short_semantic = interests(model)
    expected = alignment_loss(unit, maxima, long_semantic, short_semantic, BATCH.valid, 0.1)
    torch.testing.assert_close(model.loss(BATCH)["info"], expected)


def test_a_pooled_interest_judges() -> None:
    """It is what c2 and the gate are of; the item's own state is what c1 and c3 are of. Window 0 has five items."""
    model = iadsr("gru4rec", quirks=["pooled_interest", "decoder_masks"])
    unit, maxima, long_semantic, short_semantic = (each[0] for each in interests(model))
    found = model.judge(BATCH)
    torch.testing.assert_close(found.c1[0, :5], unit[:5] @ long_semantic[4])
    torch.testing.assert_close(found.c2[0, :5], short_semantic[:5] @ maxima[4])
    torch.testing.assert_close(found.c3[0, :5], (unit * short_semantic).sum(1)[:5])
    assert not torch.allclose(found.c2, iadsr("gru4rec").judge(BATCH).c2)
    assert model.params.theta == -1
    gate = (maxima[4] @ long_semantic[4]).item()
    for theta, kept in ((gate - 1e-3, False), (gate + 1e-3, True)):
        gated = iadsr("gru4rec", quirks=["pooled_interest", "decoder_masks"], theta=theta).judge(BATCH)
        assert bool((gated.probability[0, :5] == 1).all()) == kept


@pytest.mark.parametrize("masks", ["prefix", "user"])
def test_a_pooled_interest_masks(masks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The masks of a training are those of the same cosines, of the whole window and of each prefix."""
    model, cosines = iadsr("gru4rec", masks=masks, quirks=["pooled_interest", "decoder_masks"]), masking.cosines
    seen: list[tuple[Tensor, ...]] = []

    def recorded(*given: Tensor) -> masking.Cosines:
        seen.append(given)
        return cosines(*given)

    monkeypatch.setattr(masking, "cosines", recorded)
    model.loss(BATCH)
    unit, maxima, long_semantic, short_semantic = interests(model)
    last = (torch.arange(4), BATCH.last)
    expected = [(unit, short_semantic, maxima[last][:, None], long_semantic[last][:, None])]
    expected += [(unit, short_semantic, maxima, long_semantic)] * (masks == "prefix")
    for own, wanted in zip(seen, expected, strict=True):
        for one, other in zip(own, wanted, strict=True):
            torch.testing.assert_close(one, other)


def test_a_pooled_interest_alone_is_refused() -> None:
    with pytest.raises(ValidationError, match="pooled_interest goes with decoder_masks"):
        iadsr_params(quirks=["pooled_interest"])
