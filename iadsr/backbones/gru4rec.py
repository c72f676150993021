"""GRU4Rec: the state of a prefix is the last hidden state of a GRU over it (Hidasi et al. 2015)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from iadsr.params import Group


class GRU4RecParams(Group):
    """`backbones.gru4rec` of params.yaml."""

    hidden: int = Field(ge=1)
    layers: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)  # of the item embeddings, and between layers


class GRU4Rec(nn.Module):
    """A GRU over the item embeddings; padding, on the right, is not computed."""

    reach: int | None = None

    def __init__(self, dim: int, max_length: int, params: GRU4RecParams) -> None:
        super().__init__()
        self.hidden = params.hidden
        between = params.dropout if params.layers > 1 else 0.0
        self.dropout = nn.Dropout(params.dropout)
        self.gru = nn.GRU(dim, params.hidden, params.layers, batch_first=True, dropout=between)

    def forward(
        self, inputs: Float[Tensor, "batch time dim"], valid: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time hidden"]:
        """The state of every prefix; zeros for padding."""
        packed = pack_padded_sequence(self.dropout(inputs), valid.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=inputs.shape[1])[0]
