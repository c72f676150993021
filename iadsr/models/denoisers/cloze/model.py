"""Cloze: any backbone, trained on histories of which a detector knows how likely each interaction is noise.

The detector (`detector.py`) is trained first, once for a data set and an encoder, whatever the backbone.
Training then uses the probability p that an interaction is clean, as `inputs` and `targets` say: `raw` takes no notice
of it, `weighted` multiplies embeddings by p and losses by p, `dropped` leaves out what is more likely noise than not. A
user whose two views agree less than `theta` is not denoised at all. What is recommended follows from the history as it
is.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.cloze.detector import Detector, DetectorParams
from iadsr.models.recommender import Recommender, Traits, Verdicts
from iadsr.models.verdicts import training_batches
from iadsr.params import Group
from iadsr.sequences.windows import Batch, Feed

Use = Literal["raw", "weighted", "dropped"]
CERTAIN = 1e-6  # the least probability of either


class ClozeParams(Group):
    """`denoisers.cloze` of params.yaml, with `theta`, which stands at top level."""

    inputs: Use
    targets: Use
    detector: DetectorParams
    theta: float = Field(ge=-1, le=1)


class Cloze(Recommender):
    """A backbone and a detector; `clean` is each row's probability of being no noise, known in training alone."""

    params_type = ClozeParams
    traits = Traits(reads_texts=True, top_level=("theta",))
    clean: Float[Tensor, " rows"]

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> Cloze:
        model = cls(config, backbone, cls.params_type.model_validate(config.denoiser_params))
        if feed is not None:
            assert feed.vectors is not None, "the detector needs text vectors"
            model.detector.read(torch.tensor(feed.vectors.items[: config.item_count + 1]).float())
            model.clean = torch.ones(len(feed.sequences.items))
        return model

    def __init__(self, config: ModelConfig, backbone: Any, params: ClozeParams) -> None:
        super().__init__(config.item_count, config.dim, backbone)
        assert config.encodings is not None
        sizes = config.user_count, config.item_count, config.encodings["dim"], config.max_length
        self.params, self.detector = params, Detector(*sizes, params.detector).requires_grad_(False)

    def trained_state(self) -> dict[str, Tensor]:
        return {name: value for name, value in super().trained_state().items() if not name.startswith("detector.")}

    def train(self, mode: bool = True) -> Cloze:
        """The detector judges the same in training as afterwards."""
        super().train(mode)
        self.detector.eval()
        return self

    @torch.no_grad()
    def weigh(self, feed: Feed, max_length: int) -> None:
        """Judge all training rows, once the detector is trained."""
        self.clean = torch.ones(len(feed.sequences.items), device=feed.sequences.items.device)
        for batch in training_batches(feed, max_length):
            self.clean[batch.rows[batch.valid]] = self.clean_probability(batch)[batch.valid]

    def clean_probability(self, batch: Batch) -> Float[Tensor, "batch time"]:
        """1 - the probability of noise; 1 in windows whose views agree less than theta."""
        noise, agreement = self.detector.judge(batch)
        return (1 - noise).where((agreement >= self.params.theta)[:, None], 1.0)

    def judge(self, batch: Batch) -> Verdicts:
        """The score is the logarithm of the odds of being clean."""
        clean = self.clean_probability(batch)
        score = torch.logit(clean, eps=CERTAIN)
        return Verdicts.without_cosines(score, clean, score >= 0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy with inputs and targets that count as much as they are clean."""
        own = self.clean[batch.rows.clamp(min=0)]
        following = self.clean[(batch.rows + 1).clamp(max=len(self.clean) - 1)]
        states, known = self.states_of(batch.items, own)
        weights = {"raw": None, "weighted": following, "dropped": (following >= 0.5).to(own.dtype)}
        targets = batch.targets if known is None else batch.targets * known
        return {"ce": self.cross_entropy(states, targets, weights[self.params.targets])}

    def states_of(
        self, items: Int[Tensor, "batch time"], clean: Float[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "batch time hidden"], Bool[Tensor, "batch time"] | None]:
        """The state of each prefix, and which have one (None: all), `inputs` being used as asked."""
        if self.params.inputs == "raw":
            return self.prefix_states(items), None
        if self.params.inputs == "weighted":
            return self.prefix_states(items, clean), None
        return self.states_without(items, (clean >= 0.5) & (items > 0))

    def states_without(
        self, items: Int[Tensor, "batch time"], kept: Bool[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "batch time hidden"], Bool[Tensor, "batch time"]]:
        """The states of prefixes whose items, but for those kept, were never there; none for a prefix of nothing."""
        order = torch.argsort(~kept, dim=1, stable=True)
        compact = (items * kept).gather(1, order)
        compact[:, 0] = compact[:, 0].where(kept.any(1), items[:, 0])  # a window of nothing has states that nobody asks
        states = self.prefix_states(compact)
        place = kept.cumsum(1) - 1
        taken = place.clamp(min=0)[..., None].expand(-1, -1, states.shape[2])
        return states.gather(1, taken), place >= 0
