"""Transformers against attention written head by head, query by query."""

from __future__ import annotations

import pytest
import torch
from small_models import DIM, LENGTH, small_backbone
from torch import Tensor
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.layers.attention import Block, Transformer, TransformerParams

pytestmark = pytest.mark.usefixtures("one_thread")


def attended(block: Block, states: Tensor) -> Tensor:
    """softmax(q k / sqrt(width)) v for each query, heads side by side; causal: over positions up to its own."""
    time, width = len(states), DIM // block.heads
    queries, keys, values = block.queries_keys_values(states).split(DIM, dim=-1)
    mixed = torch.zeros(time, DIM)
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        for place in range(time):
            seen = range(place + 1 if block.causal else time)
            logits = torch.stack([queries[place, part] @ keys[t, part] for t in seen]) / width**0.5
            weights = torch.exp(logits) / torch.exp(logits).sum()
            mixed[place, part] = sum(weights[t] * values[t, part] for t in seen)
    return block.merge(mixed)


def one_window(model: Transformer, inputs: Tensor) -> Tensor:
    states = model.norm(inputs + model.positions.weight[: len(inputs)])
    for block in model.blocks:
        assert isinstance(block, Block)
        states = block.attention_norm(states + attended(block, states))
        states = block.feed_forward_norm(states + block.narrow(F.gelu(block.widen(states))))
    return states


def transformer(heads: int, causal: bool, dropout: float = 0.0) -> Transformer:
    torch.manual_seed(heads)
    params = TransformerParams(layers=2, heads=heads, feed_forward=10, dropout=dropout)
    model = Transformer(DIM, LENGTH, params, causal)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


LENGTHS = torch.tensor([LENGTH, 1, 3])
VALID = torch.arange(LENGTH) < LENGTHS[:, None]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_equals_attention_written_out(heads: int, causal: bool) -> None:
    model, inputs = transformer(heads, causal), torch.randn(3, LENGTH, DIM)
    states = model.eval()(inputs, VALID)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(states[row, :length], one_window(model, inputs[row, :length]), atol=1e-5, rtol=1e-4)
        assert (states[row, length:] == 0).all()


@pytest.mark.parametrize("causal", [True, False])
def test_training_without_luck_is_evaluation(causal: bool) -> None:
    """With a rate so small that nothing is dropped the other way through `mix` gives the same."""
    model, inputs = transformer(2, causal, dropout=1e-6), torch.randn(3, LENGTH, DIM)
    torch.testing.assert_close(model.train()(inputs, VALID), model.eval()(inputs, VALID), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_takes_no_gradient(causal: bool) -> None:
    """Gradients of inputs are those of windows without padding; where there is padding they are zero."""
    model, inputs = transformer(2, causal).eval(), torch.randn(3, LENGTH, DIM, requires_grad=True)
    (grad,) = torch.autograd.grad(model(inputs, VALID).square().sum(), inputs)
    for row, length in enumerate(LENGTHS.tolist()):
        (own,) = torch.autograd.grad(one_window(model, inputs[row, :length]).square().sum(), inputs)
        torch.testing.assert_close(grad[row], own[row], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("causal", [True, False])
def test_only_a_causal_state_is_blind_to_later_items(causal: bool) -> None:
    model, inputs = transformer(2, causal).eval(), torch.randn(1, LENGTH, DIM)
    changed = inputs.clone()
    changed[0, 3:] = torch.randn(LENGTH - 3, DIM)
    whole = torch.ones(1, LENGTH, dtype=torch.bool)
    assert torch.allclose(model(inputs, whole)[0, :3], model(changed, whole)[0, :3], atol=1e-6) == causal


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"backbones\.sasrec\.heads: 3 .* train\.dim 8"):
        small_backbone("sasrec", heads=3)
