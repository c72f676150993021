"""SSDRec (Zhang et al., ICDE 2024): augment histories by what graphs of all interactions suggest, then denoise as HSD.

Three stages. One layer over graphs of users and items (graph_encoder.py) makes embeddings that have looked at
neighbours. In training the likeliest noise of a history gets an item of the catalogue on each side, and one of these
three may go again (augmentation.py). HSD's two signals (two_signals.py) judge and clean the result; the item's signal
reads the graphs' embeddings and asks the graphs' embedding of the user, all else reads the plain ones. Where the model
is used nothing is inserted, and the graphs' embeddings are those of the last epoch's end, saved with the model.

By the formulas the pick of a position is nearly uniform, since two noise scores differ by less than 1, and so is the
choice of items, whose logits are small beside their Gumbel noise: training sees histories with two nearly random items
in them, which is what the method loses by (docs/why.md).

The graphs hold training interactions alone. A user's embedding, and by its neighbours an item's, has seen the user's
whole training history, though: in training they know that a target is among some hundred neighbours and items, as in
any recommender with such graphs. That departs from the rule that nothing in training looks past a prefix. A user
outside the data set, and everybody who is served, has the mean of all users' embeddings. Training inserts items into
every short history, so it never sees one of a single item.

What the specification leaves open, or the released code decides otherwise:

- `frequent` is 2 here and 10 there, which leaves nearly no edge in sparse data; where none is left training is refused.
  A pair is an item and another, though the released graph has an item that comes again as its own neighbour.
- The two matrices that join neighbours of both kinds are never initialised there; here they are drawn like the others
  (Xavier), and there is dropout as on other embeddings.
- Its second LSTM pass for the queries has no start and end, and reads around the corner at a history's ends; here the
  queries are the states of the noise score.
- In training its item's signal reads embeddings with the user's share and asks the target item, in use without that
  share and the user; here it is both times as in use (`target_query` brings the target back).
- The gradient of the choice of a position reaches the two inserted items, whose place it is; there it scales all.
- The random numbers of the catalogue are drawn once a window and side, shared by the window's prefixes. Each choice has
  the distribution it would have alone.
- An item that is picked again really goes, and those behind it move up; there a zero stays. In this second look the
  inserted items have no user's share, and it has no gradient.
- A user is its own neighbour in the positive graph, an item is not.
- Losses of HSD count the inserted items; embeddings are clamped to (-1, 1) where the fit of items is compared.
- The LSTM has biases, and `drop_rate` counts inserted items, too.

Where the released code is at fault, the correct form is the default, and `quirks`, beside those of HSD, bring back:

- `void_positions`: the noise score of padding is 1, the largest, so that most picks are void: nothing is inserted. It
  decides how often training sees inserted items: in few prefixes instead of nearly all.
- `cut_tails`: as many items are judged and read as before the insertion, so the newest fall off.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from iadsr.layers.jagged import Jagged
from iadsr.models.config import ModelConfig
from iadsr.models.denoisers.masking import mask_generator
from iadsr.models.denoisers.ssdrec.augmentation import Augmenter
from iadsr.models.denoisers.ssdrec.graph_encoder import GraphEncoder, InteractionGraphs
from iadsr.models.denoisers.two_signals import TwoSignalParams, TwoSignals, View
from iadsr.models.recommender import Traits, evaluating
from iadsr.sequences.prefix_examples import Prefixes
from iadsr.sequences.windows import Batch, Feed


class SSDRecParams(TwoSignalParams):
    """`denoisers.ssdrec` of params.yaml: all of `hsd`, and those of the graphs."""

    frequent: int = Field(ge=0)  # an edge between items counts more often than this
    cold_items: float = Field(ge=0, le=1)  # share without negative neighbours
    cold_users: float = Field(ge=0, le=1)
    quirks: list[Literal["target_query", "batch_norm", "short_user_loss", "void_positions", "cut_tails"]]


class SSDRec(TwoSignals):
    """Augmented prefixes, with a view on graphs."""

    params_type = SSDRecParams
    traits = Traits(sampled_loss=False, largest_gradient=5.0)
    params: SSDRecParams
    graph_items: Tensor
    graph_users: Tensor

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> SSDRec:
        params = SSDRecParams.model_validate(config.denoiser_params)
        sizes = config.item_count, config.user_count, config.dim, config.max_length
        graphs = None
        if feed is not None:
            graphs = InteractionGraphs(feed.sequences, params.frequent, params.cold_items, params.cold_users)
        return cls(*sizes, backbone, params, mask_generator(config.seed), graphs)

    def __init__(
        self,
        item_count: int,
        user_count: int,
        dim: int,
        max_length: int,
        backbone: Any,
        params: SSDRecParams,
        generator: torch.Generator | None = None,
        graphs: InteractionGraphs | None = None,
    ) -> None:
        """`graphs` are needed for training only."""
        super().__init__(item_count, user_count, dim, max_length, backbone, params, generator)
        self.encoder = GraphEncoder(dim, params.embedding_dropout)
        self.augmenter = Augmenter(dim, max_length, tuple(params.quirks))
        self.graphs = graphs
        self.register_buffer("graph_items", torch.zeros(item_count + 1, dim))
        self.register_buffer("graph_users", torch.zeros(user_count + 1, dim))
        self.augmented: Tensor | int = 0
        self.examples = 0

    def view_in_training(self, batch: Batch, examples: Prefixes) -> View:
        """The prefixes of a batch with items inserted, and what the graphs say of these and of the users."""
        assert self.graphs is not None, "training needs the graphs"
        items = self.encoder.items(self.graphs, self.users.weight, self.items.weight)
        users = self.encoder.users(self.graphs, self.users.weight, self.items.weight, batch.users)
        found = self.augmenter(examples, items, users, self.temperature, self.generator)
        self.augmented += found.changed.sum()
        self.examples += len(found.changed)
        return View(found.histories, users[examples.window], found.embedded)

    def view_in_use(self, batch: Batch, real: Jagged) -> View:
        """Histories as they are, and what the graphs said at the last epoch's end."""
        return View(batch, self.graph_users[batch.users], self.graph_items[real.rows(batch.items)])

    @torch.no_grad()
    def end_epoch(self) -> dict[str, float]:
        """Compute the graphs' embeddings for use until the next epoch's end; also report who got items inserted."""
        assert self.graphs is not None, "training needs the graphs"
        everyone = torch.arange(len(self.graph_users), device=self.graph_users.device)
        with evaluating(self):
            self.graph_items.copy_(self.encoder.items(self.graphs, self.users.weight, self.items.weight))
            self.graph_users.copy_(self.encoder.users(self.graphs, self.users.weight, self.items.weight, everyone))
        self.graph_items[0] = 0
        self.graph_users[0] = self.graph_users[1:].mean(0)
        figures = {"augmented": int(self.augmented) / max(1, self.examples)}
        self.augmented = self.examples = 0
        return super().end_epoch() | figures
