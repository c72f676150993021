"""SASRec against attention written head by head, query by query."""

from __future__ import annotations

import pytest
import torch
from small_models import DIM, LENGTH, small_backbone
from torch import Tensor
from torch.nn import functional as F

from iadsr.backbones.sasrec import Block, SASRec
from iadsr.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def attended(block: Block, states: Tensor) -> Tensor:
    """softmax(q k / sqrt(width)) v for each query over the positions up to its own, heads side by side."""
    time, width = len(states), DIM // block.heads
    queries, keys, values = block.queries_keys_values(states).split(DIM, dim=-1)
    mixed = torch.zeros(time, DIM)
    for head in range(block.heads):
        part = slice(head * width, (head + 1) * width)
        for place in range(time):
            logits = torch.stack([queries[place, part] @ keys[t, part] for t in range(place + 1)]) / width**0.5
            weights = torch.exp(logits) / torch.exp(logits).sum()
            mixed[place, part] = sum(weights[t] * values[t, part] for t in range(place + 1))
    return block.merge(mixed)


def one_window(sasrec: SASRec, inputs: Tensor) -> Tensor:
    states = sasrec.norm(inputs + sasrec.positions.weight[: len(inputs)])
    for block in sasrec.blocks:
        assert isinstance(block, Block)
        states = block.attention_norm(states + attended(block, states))
        states = block.feed_forward_norm(states + block.narrow(F.gelu(block.widen(states))))
    return states


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_equals_attention_written_out(heads: int) -> None:
    torch.manual_seed(heads)
    sasrec = small_backbone("sasrec", heads=heads)
    for parameter in sasrec.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    inputs = torch.randn(2, LENGTH, DIM)
    states = sasrec(inputs, torch.ones(2, LENGTH, dtype=torch.bool))
    for row in range(2):
        torch.testing.assert_close(states[row], one_window(sasrec, inputs[row]), atol=1e-5, rtol=1e-4)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"backbones\.sasrec\.heads: 3 .* train\.dim 8"):
        small_backbone("sasrec", heads=3)
