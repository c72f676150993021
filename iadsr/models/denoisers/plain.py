"""A plain backbone. Its training may leave out interactions at random: what a denoiser that does so has to beat.

Each interaction is left out with the same probability, drawn anew in every epoch, as input and as target; the others
close ranks. Histories of which it never sees all are harder to learn by heart, whether they hold noise or not.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from iadsr.models.config import ModelConfig
from iadsr.models.recommender import Recommender
from iadsr.params import Group
from iadsr.sequences.windows import Batch, Feed


class PlainParams(Group):
    """`denoisers.none` of params.yaml."""

    random_drop: float = Field(0.0, ge=0, lt=1)  # share of the interactions; models from before it leave out none


class Plain(Recommender):
    """A backbone trained with cross-entropy alone."""

    params_type = PlainParams

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> Plain:
        params = cls.params_type.model_validate(config.denoiser_params)
        return cls(config.item_count, config.dim, backbone, params.random_drop)

    def __init__(self, item_count: int, dim: int, backbone: Any, random_drop: float) -> None:
        super().__init__(item_count, dim, backbone)
        self.random_drop = random_drop

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if not self.random_drop:
            return super().loss(batch)
        windows, time = batch.items.shape  # the last column is of what follows the window
        kept = torch.rand(windows, time + 1, device=batch.items.device) >= self.random_drop
        states, known = self.states_without(batch.items, kept[:, :-1] & batch.valid)
        return {"ce": self.cross_entropy(states, batch.targets * known * kept[:, 1:], items=batch.items)}
