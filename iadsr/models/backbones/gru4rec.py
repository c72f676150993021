"""GRU4Rec: the state of a prefix is the last hidden state of a GRU over it (Hidasi et al. 2015)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from iadsr.layers.dropout import Dropout
from iadsr.layers.jagged import gather_rows, scatter_rows
from iadsr.layers.linear import linear
from iadsr.layers.recurrence import gru_layer
from iadsr.params import Group


class GRU4RecParams(Group):
    """`backbones.gru4rec` of params.yaml."""

    hidden: int = Field(ge=1)
    layers: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)  # of the item embeddings, and between layers


class GRU4Rec(nn.Module):
    """A GRU over the item embeddings; padding, on the right, is not computed."""

    receptive_field: int | None = None
    matmul_dtype = torch.float32  # in training on a CPU: of the input's share of the gates

    def __init__(self, dim: int, max_length: int, params: GRU4RecParams) -> None:
        super().__init__()
        self.hidden = params.hidden
        self.dropout = Dropout(params.dropout)
        between = params.dropout if params.layers > 1 else 0.0
        self.gru = nn.GRU(dim, params.hidden, params.layers, batch_first=True, dropout=between)

    def forward(
        self,
        inputs: Float[Tensor, "batch time dim"],
        valid: Bool[Tensor, "batch time"],
        positions: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """The state of every prefix, since each is needed for the next; zeros for padding."""
        places = torch.arange(valid.numel(), device=valid.device).view(valid.shape)
        packed = pack_padded_sequence(places, valid.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        real = self.dropout(gather_rows(inputs.flatten(0, 1), packed.data))
        states = (
            self.layers(real, packed) if real.device.type == "cpu" else self.gru(packed._replace(data=real))[0].data
        )
        return scatter_rows(states, packed.data, valid.numel()).unflatten(0, valid.shape)

    def layers(self, states: Float[Tensor, "packed width"], packed: PackedSequence) -> Float[Tensor, "packed hidden"]:
        """What `self.gru` computes, layer by layer."""
        sizes, dtype = packed.batch_sizes.tolist(), self.matmul_dtype if self.training else states.dtype
        for layer in range(self.gru.num_layers):
            weights = (
                getattr(self.gru, f"{name}_l{layer}") for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
            )
            weight, bias, recurrent_weight, recurrent_bias = weights
            below = states if layer == 0 else self.dropout(states)
            states = gru_layer(linear(below, weight, bias, dtype), recurrent_weight, recurrent_bias, sizes, dtype)
        return states
