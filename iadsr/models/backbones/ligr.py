"""LiGR: causal self-attention in gated blocks that are normalised first, with a gated feed-forward layer.

Blocks are those of Borisyuk et al. 2025 (https://arxiv.org/abs/2502.03417), as eSASRec puts them into SASRec
(Tikhonovich et al., RecSys 2025): what a block adds to a state is scaled, channel by channel, by a gate of that state.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.layers.attention import Block, Transformer, TransformerParams, check_heads
from iadsr.layers.jagged import LengthGroup, gather_rows
from iadsr.layers.linear import Linear


class LiGRParams(TransformerParams):
    """`backbones.ligr` of params.yaml."""


class LiGR(Transformer):
    """SASRec with gated blocks."""

    def __init__(self, dim: int, max_length: int, params: LiGRParams) -> None:
        check_heads(dim, params, "backbones.ligr")
        super().__init__(dim, max_length, params, causal=True)

    def block(self, dim: int, params: TransformerParams, causal: bool, layer: int) -> nn.Module:
        return GatedBlock(dim, params, last=layer == params.layers - 1)


class GatedBlock(Block):
    """Multi-head attention, then a SwiGLU layer: state + sigmoid(gate of the state) * layer(norm of the state)."""

    def __init__(self, dim: int, params: TransformerParams, last: bool) -> None:
        """The `last` block normalises what it returns."""
        super().__init__(dim, params, causal=True)
        self.attention_gate = Linear(dim, dim)
        self.feed_forward_gate = Linear(dim, dim)
        self.switch = Linear(dim, params.feed_forward)
        self.end = nn.LayerNorm(dim) if last else nn.Identity()
        for layer in (self.attention_gate, self.feed_forward_gate, self.switch):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(
        self, states: Float[Tensor, "real dim"], groups: list[LengthGroup], needed: Int[Tensor, " needed"] | None = None
    ) -> Float[Tensor, "needed dim"]:
        """The new states of the `needed` positions (None: of all)."""
        mixed = self.attend(self.attention_norm(states), groups)
        if needed is not None:
            states, mixed = gather_rows(states, needed), gather_rows(mixed, needed)
        states = states + torch.sigmoid(self.attention_gate(states)) * self.dropout(self.merge(mixed))
        normed = self.feed_forward_norm(states)
        widened = F.silu(self.switch(normed)) * self.widen(normed)
        return self.end(states + torch.sigmoid(self.feed_forward_gate(states)) * self.dropout(self.narrow(widened)))
