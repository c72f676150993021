"""From signals to the probability that an item is noise: a sum of rising functions, one a signal, then a calibration.

Signs are fixed by meaning: a signal that is larger can never make an item more suspect. Unconstrained, a classifier
learns the marks of the noise that it was trained on and fails on any other.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

KNOTS, POINTS = 12, 64  # of each signal's function; of the calibration


class Weighing(nn.Module):
    """Each signal's function is linear between its knots and flat beyond; so is the calibration of their sum."""

    def __init__(self, signals: int) -> None:
        super().__init__()
        self.register_buffer("knots", torch.linspace(0, 1, KNOTS).repeat(signals, 1))
        self.register_buffer("heights", torch.zeros(signals, KNOTS))  # rising: what is added to the fit at each knot
        self.register_buffer("points", torch.linspace(0, 1, POINTS))  # of the sum
        self.register_buffer("noise", torch.zeros(POINTS))  # falling: the probability of noise at each point
        self.register_buffer("rate", torch.zeros(()))  # the share of noise that was found in training histories

    knots: Float[Tensor, "signals knots"]
    heights: Float[Tensor, "signals knots"]
    points: Float[Tensor, " points"]
    noise: Float[Tensor, " points"]
    rate: Float[Tensor, ""]

    def parts(self, signals: Float[Tensor, "*where signals"]) -> Float[Tensor, "*where signals"]:
        """What each signal adds to the fit."""
        return torch.stack(
            [
                interpolated(value, knots, heights)
                for value, knots, heights in zip(signals.unbind(-1), self.knots, self.heights, strict=True)
            ],
            -1,
        )

    def noise_probability(self, signals: Float[Tensor, "*where signals"]) -> Float[Tensor, "*where"]:
        return interpolated(self.parts(signals).sum(-1), self.points, self.noise)


def interpolated(
    values: Float[Tensor, "*where"], points: Float[Tensor, " points"], heights: Float[Tensor, " points"]
) -> Float[Tensor, "*where"]:
    """The function that is linear between rising `points`, where it has these `heights`, and flat beyond."""
    right = torch.searchsorted(points, values.contiguous()).clamp(1, len(points) - 1)
    begin, end = points[right - 1], points[right]
    share = ((values - begin) / (end - begin).clamp(min=1e-12)).clamp(0, 1)
    return heights[right - 1] + share * (heights[right] - heights[right - 1])
