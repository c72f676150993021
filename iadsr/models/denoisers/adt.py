"""ADT (WSDM 2021): distrust interactions whose loss is large, by leaving them out or by giving them less weight.

ADT was written for feedback without order, where it drops *targets*, and so it does here: a position of a history is an
example, and its loss is that of the next item, over the whole catalogue. All items stay in the histories, as inputs.

- `truncated` (T-CE): of each batch the positions with the largest losses are left out. Their share grows linearly
  from 0 to `largest_share` in the first `gradual_steps` batches, since noise is what is learnt last; it is rounded
  down to whole positions, so that something is always left. The loss is the mean over the positions that are left.
- `reweighted` (R-CE): each loss is multiplied by p^alpha, p the probability of the target, a constant. The loss is the
  plain mean of these products, as in the released code: it is not divided by the sum of the weights.

The released code draws one negative for each positive, and weights negatives by (1 - p)^alpha; a softmax over the
catalogue has no negatives of its own.

Its verdict on an interaction, which the paper does not need, is about the item as a target of the items before it in
the window. Under `truncated` an item is kept where its loss is below a threshold: the running mean, over about the
last 1 / PACE batches, of the smallest loss that was left out. These losses were under dropout and of the model as it
was then, so the share of items that are dropped differs, and is larger among validation items. Under `reweighted` all
items are kept, and the score is the weight. A window's first item is no target: it has no score and is kept.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from iadsr.layers.cross_entropy import catalogue_cross_entropy, catalogue_losses
from iadsr.models.config import ModelConfig
from iadsr.models.recommender import Recommender, Traits, Verdicts
from iadsr.params import Group
from iadsr.sequences.windows import Batch, Feed


class ADTParams(Group):
    """`denoisers.adt` of params.yaml."""

    loss: Literal["truncated", "reweighted"]
    largest_share: float = Field(ge=0, lt=1)  # of a batch's positions that are left out, at last
    gradual_steps: int = Field(ge=1)  # batches until then
    alpha: float = Field(ge=0, le=1)


ROUNDING = 1e-6  # 0.29 * 100 is a bit below 29 in floating point
PACE = 0.01  # how far the threshold moves towards each batch's


class ADT(Recommender):
    """Any backbone, plain but for its loss."""

    params_type = ADTParams
    traits = Traits(sampled_loss=False)  # a loss against sampled items is small or large with the sample
    threshold: Float[Tensor, ""]

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> ADT:
        params = cls.params_type.model_validate(config.denoiser_params)
        return cls(config.item_count, config.dim, backbone, params)

    def __init__(self, item_count: int, dim: int, backbone: Any, params: ADTParams) -> None:
        super().__init__(item_count, dim, backbone)
        self.params = params
        self.register_buffer("threshold", torch.tensor(float("inf")))
        self.steps = 0
        self.judged = self.left_out = 0
        self.weight: Tensor | float = 0.0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy without the largest losses, or with the larger ones weighing less."""
        states = self.prefix_states(batch.items)
        if self.params.loss == "reweighted":
            return {"ce": self.reweighted(states, batch.targets)}
        return {"ce": self.cross_entropy(states, self.trusted(states, batch.targets), items=batch.items)}

    def judge(self, batch: Batch) -> Verdicts:
        """Verdicts on items as targets; NaN where the window does not show what came before."""
        following = F.pad(batch.items[:, 1:], (0, 1))
        losses = F.pad(self.losses(self.prefix_states(batch.items), following)[:, :-1], (1, 0), value=float("nan"))
        if self.params.loss == "reweighted":
            certain = torch.ones_like(losses)
            return Verdicts.without_cosines(self.weights(losses), certain, certain.bool())
        score = (self.threshold - losses).where(self.threshold.isfinite(), float("nan"))
        kept = ~(score <= 0)
        return Verdicts.without_cosines(score, kept.to(score.dtype), kept)

    @torch.no_grad()
    def losses(
        self, states: Float[Tensor, "batch time hidden"], targets: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time"]:
        """The cross-entropy of each position; NaN without a target."""
        found, own = self.with_target(states, targets)
        dtype = self.settings.matmul_dtype if self.training else found.dtype
        result = torch.full(targets.shape, float("nan"), dtype=found.dtype, device=found.device)
        result[targets > 0] = catalogue_losses(found, self.item_table(), own, dtype)
        return result

    # --- truncated ---

    def share(self) -> float:
        """The share of the next batch's positions that is left out."""
        return self.params.largest_share * min(1.0, self.steps / max(1, self.params.gradual_steps - 1))

    def trusted(
        self, states: Float[Tensor, "batch time hidden"], targets: Int[Tensor, "batch time"]
    ) -> Int[Tensor, "batch time"]:
        """The targets without those with the largest losses."""
        positions = int((targets > 0).sum())
        count = int(self.share() * positions + ROUNDING)
        self.steps += 1
        self.judged, self.left_out = self.judged + positions, self.left_out + count
        if not count:
            return targets
        largest = self.losses(states, targets).nan_to_num(float("-inf")).flatten().topk(count)
        self.move_threshold(largest.values[-1])
        return targets.flatten().scatter(0, largest.indices, 0).view_as(targets)

    def move_threshold(self, smallest: Float[Tensor, ""]) -> None:
        """Move the threshold towards `smallest`; the first batch that leaves something out sets it."""
        pace = torch.where(self.threshold.isfinite(), PACE, 1.0)
        before = self.threshold.where(self.threshold.isfinite(), smallest)
        self.threshold.copy_(before + pace * (smallest - before))

    # --- reweighted ---

    def reweighted(
        self, states: Float[Tensor, "batch time hidden"], targets: Int[Tensor, "batch time"]
    ) -> Float[Tensor, ""]:
        """Mean over all positions with a target of p^alpha times the cross-entropy, which is -log p."""
        found, own = self.with_target(states, targets)
        arguments = found, self.item_table(), own, self.settings.matmul_dtype
        weights = self.weights(catalogue_losses(*arguments))
        self.judged, self.weight = self.judged + len(weights), self.weight + weights.sum()
        return catalogue_cross_entropy(*arguments, weights) / max(1, len(own))

    def weights(self, losses: Float[Tensor, "*where"]) -> Float[Tensor, "*where"]:
        """p^alpha; at most 1, also where rounding has made a loss negative."""
        return torch.exp(-self.params.alpha * losses).clamp(max=1)

    # --- epochs ---

    def end_epoch(self) -> dict[str, float]:
        """Report the share that was left out, or the mean weight."""
        positions = max(1, self.judged)
        truncated = self.params.loss == "truncated"
        figures = {"drop_rate": self.left_out / positions} if truncated else {"weight": float(self.weight) / positions}
        self.judged = self.left_out = 0
        self.weight = 0.0
        return figures

    def training_state(self) -> dict[str, Tensor]:
        return {"steps": torch.tensor(self.steps)}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["steps"])
