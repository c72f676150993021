"""What every recommender offers, and what it does where a method says nothing else: cross-entropy on all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from iadsr.layers.cross_entropy import catalogue_cross_entropy
from iadsr.layers.jagged import gather_rows
from iadsr.layers.linear import set_matmul_dtype
from iadsr.layers.principal import centred, principal_map
from iadsr.layers.sampled_softmax import sampled_cross_entropy
from iadsr.models.config import ModelConfig
from iadsr.models.repeats import Repeats, others_met
from iadsr.params import Group
from iadsr.sequences.windows import Batch, Feed


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on interactions, of a batch of windows or of all rows; `c1`, `c2`, `c3`, `score` may be NaN."""

    c1: Float[Tensor, "*where"]
    c2: Float[Tensor, "*where"]
    c3: Float[Tensor, "*where"]
    score: Float[Tensor, "*where"]  # below 0: dropped, above 0: kept
    probability: Float[Tensor, "*where"]  # that a sampled decision keeps the item
    kept: Bool[Tensor, "*where"]  # the deterministic decision

    @classmethod
    def without_cosines(cls, score: Tensor, probability: Tensor, kept: Tensor) -> Verdicts:
        """The verdicts of a method that compares no interests: c1, c2 and c3 are NaN."""
        nothing = torch.full_like(probability, float("nan"))
        return cls(nothing, nothing, nothing, score, probability, kept)

    def sampled(self, generator: torch.Generator) -> Bool[Tensor, "*where"]:
        """A sampled decision for each interaction; what was never judged is kept."""
        drawn = torch.rand(self.probability.shape, generator=generator).to(self.probability.device)
        return ~(drawn >= self.probability)


class NoParams(Group):
    """Of what has none."""


@dataclass(frozen=True)
class Traits:
    """What a method needs of its surroundings: of params.yaml, of the data, of training."""

    own_encoder: bool = False  # it stands alone and takes no backbone
    top_level: tuple[str, ...] = ()  # its parameters that stand at top level of params.yaml
    reads_texts: bool = False  # training needs what `encode` wrote
    reads_prefix_texts: bool = False  # batches must carry the text vectors of prefixes, where it is used, too
    sampled_loss: bool = True  # it can be trained by a loss over a sample of the catalogue
    largest_gradient: float | None = None  # norm to which a step's gradient is cut


@dataclass(frozen=True)
class LossSettings:
    """What a training decides of a model's loss; the defaults are those of a model that is not trained."""

    matmul_dtype: torch.dtype = torch.float32  # of the matrix products of the cross-entropy and of token-wise layers
    negatives: int | None = None  # sampled for the cross-entropy of a batch; None: it is over the whole catalogue
    prefixes_drawn: int = 0  # of each window, where each is an example of its own; 0: all


class Recommender(nn.Module):
    """Item embeddings, a backbone, and scores against the same embeddings (tied output)."""

    params_type: ClassVar[type[Group]] = NoParams  # of its entry in `denoisers` of params.yaml
    traits: ClassVar[Traits] = Traits()
    settings = LossSettings()

    def __init__(self, item_count: int, dim: int, backbone: Any) -> None:
        super().__init__()
        self.items = nn.Embedding(item_count + 1, dim, padding_idx=0)
        self.backbone = backbone
        self.repeats: Repeats | None = None  # what is added to scores of items of the history
        self.head = nn.Identity() if backbone.hidden == dim else nn.Linear(backbone.hidden, dim)
        nn.init.normal_(self.items.weight, std=0.02)
        with torch.no_grad():
            self.items.weight[0].zero_()

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> Recommender:
        """A model with fresh weights; `feed`, the data set, is there for training only."""
        return cls(config.item_count, config.dim, backbone)

    @torch.no_grad()
    def start_from(self, vectors: Float[Tensor, "table width"]) -> None:
        """Item embeddings begin as principal components of the items' text vectors, of which row 0 is padding.

        Components that the vectors do not have, and items without text, begin as they would otherwise.
        """
        texts, table = centred(vectors[1:].float()), self.items.weight[1 : len(vectors)]
        mapping = principal_map(texts[texts.any(1)], table.shape[1])
        here = texts.any(1)[:, None] & mapping.any(1)
        table.copy_(torch.where(here, texts @ mapping.T, table))

    def prepare(self, settings: LossSettings) -> None:
        """Get ready for a training; a sampled loss leaves most rows of the item table without a gradient."""
        self.settings = settings
        self.items.sparse = settings.negatives is not None
        set_matmul_dtype(self, settings.matmul_dtype)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named terms whose sum is minimised."""
        return {"ce": self.cross_entropy(self.prefix_states(batch.items), batch.targets, items=batch.items)}

    def states(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """The state that scores the item after each window."""
        return self.head(newest(self.prefix_states(batch.items, positions=batch.newest), batch.last))

    def item_table(self) -> Float[Tensor, "table dim"]:
        """What states are scored against, by inner product; row 0 is padding and never ranked."""
        return self.items.weight

    def scores(
        self,
        states: Float[Tensor, "batch dim"],
        table: Float[Tensor, "items dim"],
        items: Int[Tensor, "batch time"],
    ) -> Float[Tensor, "batch items"]:
        """Of all items but padding, after windows of these items; `table` is that of items without padding."""
        found = states @ table.T
        if self.repeats is not None:
            self.repeats.add_to(found, items)
        return found

    def judge(self, batch: Batch) -> Verdicts:
        """A plain recommender keeps everything."""
        ones = torch.ones(batch.items.shape, device=batch.items.device)
        return Verdicts.without_cosines(torch.full_like(ones, float("nan")), ones, ones.bool())

    def insertions(self, batch: Batch) -> Int[Tensor, "batch time most"] | None:
        """Items to insert before each one, oldest first, then zeros; None: the model inserts nothing."""
        return None

    def prefix_states(
        self,
        items: Int[Tensor, "batch time"],
        keep: Bool[Tensor, "batch time"] | Float[Tensor, "batch time"] | None = None,
        positions: Bool[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, "batch time hidden"]:
        """The backbone's state of every prefix, or at least of those that end at `positions`.

        Embeddings are multiplied by `keep`, so that those of items not kept are zero (Eq. 19).
        """
        inputs, real = self.items(items), items > 0
        if keep is not None:
            inputs = inputs * keep[..., None]
        return self.backbone(inputs, real, positions)

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

    def cross_entropy(
        self,
        states: Float[Tensor, "batch time hidden"],
        targets: Int[Tensor, "batch time"],
        weights: Float[Tensor, "batch time"] | None = None,
        items: Int[Tensor, "batch time"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over all positions with a target, by `weights` if given, of the cross-entropy (Eq. 1); 0 for none.

        Where repeats are learnt, those of the windows' `items` that a prefix holds are no part of its softmax.
        """
        (found, own), table = self.with_target(states, targets), self.item_table()
        scale = None if weights is None else weights[targets > 0]
        met = None if self.repeats is None or items is None else others_met(items, targets)
        if self.settings.negatives is None:
            total = catalogue_cross_entropy(found, table, own, self.settings.matmul_dtype, scale, met)
        else:
            drawn = torch.randint(1, len(table), (self.settings.negatives,)).to(table.device)
            total = sampled_cross_entropy(found, table, own, drawn, self.settings.matmul_dtype, scale, met)
        return total / (max(1, len(own)) if scale is None else scale.sum().clamp(min=1e-9))

    def with_target(
        self, states: Float[Tensor, "batch time hidden"], targets: Int[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "positions dim"], Int[Tensor, " positions"]]:
        """What is scored against the item table at each position with a target, and the target."""
        real = (targets.flatten() > 0).nonzero().flatten()
        return self.head(gather_rows(states.flatten(0, 1), real)), targets.flatten()[real]

    def end_epoch(self) -> dict[str, float]:
        """Called after each training epoch; returns figures of the epoch for the history."""
        return {}

    def trained_state(self) -> dict[str, Tensor]:
        """The weights that training changes: all but those of a part that was trained before."""
        return self.state_dict()

    def load_trained_state(self, weights: dict[str, Tensor]) -> None:
        """Take back what `trained_state` gave; RuntimeError where a weight is missing or unknown."""
        trained = self.trained_state()
        others = {name: value for name, value in self.state_dict().items() if name not in trained}
        self.load_state_dict(others | weights)

    def training_state(self) -> dict[str, Tensor]:
        """Tensors beside the weights that resuming needs."""
        return {}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `training_state` gave."""


def newest(states: Float[Tensor, "batch time width"], last: Int[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
    """The state at each window's newest item."""
    return states[torch.arange(len(states), device=states.device), last]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, and afterwards back into the mode that it was in."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
