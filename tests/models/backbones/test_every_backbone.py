"""What every backbone must be: causal, blind to padding, independent of the batch around a window."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from small_models import DIM, EVERY_BACKBONE, LENGTH, small_backbone, spread_out
from torch import Tensor, nn

from iadsr.layers.dropout import Dropout
from iadsr.layers.linear import set_matmul_dtype
from iadsr.models.backbones.registry import BACKBONES

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.parametrize("name", EVERY_BACKBONE)]


def inputs_and_mask(batch: int, time: int, lengths: list[int] | None = None) -> tuple[Tensor, Tensor]:
    inputs = torch.randn(batch, time, DIM, generator=torch.Generator().manual_seed(3))
    valid = torch.arange(time) < torch.tensor(lengths or [time] * batch)[:, None]
    return inputs * valid[..., None], valid


def spread(name: str) -> nn.Module:
    torch.manual_seed(1)
    backbone = small_backbone(name)
    backbone.items = nn.Embedding(1, 1)  # what spread_out clears
    return spread_out(backbone, 0.5)


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, LENGTH), (3, 1), (4, 5)])
def test_shapes(name: str, batch: int, time: int) -> None:
    backbone = spread(name)
    assert backbone(*inputs_and_mask(batch, time)).shape == (batch, time, backbone.hidden)


@pytest.mark.parametrize("training", [True, False])
def test_no_state_depends_on_later_inputs(name: str, training: bool) -> None:
    """d state_p / d input_t is zero for t > p and, for t = p, is not."""
    backbone = spread(name).train(training)
    inputs, valid = inputs_and_mask(2, LENGTH)
    inputs.requires_grad_()
    states = backbone(inputs, valid)
    for place in range(LENGTH):
        (gradient,) = torch.autograd.grad(states[:, place].square().sum(), inputs, retain_graph=True)
        assert (gradient[:, place + 1 :] == 0).all()
        assert (gradient[:, place] != 0).any()


@pytest.mark.parametrize("training", [True, False])
def test_changing_the_future_changes_nothing_before_it(name: str, training: bool) -> None:
    backbone = spread(name).train(training)
    inputs, valid = inputs_and_mask(3, LENGTH)
    expected = backbone(inputs, valid)
    for place in range(LENGTH - 1):
        changed = inputs.clone()
        changed[:, place + 1 :] = 7.0
        torch.testing.assert_close(backbone(changed, valid)[:, : place + 1], expected[:, : place + 1])


def test_each_prefix_alone_has_the_same_state(name: str) -> None:
    backbone = spread(name).eval()
    inputs, valid = inputs_and_mask(2, LENGTH)
    states = backbone(inputs, valid)
    for place in range(LENGTH):
        alone = backbone(inputs[:, : place + 1], valid[:, : place + 1])[:, -1]
        torch.testing.assert_close(alone, states[:, place])


@pytest.mark.parametrize("training", [True, False])
def test_wanted_states_are_those_of_all(name: str, training: bool) -> None:
    """Whichever prefixes are asked for, their states and the gradient through them are what they are among all."""
    backbone = spread(name).train(training)
    inputs, valid = inputs_and_mask(4, LENGTH, [2, 6, 1, 4])
    inputs.requires_grad_()
    for seed in range(3):
        positions = valid & (torch.rand(valid.shape, generator=torch.Generator().manual_seed(seed)) < 0.4)
        expected, found = backbone(inputs, valid)[positions], backbone(inputs, valid, positions)[positions]
        torch.testing.assert_close(found, expected)
        wishes = [torch.autograd.grad(states.square().sum(), inputs)[0] for states in (expected, found)]
        torch.testing.assert_close(wishes[1], wishes[0], atol=1e-5, rtol=1e-4)
    assert not backbone(inputs, valid, torch.zeros_like(valid))[~valid].any()


def test_padding_on_the_right_changes_nothing(name: str) -> None:
    backbone = spread(name).eval()
    inputs, valid = inputs_and_mask(3, LENGTH, [1, 3, 4])
    short = backbone(inputs[:, :4], valid[:, :4])
    torch.testing.assert_close(backbone(inputs, valid)[:, :4][valid[:, :4]], short[valid[:, :4]])


def test_order_of_the_batch_does_not_matter(name: str) -> None:
    backbone = spread(name).eval()
    inputs, valid = inputs_and_mask(4, LENGTH, [2, 6, 1, 4])
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        backbone(inputs[order], valid[order])[valid[order]], backbone(inputs, valid)[order][valid[order]]
    )


def test_dropout_is_for_training_only(name: str) -> None:
    torch.manual_seed(0)
    backbone = small_backbone(name, dropout=0.5)
    batch = inputs_and_mask(2, 4)
    assert not torch.equal(backbone(*batch), backbone(*batch))
    backbone.eval()
    assert torch.equal(backbone(*batch), backbone(*batch))


def test_training_computes_what_evaluation_does(name: str) -> None:
    """With a dropout that drops nothing: training has paths of its own, of attention among others."""
    torch.manual_seed(1)
    backbone = small_backbone(name, dropout=1e-9)
    backbone.items = nn.Embedding(1, 1)
    inputs, valid = inputs_and_mask(4, LENGTH, [2, 6, 1, 4])
    spread_out(backbone, 0.5)
    torch.testing.assert_close(backbone.train()(inputs, valid), backbone.eval()(inputs, valid))


WHERE_DROPPED = {  # 5 real positions; inputs, and between layers; inputs, attention in two groups, and twice a block
    "gru4rec": [(5, DIM), (5, 6)],
    "caser": [(5, 3 * 3 + 2 * DIM)],
    "sasrec": [(5, DIM), (2, 2, 3, 3), (5, DIM), (5, DIM), (2, 2, 3, 3), (5, DIM), (5, DIM)],
}
WHERE_DROPPED["ligr"] = WHERE_DROPPED["sasrec"]


def test_where_values_are_dropped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def note(self: Dropout, values: Tensor) -> Tensor:
        shapes.append(tuple(values.shape))
        return values

    monkeypatch.setattr(Dropout, "forward", note)
    small_backbone(name, dropout=0.5)(*inputs_and_mask(2, 3, [3, 2]))
    assert shapes == WHERE_DROPPED[name]


def test_only_training_is_rounded(name: str) -> None:
    backbone = spread(name)
    batch = inputs_and_mask(2, 4)
    exact = backbone.eval()(*batch)
    set_matmul_dtype(backbone, torch.bfloat16)
    assert torch.equal(backbone.eval()(*batch), exact)
    rounded = backbone.train()(*batch)
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1)


def test_parameters_are_checked(name: str) -> None:
    with pytest.raises(ValidationError, match="dropout"):
        BACKBONES[name][1].model_validate({"dropout": 1.0})
