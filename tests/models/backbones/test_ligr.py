"""LiGR against its blocks written out, one window at a time, with torch's own attention."""

from __future__ import annotations

import pytest
import torch
from small_models import DIM, LENGTH, small_backbone
from torch import Tensor
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.models.backbones.ligr import GatedBlock, LiGR

pytestmark = pytest.mark.usefixtures("one_thread")


def model(heads: int) -> LiGR:
    torch.manual_seed(heads)
    found = small_backbone("ligr", heads=heads)
    assert isinstance(found, LiGR)
    for parameter in found.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return found.eval()


def attention(block: GatedBlock, states: Tensor) -> Tensor:
    """torch's own, with the block's weights."""
    time = len(states)
    reference = torch.nn.MultiheadAttention(DIM, block.heads, batch_first=True)
    both = block.queries_keys_values
    assert both.bias is not None and block.merge.bias is not None
    reference.in_proj_weight.data, reference.in_proj_bias.data = both.weight.data, both.bias.data
    reference.out_proj.weight.data, reference.out_proj.bias.data = block.merge.weight.data, block.merge.bias.data
    later = torch.ones(time, time, dtype=torch.bool).triu(1)
    return reference(states[None], states[None], states[None], attn_mask=later, need_weights=False)[0][0]


def one_window(model: LiGR, inputs: Tensor) -> Tensor:
    """x + sigmoid(W x) * attention(norm x), then x + sigmoid(V x) * SwiGLU(norm x); at last the norm."""
    x = model.norm(inputs + model.positions.weight[: len(inputs)])
    for block in model.blocks:
        assert isinstance(block, GatedBlock)
        x = x + torch.sigmoid(block.attention_gate(x)) * attention(block, block.attention_norm(x))
        y = block.feed_forward_norm(x)
        x = x + torch.sigmoid(block.feed_forward_gate(x)) * block.narrow(F.silu(block.switch(y)) * block.widen(y))
    end = model.blocks[-1].end
    assert isinstance(end, torch.nn.LayerNorm)
    return F.layer_norm(x, (DIM,), end.weight, end.bias)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_equals_blocks_written_out(heads: int) -> None:
    backbone, inputs = model(heads), torch.randn(3, LENGTH, DIM)
    lengths = [LENGTH, 1, 3]
    states = backbone(inputs, torch.arange(LENGTH) < torch.tensor(lengths)[:, None])
    for row, length in enumerate(lengths):
        expected = one_window(backbone, inputs[row, :length])
        torch.testing.assert_close(states[row, :length], expected, atol=1e-4, rtol=1e-4)
        assert (states[row, length:] == 0).all()


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UserError, match=r"backbones\.ligr\.heads: 3 .* train\.dim 8"):
        small_backbone("ligr", heads=3)
