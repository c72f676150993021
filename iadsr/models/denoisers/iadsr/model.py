"""IADSR (CIKM 2025): align collaborative with semantic interests, then mask items on which the two disagree.

Where the paper leaves a choice, this file takes: two bias-free projections of the text encodings, one for the
long-term and one for the short-term role (as the released code does); InfoNCE temperature 0.1; a linear decoder that
begins at zero. A decoder that begins at random rebuilds worse than nothing at first, so that hiding the states pays:
the gradient through the masks then drives every score down, and SASRec drops nearly everything for good. The item
embeddings themselves are rebuilt, and take part in the gradient as in the released code, though Eq. 21 could also be
read with a constant target.

Masks come in two readings of Eq. 19:

- `prefix` (default): every prefix p has a mask of its own, K[p, t], made from prefix p alone. Nothing before an item
  ever depends on it, in training as in evaluation.
- `user`: one mask a user, made from the whole training history (or its window), as the paper writes. In training, the
  mask that hides an input of position t has then seen the items that positions after t must predict.

In training an epoch uses the masks that the epoch before sampled. One Gumbel number an item and epoch serves all
prefixes that hold the item (the paper draws one an item, too). So each mask has the distribution of Eq. 17, the masks
of a window's prefixes mostly agree, and prefixes whose masks agree are encoded in one pass. At test there is no epoch
before: the unmasked history is judged by the deterministic rule (score > 0), masked, and encoded again.

Histories longer than `max_length` are cut into windows that move from epoch to epoch. A verdict that the epoch before
did not make is the last one made, or "keep"; and at the head of a later window the state h_t has seen only the window,
while the text of l_t also holds the items before it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.layers.jagged import padded
from iadsr.layers.linear import Linear
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers import masking
from iadsr.models.denoisers.iadsr.alignment import alignment_loss
from iadsr.models.denoisers.iadsr.mask_table import MaskTable
from iadsr.models.denoisers.iadsr.released import Quirk, in_batch_loss, newest_targets, pooled
from iadsr.models.denoisers.prefix_masks import seen, states_under_prefix_masks
from iadsr.models.recommender import Recommender, Traits, Verdicts, newest
from iadsr.params import Group
from iadsr.sequences.windows import Batch, Feed


class IADSRParams(Group):
    """`denoisers.iadsr` of params.yaml, and the top-level `theta`."""

    theta: float = Field(ge=-1, le=1)
    lambda_info: float = Field(ge=0)
    lambda_recon: float = Field(ge=0)
    interests: Literal["both", "long", "short"]
    masks: Literal["prefix", "user", "none"]
    mask_at_test: bool
    info_temperature: float = Field(gt=0)
    gumbel_temperature: float = Field(gt=0)
    quirks: list[Quirk] = Field(default_factory=list)  # of the released code; older models have none

    @field_validator("quirks")
    @classmethod
    def _pooled_as_released(cls, value: list[Quirk]) -> list[Quirk]:
        if "pooled_interest" in value and "decoder_masks" not in value:
            raise ValueError("pooled_interest goes with decoder_masks, as in the released code; add that")
        return value


class IADSR(Recommender):
    """Eq. 8-22 over any backbone."""

    params_type = IADSRParams
    traits = Traits(top_level=("theta",), reads_texts=True, reads_prefix_texts=True)

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> IADSR:
        assert config.encodings is not None
        params = IADSRParams.model_validate(config.denoiser_params)
        shape = (len(feed.sequences.items) if feed else 0, config.max_length)
        generator = masking.mask_generator(config.seed)
        return cls(config.item_count, config.dim, backbone, params, config.encodings["dim"], shape, generator)

    def __init__(
        self,
        item_count: int,
        dim: int,
        backbone: Any,
        params: IADSRParams,
        text_width: int,
        mask_shape: tuple[int, int] = (0, 0),
        generator: torch.Generator | None = None,
    ) -> None:
        """`mask_shape` is (rows of the data set, max_length); it and `generator` are needed for training only."""
        super().__init__(item_count, dim, backbone)
        self.params = params
        self.project_long = Linear(text_width, backbone.hidden, bias=False)
        self.project_short = Linear(text_width, backbone.hidden, bias=False)
        self.decoder = nn.Linear(backbone.hidden, dim)
        nn.init.zeros_(self.decoder.weight)
        nn.init.zeros_(self.decoder.bias)
        self.generator = generator or torch.Generator()
        self.mask_table = MaskTable(mask_shape[0], mask_shape[1] if params.masks == "prefix" else 1)
        self.dropped: Tensor | int = 0
        self.judged: Tensor | int = 0
        self.qualified: Tensor | int = 0
        self.gated = 0

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Eq. 22: cross-entropy, alignment, reconstruction; terms with weight 0 are not computed."""
        states = self.masked_prefix_states(batch)
        terms = {"ce": self.prediction_loss(states, batch)}
        long_semantic, short_semantic = self.project_texts(batch)
        unit, long_states = F.normalize(states, dim=-1), self.long_term(states)
        if self.params.lambda_info > 0:
            aligned = alignment_loss(
                unit,
                long_states,
                long_semantic,
                short_semantic,
                batch.valid,
                self.params.info_temperature,
                self.settings.matmul_dtype,
            )
            terms["info"] = self.params.lambda_info * aligned
        if self.params.masks == "none" and self.params.lambda_recon == 0:
            return terms
        mask, qualified = self.sample_masks(batch, unit, long_states, long_semantic, short_semantic)
        if self.params.lambda_recon > 0:
            terms["recon"] = self.params.lambda_recon * self.reconstruction(batch, states, mask, qualified)
        return terms

    def prediction_loss(self, states: Float[Tensor, "batch time hidden"], batch: Batch) -> Float[Tensor, ""]:
        """Eq. 1, or what the released code has in its place."""
        targets = newest_targets(batch.targets) if "newest_target" in self.params.quirks else batch.targets
        if "in_batch_loss" not in self.params.quirks:
            return self.cross_entropy(states, targets, items=batch.items)
        found, own = self.with_target(states, targets)
        return in_batch_loss(found, self.items(own))

    def long_term(self, states: Float[Tensor, "batch time hidden"]) -> Float[Tensor, "batch time hidden"]:
        """The long-term collaborative interest of each prefix, of unit length: its state."""
        return F.normalize(pooled(states) if "pooled_interest" in self.params.quirks else states, dim=-1)

    def states(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """The state after each window, its noise masked by the deterministic rule where `mask_at_test` is set."""
        if not self.masks_at_test:
            return super().states(batch)
        return self.states_keeping(batch, self.judge(batch).kept)

    @property
    def masks_at_test(self) -> bool:
        """Whether a state depends on verdicts, and so on texts."""
        return self.hides_inputs and self.params.mask_at_test

    @property
    def hides_inputs(self) -> bool:
        """Whether masks are for what the backbone reads."""
        return self.params.masks != "none" and "decoder_masks" not in self.params.quirks

    def states_keeping(self, batch: Batch, kept: Bool[Tensor, "batch time"]) -> Float[Tensor, "batch dim"]:
        """The state after each window without the items that are not kept."""
        return self.head(newest(self.prefix_states(batch.items, kept, batch.newest), batch.last))

    def judge(self, batch: Batch) -> Verdicts:
        """Each item's cosines, score, keep probability and verdict; below theta, or without masks, all is kept."""
        states = self.prefix_states(batch.items)
        unit, long_states = F.normalize(states, dim=-1), self.long_term(states)
        cosines = self.judge_from_newest(batch, unit, long_states, *self.project_texts(batch))
        score = masking.score(cosines, self.params.interests)[:, 0]
        free = (cosines.gate < self.params.theta)[:, 0]
        if self.params.masks == "none":
            free = torch.ones_like(free)
        return Verdicts(
            c1=cosines.c1[:, 0],
            c2=cosines.c2[:, 0],
            c3=cosines.c3[:, 0],
            score=score,
            probability=torch.where(free, 1.0, masking.keep_probability(score)),
            kept=free | masking.decided(score),
        )

    def project_texts(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "batch time hidden"], Float[Tensor, "batch time hidden"]]:
        """The prefix encodings in their long-term and short-term roles, in the states' space, of unit length."""
        assert batch.text_vectors is not None, "IADSR needs batches with text encodings"
        encodings = batch.text_vectors[batch.valid]
        long_semantic, short_semantic = (
            padded(F.normalize(project(encodings), dim=-1), batch.valid)
            for project in (self.project_long, self.project_short)
        )
        return long_semantic, short_semantic

    def judge_from_newest(
        self, batch: Batch, unit: Tensor, long_states: Tensor, long_semantic: Tensor, short_semantic: Tensor
    ) -> masking.Cosines:
        """Cosines with the long-term interests of the whole window: `newest` has one entry."""
        whole = (newest(each, batch.last)[:, None] for each in (long_states, long_semantic))
        return masking.cosines(unit, short_semantic, *whole)

    def sample_masks(
        self, batch: Batch, unit: Tensor, long_states: Tensor, long_semantic: Tensor, short_semantic: Tensor
    ) -> tuple[Float[Tensor, "batch time"], Bool[Tensor, " batch"]]:
        """Sample this epoch's masks and remember them for the next.

        Returns the whole window's mask, with a straight-through gradient, and who passed the gate.
        """
        cosines = self.judge_from_newest(batch, unit, long_states, long_semantic, short_semantic)
        qualified = cosines.gate[:, 0, 0] >= self.params.theta
        if self.params.masks == "none":
            return torch.ones_like(batch.items, dtype=unit.dtype), qualified
        noise = masking.gumbel(batch.items.shape, self.generator, unit.device)
        own = self.sampled(masking.score(cosines, self.params.interests)[:, 0], noise, qualified[:, None])
        if self.params.masks == "user":
            self.mask_table.remember_items(batch.rows, own > 0.5)
            self.count(own > 0.5, batch.valid, qualified)
            return own, qualified
        with torch.no_grad():
            every = masking.cosines(unit, short_semantic, long_states, long_semantic)
            gates = every.gate >= self.params.theta
            masks = self.sampled(masking.score(every, self.params.interests), noise[:, None, :], gates) > 0.5
            self.mask_table.remember_prefixes(batch.rows, masks)
            self.count(masks, seen(batch), gates[..., 0][batch.valid])
        return own, qualified

    def sampled(self, score: Tensor, noise: Tensor, qualified: Tensor) -> Tensor:
        """Hard masks with straight-through gradient; all ones where not qualified."""
        mask = masking.straight_through(masking.soft_mask(score, noise, self.params.gumbel_temperature))
        return torch.where(qualified, mask, torch.ones_like(mask))

    def reconstruction(
        self, batch: Batch, states: Tensor, mask: Float[Tensor, "batch time"], qualified: Bool[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Eq. 20-21: squared error, summed over positions and dimensions, mean over the qualified windows."""
        rebuilt = self.decoder(states * mask[..., None])
        errors = (rebuilt - self.items(batch.items)).square().sum(-1)
        by_user = (errors * batch.valid).sum(1)
        return (by_user * qualified).sum() / qualified.sum().clamp(min=1)

    # --- masks of the previous epoch ---

    def masked_prefix_states(self, batch: Batch) -> Float[Tensor, "batch time hidden"]:
        """Prefix states of the inputs under the previous epoch's masks (Eq. 19)."""
        if not self.hides_inputs:
            return self.prefix_states(batch.items)
        if self.params.masks == "user":
            return self.prefix_states(batch.items, self.mask_table.recall_items(batch.rows))
        return states_under_prefix_masks(self, batch, self.mask_table.recall_prefixes(batch.rows))

    # --- epochs ---

    def count(self, masks: Tensor, where: Tensor, qualified: Tensor) -> None:
        self.judged += where.sum()
        self.dropped += (where & ~masks).sum()
        self.gated += qualified.numel()
        self.qualified += qualified.sum()

    def end_epoch(self) -> dict[str, float]:
        """Make this epoch's masks the previous ones; report the sampled drop rate and the share past the gate."""
        self.mask_table.end_epoch()
        figures = {
            "drop_rate": int(self.dropped) / max(1, int(self.judged)),
            "qualified": int(self.qualified) / max(1, self.gated),
        }
        self.dropped = self.judged = self.qualified = self.gated = 0
        return figures

    def training_state(self) -> dict[str, Tensor]:
        return {"masks": self.mask_table.previous, "generator": self.generator.get_state()}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        self.mask_table.load(state["masks"])
        self.generator.set_state(state["generator"])
