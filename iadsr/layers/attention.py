"""Transformer blocks over real positions alone: post-norm, with or without a causal mask (SASRec, DCRec, STEAM)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.layers.dropout import Dropout
from iadsr.layers.jagged import LengthGroup, gather_rows, length_groups, scatter_rows
from iadsr.layers.linear import Linear
from iadsr.params import Group


class TransformerParams(Group):
    """Sizes of a transformer; `heads` must divide the width."""

    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    feed_forward: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


def check_heads(dim: int, params: TransformerParams, key: str) -> None:
    """UserError, which names the group at `key`, unless the heads divide the width evenly."""
    if dim % params.heads:
        raise UserError(f"params.yaml: {key}.heads: {params.heads} does not divide train.dim {dim}")


class Transformer(nn.Module):
    """Learned positions, dropout and blocks, as in RecBole; padding, on the right, is hidden from attention.

    All layers but attention see only real positions, and attention pads only windows of similar length.
    """

    receptive_field: int | None = None

    def __init__(self, dim: int, max_length: int, params: TransformerParams, causal: bool) -> None:
        super().__init__()
        self.hidden = dim
        self.positions = nn.Embedding(max_length, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(params.dropout)
        self.blocks = nn.ModuleList(self.block(dim, params, causal, layer) for layer in range(params.layers))
        nn.init.normal_(self.positions.weight, std=0.02)

    def block(self, dim: int, params: TransformerParams, causal: bool, layer: int) -> nn.Module:
        """A fresh block, the first being layer 0."""
        return Block(dim, params, causal)

    def forward(
        self,
        inputs: Float[Tensor, "batch time dim"],
        valid: Bool[Tensor, "batch time"],
        positions: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time dim"]:
        """The states at these real positions (None: at all of them); zeros elsewhere."""
        real, groups = length_groups(valid)
        items, places = gather_rows(inputs.flatten(0, 1), real), real % valid.shape[1]
        states = self.dropout(self.norm(items + self.positions(places)))
        needed = (valid if positions is None else positions).flatten()[real].nonzero().flatten()
        for block in self.blocks[:-1]:
            states = block(states, groups)
        states = self.blocks[-1](states, groups, needed)
        return scatter_rows(states, real[needed], valid.numel()).view_as(inputs)


class Block(nn.Module):
    """Multi-head attention and a feed-forward layer, each added to its input and normalised."""

    def __init__(self, dim: int, params: TransformerParams, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = params.heads, causal
        self.queries_keys_values = Linear(dim, 3 * dim)
        self.merge = Linear(dim, dim)
        self.widen = Linear(dim, params.feed_forward)
        self.narrow = Linear(params.feed_forward, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_forward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(params.dropout)
        for layer in (self.queries_keys_values, self.merge, self.widen, self.narrow):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, states: Float[Tensor, "real dim"], groups: list[LengthGroup], needed: Int[Tensor, " needed"] | None = None
    ) -> Float[Tensor, "needed dim"]:
        """The new states of the `needed` positions (None: of all)."""
        mixed = self.attend(states, groups)
        if needed is not None:
            states, mixed = gather_rows(states, needed), gather_rows(mixed, needed)
        states = self.attention_norm(states + self.dropout(self.merge(mixed)))
        widened = F.gelu(self.widen(states))
        return self.feed_forward_norm(states + self.dropout(self.narrow(widened)))

    def attend(self, states: Float[Tensor, "real dim"], groups: list[LengthGroup]) -> Float[Tensor, "real dim"]:
        """Attention with its heads side by side; nothing else needs padded windows."""
        projected = self.queries_keys_values(states)
        mixed = []
        for group in groups:
            heads = group.padded(projected[group.part]).unflatten(-1, (3, self.heads, -1))
            queries, keys, values = heads.permute(2, 0, 3, 1, 4)
            found = self.mix(queries, keys, values, group.valid)
            mixed.append(group.unpadded(found.transpose(1, 2).flatten(2)))
        return torch.cat(mixed)

    def mix(
        self,
        queries: Float[Tensor, "windows heads time width"],
        keys: Float[Tensor, "windows heads time width"],
        values: Float[Tensor, "windows heads time width"],
        valid: Bool[Tensor, "windows time"],
    ) -> Float[Tensor, "windows heads time width"]:
        """Sums of visible values, weighted by softmax(query . key / sqrt(width)) under dropout.

        In a causal block earlier positions are visible (padding comes later), else all real ones. torch's fused
        attention does all of this, but on a CPU its dropout draws one double a weight.
        """
        rate = self.dropout.rate if self.training else 0.0
        hidden = None if self.causal else torch.where(valid, 0.0, float("-inf"))[:, None, None, :].to(queries.dtype)
        if rate == 0 or queries.device.type != "cpu":
            return F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=hidden, dropout_p=rate, is_causal=self.causal
            )
        if hidden is None:
            hidden = torch.full((queries.shape[2], queries.shape[2]), float("-inf")).triu(1)
        logits = (queries * queries.shape[-1] ** -0.5) @ keys.mT + hidden
        return self.dropout(torch.softmax(logits, dim=-1)) @ values
