"""The exponential moving average of a model's weights over the steps of its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from iadsr.models.recommender import Recommender


class Average:
    """Weights averaged so far, by the names of `trained_state`; with a decay of 0 there are none.

    A step counts `decay` times as much as the one after it. After n steps the decay is at most (1 + n) / (10 + n), so
    that the weights before training soon count for nothing.
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: Recommender) -> None:
        """After a step. Of what is no float, such as a count, the newest is kept."""
        if self.decay == 0:
            return
        current = model.trained_state()
        if not self.weights:
            self.weights = {name: value.clone() for name, value in current.items()}
        floats = [name for name, value in current.items() if value.is_floating_point()]
        self.weights |= {name: value.clone() for name, value in current.items() if name not in floats}
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([self.weights[name] for name in floats], [current[name] for name in floats], 1 - decay)
        self.steps += 1

    @contextmanager
    def in_place(self, model: Recommender) -> Iterator[None]:
        """The model with the averaged weights, if there are any, in the place of its own."""
        if not self.weights:
            yield
            return
        current = {name: value.clone() for name, value in model.trained_state().items()}
        model.load_trained_state(self.weights)
        try:
            yield
        finally:
            model.load_trained_state(current)
