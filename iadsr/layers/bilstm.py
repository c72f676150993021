"""A layer of an LSTM that reads a sequence from both ends, over real positions alone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from iadsr.layers.jagged import gather_rows, scatter_rows
from iadsr.layers.recurrence import lstm_layer


class BiLSTM(nn.Module):
    """nn.LSTM in both directions, `dim` -> `dim` each."""

    matmul_dtype = torch.float32  # in training: of the input's share of the gates

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, bidirectional=True)

    def forward(self, rows: Float[Tensor, "real dim"], ends: Ends) -> tuple[Tensor, Tensor]:
        """The states of real positions, sequence by sequence, from the left and the right end, [real, dim] each."""
        if rows.device.type != "cpu":
            packed = PackedSequence(gather_rows(rows, ends.left), torch.tensor(ends.sizes))
            left, right = scatter_rows(self.lstm(packed)[0].data, ends.left, len(rows)).chunk(2, dim=1)
            return left, right
        weights, recurrent, biases, others = (
            torch.stack([getattr(self.lstm, name), getattr(self.lstm, f"{name}_reverse")])
            for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        )
        read = torch.stack([gather_rows(rows, numbers) for numbers in (ends.left, ends.right)])
        dtype = self.matmul_dtype if self.training else rows.dtype
        states = lstm_layer(read, weights, recurrent, biases + others, ends.sizes, dtype)
        left, right = (
            scatter_rows(own, numbers, len(rows)) for own, numbers in zip(states, (ends.left, ends.right), strict=True)
        )
        return left, right


class Ends:
    """The order in which the two directions meet the real positions: packed, with `sizes[t]` sequences at step t."""

    left: Int[Tensor, " packed"]
    right: Int[Tensor, " packed"]
    sizes: list[int]

    def __init__(self, lengths: Int[Tensor, " sequences"]) -> None:
        steps = torch.arange(int(lengths.max()), device=lengths.device)
        first = (lengths.cumsum(0) - lengths)[:, None]
        mirrored = (lengths[:, None] - 1 - steps).clamp(min=0)
        orders = torch.stack([first + steps, first + mirrored], dim=2)
        packed = pack_padded_sequence(orders, lengths.cpu(), batch_first=True, enforce_sorted=False)
        self.left, self.right = packed.data.unbind(1)
        self.sizes = packed.batch_sizes.tolist()
