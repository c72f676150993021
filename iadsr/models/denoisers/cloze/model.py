"""Cloze: any backbone, trained on histories of which a detector knows how likely each interaction is noise.

The detector (`detector.py`) is trained first, once for a data set and an encoder, whatever the backbone.
Training then uses the probability p that an interaction is clean, as `inputs` and `targets` say: `raw` takes no notice
of it, `weighted` multiplies embeddings by p and losses by p, `dropped` leaves out what is noise with more probability
than `drop_above`, `sampled` keeps each interaction with probability p, drawn anew in every epoch; of what it keeps it
leaves out a share, `random_drop`, as a plain backbone may. A window of a history whose two views agree less than
`theta` is not denoised at all. What is recommended follows from the history as it is, and verdicts drop by
`drop_above`, however training uses it.
"""

from __future__ import annotations

import math
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

Use = Literal["raw", "weighted", "dropped", "sampled"]
CERTAIN = 1e-6  # the least probability of either


class ClozeParams(Group):
    """`denoisers.cloze` of params.yaml, with `theta`, which stands at top level."""

    inputs: Use
    targets: Use
    random_drop: float = Field(0.0, ge=0, lt=1)  # share of the interactions; models from before it leave out none
    drop_above: float = Field(0.5, gt=0, lt=1)  # probability of noise; models from before it dropped above a half
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

    def training_state(self) -> dict[str, Tensor]:
        return {"clean": self.clean}  # its last digits depend on the number of threads

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        self.clean = state["clean"].to(self.clean.device)

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
        return self.examined(batch)[0]

    @torch.no_grad()
    def examined(
        self, batch: Batch, others: Float[Tensor, "others width"] | None = None
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time signals"]]:
        """The same, and what each signal adds to the fit; `others` are texts of items beyond the catalogue."""
        noise, agreement, parts = self.detector.judge(batch, others)
        return (1 - noise).where((agreement >= self.params.theta)[:, None], 1.0), parts

    def judge(self, batch: Batch) -> Verdicts:
        """The score is how far the logarithm of the odds of being clean lies above that where items are dropped."""
        clean = self.clean_probability(batch)
        score = self.score(clean)
        return Verdicts.without_cosines(score, clean, score >= 0)

    def score(self, clean: Float[Tensor, "*where"]) -> Float[Tensor, "*where"]:
        return torch.logit(clean, eps=CERTAIN) - math.log(1 / self.params.drop_above - 1)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy with inputs and targets that count as much as they are clean.

        An interaction that is drawn to be left out is so as input and as target, if both are `sampled`; not across
        the windows of a long history.
        """
        rows = batch.rows[:, :1] + torch.arange(batch.items.shape[1] + 1, device=batch.rows.device)
        clean = self.clean[rows.clamp(max=len(self.clean) - 1)]  # of each window's items, and of what follows the last
        worth = {
            "raw": lambda: None,
            "weighted": lambda: clean,
            "dropped": lambda: (self.score(clean) >= 0).to(clean.dtype),
            "sampled": lambda: torch.bernoulli(clean * (1 - self.params.random_drop)),
        }
        inputs = worth[self.params.inputs]()
        targets = inputs if self.params.targets == self.params.inputs else worth[self.params.targets]()
        states, known = self.states_of(batch.items, None if inputs is None else inputs[:, :-1])
        wanted = batch.targets if known is None else batch.targets * known
        weights = None if targets is None else targets[:, 1:]
        return {"ce": self.cross_entropy(states, wanted, weights, batch.items)}

    def states_of(
        self, items: Int[Tensor, "batch time"], worth: Float[Tensor, "batch time"] | None
    ) -> tuple[Float[Tensor, "batch time hidden"], Bool[Tensor, "batch time"] | None]:
        """The state of each prefix, and which have one (None: all), inputs being worth so much."""
        if worth is None or self.params.inputs == "weighted":
            return self.prefix_states(items, worth), None
        return self.states_without(items, (worth > 0) & (items > 0))
