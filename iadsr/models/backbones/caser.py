"""Caser: horizontal and vertical convolutions over the newest items of the prefix (Tang and Wang 2018).

Caser's user embedding is left out: h_t must be a function of the prefix alone (Eq. 7), and a history that was never
seen in training must be scorable. The paper's L (items that a convolution sees) is `window`.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.layers.dropout import Dropout
from iadsr.layers.jagged import LengthGroup, gather_rows, length_groups, scatter_rows
from iadsr.layers.linear import Linear, linear
from iadsr.params import Group


class CaserParams(Group):
    """`backbones.caser` of params.yaml."""

    hidden: int = Field(ge=1)
    window: int = Field(ge=1)
    horizontal: int = Field(ge=1)  # filters of each height 1..window
    vertical: int = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)


class Caser(nn.Module):
    """Every prefix's convolutions at once.

    A horizontal filter of height h that ends at position t is the same number for all prefixes whose window holds
    t-h+1..t. So each is computed once per position (one product with all heights stacked, short ones zero-padded),
    and the max over time of a prefix is a running maximum.
    """

    matmul_dtype = torch.float32  # of the horizontal filters, in training

    def __init__(self, dim: int, max_length: int, params: CaserParams) -> None:
        super().__init__()
        self.hidden = params.hidden
        self.window = self.receptive_field = params.window
        self.horizontal = nn.Parameter(torch.empty(params.window, params.horizontal, params.window, dim))
        self.horizontal_bias = nn.Parameter(torch.zeros(params.window, params.horizontal))
        self.vertical = nn.Parameter(torch.empty(params.vertical, params.window))
        self.dropout = Dropout(params.dropout)
        features = params.window * params.horizontal + params.vertical * dim
        self.fuse = Linear(features, params.hidden)
        self.reset()

    def reset(self) -> None:
        for index, filters in enumerate(self.horizontal.data):
            nn.init.uniform_(filters, -1, 1).div_(((index + 1) * filters.shape[-1]) ** 0.5)
        nn.init.uniform_(self.vertical, -1, 1)
        with torch.no_grad():
            self.vertical.div_(self.window**0.5)

    def forward(
        self,
        inputs: Float[Tensor, "batch time dim"],
        valid: Bool[Tensor, "batch time"],
        positions: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """The states of the prefixes that end at these real positions (None: at all of them); zeros elsewhere."""
        real, groups = length_groups(valid)
        needed = (valid if positions is None else positions).flatten()[real].nonzero().flatten()
        features = torch.cat([self.features(inputs, real[group.part], group) for group in groups])
        states = F.relu(self.fuse(self.dropout(gather_rows(features, needed))))
        return scatter_rows(states, real[needed], valid.numel()).unflatten(0, valid.shape)

    def features(
        self, inputs: Tensor, real: Int[Tensor, " real"], group: LengthGroup
    ) -> Float[Tensor, "real features"]:
        """What both kinds of filters find at each real position of a group, whose windows may be short."""
        windows = self.windows(inputs, real, min(self.window, group.valid.shape[1]))
        return torch.cat([self.across(windows, group), self.along(windows)], dim=-1)

    def windows(
        self, inputs: Float[Tensor, "batch time dim"], real: Int[Tensor, " real"], width: int
    ) -> Float[Tensor, "real width dim"]:
        """The `width` newest items of the prefix at each real position, oldest first; zeros before the first."""
        time, dim = inputs.shape[1:]
        before = F.pad(inputs, (0, 0, width - 1, 0)).view(-1, dim)  # width - 1 zeros before each history
        begins = real + real // time * (width - 1)
        return F.embedding(begins[:, None] + torch.arange(width, device=real.device), before)

    def across(self, windows: Float[Tensor, "real width dim"], group: LengthGroup) -> Float[Tensor, "real across"]:
        """Horizontal filters: ReLU, then for height h the maximum over the window's last window-h+1 positions."""
        weights = (self.horizontal * self.slots_of_heights())[:, :, -windows.shape[1] :]  # what is older is zero
        dtype = self.matmul_dtype if self.training else windows.dtype
        filters, biases = weights.flatten(2).flatten(0, 1), self.horizontal_bias.flatten()
        filtered = F.relu(linear(windows.flatten(1), filters, biases, dtype))
        return group.unpadded(self.largest(group.padded(filtered)))

    def largest(self, filtered: Float[Tensor, "windows time across"]) -> Float[Tensor, "windows time across"]:
        """The running maximum of each height's filters."""
        by_height = filtered.split(filtered.shape[2] // self.window, dim=2)
        return torch.cat([running_max(values, self.window - h) for h, values in enumerate(by_height)], dim=2)

    def slots_of_heights(self) -> Float[Tensor, "window 1 window 1"]:
        """1 where a filter of height h (first axis, 0-based) sees the window's slot (third axis): its last h+1."""
        slots = torch.arange(self.window, device=self.horizontal.device)
        return (slots[None, :] >= self.window - 1 - slots[:, None])[:, None, :, None].to(self.horizontal.dtype)

    def along(self, windows: Float[Tensor, "real width dim"]) -> Float[Tensor, "real along"]:
        """Vertical filters: weighted sums of the window's items."""
        return (self.vertical[:, -windows.shape[1] :] @ windows).flatten(1)


def running_max(values: Float[Tensor, "batch time width"], count: int) -> Float[Tensor, "batch time width"]:
    """Maximum of each position and the `count` - 1 before it; positions before the first do not take part."""
    padded = F.pad(values.transpose(1, 2), (count - 1, 0), value=float("-inf"))
    return F.max_pool1d(padded, count, stride=1).transpose(1, 2)
