"""From real positions back to padded windows, for backbones that do not compute padding."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def padded(states: Float[Tensor, "real width"], valid: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch time width"]:
    """The states of real positions, window by window, in their places; zeros elsewhere."""
    return states.new_zeros(*valid.shape, states.shape[1]).index_put(valid.nonzero(as_tuple=True), states)
