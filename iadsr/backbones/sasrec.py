"""SASRec: causal self-attention over the prefix (Kang and McAuley 2018), post-norm blocks as in RecBole."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.backbones.padding import padded
from iadsr.errors import UserError
from iadsr.params import Group


class SASRecParams(Group):
    """`backbones.sasrec` of params.yaml."""

    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    feed_forward: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


class SASRec(nn.Module):
    """Transformer blocks with a causal mask; with padding on the right that mask also hides all padding.

    All layers but attention see the real positions alone, so padding costs next to nothing.
    """

    reach: int | None = None

    def __init__(self, dim: int, max_length: int, params: SASRecParams) -> None:
        super().__init__()
        if dim % params.heads:
            raise UserError(f"params.yaml: backbones.sasrec.heads: {params.heads} does not divide train.dim {dim}")
        self.hidden = dim
        self.positions = nn.Embedding(max_length, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(params.dropout)
        self.blocks = nn.ModuleList(Block(dim, params) for _ in range(params.layers))
        nn.init.normal_(self.positions.weight, std=0.02)

    def forward(
        self, inputs: Float[Tensor, "batch time dim"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time dim"]:
        """The state of every prefix; zeros for padding."""
        places = torch.arange(inputs.shape[1], device=inputs.device).expand_as(valid)[valid]
        states = self.dropout(self.norm(inputs[valid] + self.positions(places)))
        for block in self.blocks:
            states = block(states, valid)
        return padded(states, valid)


class Block(nn.Module):
    """Causal multi-head attention and a feed-forward layer, each added to its input and normalised."""

    def __init__(self, dim: int, params: SASRecParams) -> None:
        super().__init__()
        self.heads = params.heads
        self.rate = params.dropout
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.merge = nn.Linear(dim, dim)
        self.widen = nn.Linear(dim, params.feed_forward)
        self.narrow = nn.Linear(params.feed_forward, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(params.dropout)
        for layer in (self.queries_keys_values, self.merge, self.widen, self.narrow):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, states: Float[Tensor, "real dim"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "real dim"]:
        states = self.attention_norm(states + self.dropout(self.attend(states, valid)))
        widened = F.gelu(self.widen(states))
        return self.feed_forward_norm(states + self.dropout(self.narrow(widened)))

    def attend(self, states: Float[Tensor, "real dim"], valid: Bool[Tensor, "batch time"]) -> Float[Tensor, "real dim"]:
        """Causal attention; it alone needs the padded shape."""
        heads = padded(self.queries_keys_values(states), valid).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        rate = self.rate if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, dropout_p=rate, is_causal=True)
        return self.merge(mixed.transpose(1, 2)[valid].flatten(1))
