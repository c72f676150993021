"""A layer of an LSTM that reads a sequence from both ends, over real positions alone."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from iadsr.backbones.padding import put, take
from iadsr.backbones.recurrence import lstm_layer
from iadsr.products import linear


class BiLSTM(nn.Module):
    """nn.LSTM in both directions, `dim` -> `dim` each; padding stands on the right."""

    product_dtype = torch.float32  # in training: of the input's share of the gates

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, bidirectional=True)

    def forward(self, inputs: Float[Tensor, "batch time dim"], ends: Ends) -> tuple[Tensor, Tensor]:
        """The states from the left and from the right end, [batch, time, dim] each; zeros at padding."""
        flat = inputs.flatten(0, 1)
        if inputs.device.type != "cpu":
            packed = PackedSequence(take(flat, ends.left), torch.tensor(ends.sizes))
            both = put(self.lstm(packed)[0].data, ends.left, len(flat)).unflatten(0, inputs.shape[:2])
            return both.chunk(2, dim=2)
        gates = torch.stack(
            [self.gates(take(flat, numbers), direction) for direction, numbers in enumerate((ends.left, ends.right))]
        )
        weight = torch.stack([self.lstm.weight_hh_l0, self.lstm.weight_hh_l0_reverse])  # type: ignore[list-item]
        states = lstm_layer(gates, weight, ends.sizes, self.dtype(inputs))
        left, right = (
            put(own, numbers, len(flat)).view_as(inputs)
            for own, numbers in zip(states, (ends.left, ends.right), strict=True)
        )
        return left, right

    def gates(self, inputs: Float[Tensor, "packed dim"], direction: int) -> Float[Tensor, "packed gates"]:
        """The input's share of the gates, with both biases."""
        suffix = ("l0", "l0_reverse")[direction]
        weight, bias, other = (getattr(self.lstm, f"{name}_{suffix}") for name in ("weight_ih", "bias_ih", "bias_hh"))
        return linear(inputs, weight, bias + other, self.dtype(inputs))

    def dtype(self, inputs: Tensor) -> torch.dtype:
        return self.product_dtype if self.training else inputs.dtype


class Ends:
    """In which order the two directions meet the real positions: packed, `sizes[t]` sequences at step t."""

    left: Int[Tensor, " packed"]
    right: Int[Tensor, " packed"]
    sizes: list[int]

    def __init__(self, valid: Bool[Tensor, "batch time"]) -> None:
        lengths, time = valid.sum(1), valid.shape[1]
        rows = torch.arange(len(valid), device=valid.device)[:, None] * time
        steps = torch.arange(time, device=valid.device)
        mirrored = (lengths[:, None] - 1 - steps).clamp(min=0)
        orders = torch.stack([rows + steps, rows + mirrored], dim=2)
        packed = pack_padded_sequence(orders, lengths.cpu(), batch_first=True, enforce_sorted=False)
        self.left, self.right = packed.data.unbind(1)
        self.sizes = packed.batch_sizes.tolist()
