"""GRU4Rec against GRU cells that are stepped over each prefix."""

from __future__ import annotations

import pytest
import torch
from small_models import DIM, LENGTH, small_backbone
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("one_thread")


def stepped(gru: nn.GRU, prefix: Tensor) -> Tensor:
    """The top layer's state after the last of `prefix`'s inputs, one cell a layer, from zero states."""
    cells = []
    for layer in range(gru.num_layers):
        cell = nn.GRUCell(DIM if layer == 0 else gru.hidden_size, gru.hidden_size)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        cell.load_state_dict({name: getattr(gru, f"{name}_l{layer}") for name in names})
        cells.append(cell)
    states = [torch.zeros(gru.hidden_size) for _ in cells]
    for each in prefix:
        below = each
        for layer, cell in enumerate(cells):
            below = states[layer] = cell(below, states[layer])
    return states[-1]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_equals_cells_stepped_over_every_prefix(layers: int) -> None:
    torch.manual_seed(0)
    backbone = small_backbone("gru4rec", layers=layers)
    inputs = torch.randn(2, LENGTH, DIM)
    states = backbone(inputs, torch.ones(2, LENGTH, dtype=torch.bool))
    for row in range(2):
        for place in range(LENGTH):
            torch.testing.assert_close(states[row, place], stepped(backbone.gru, inputs[row, : place + 1]))
