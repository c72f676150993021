"""DCRec (Yang et al., WWW 2023): weigh a contrast between three views of a user by how much the user follows others.

The views of a history, whose newest item is v, are the state of a bidirectional transformer, v's state in the graph of
transitions (A), and v's state in the graph of items with like users (S), both of sequences/graphs.py. Their mixture by
attention makes the prediction. Two contrasts pull the first to the second as much as the user conforms, and the second
to the third as much as not. No interaction is dropped. Every prefix is an example of its own
(sequences/prefix_examples.py), as in the released code, since the transformer looks at a history from both sides.

How much a user conforms is read from A, by what v loses with the user's own transitions. Our reading: these are the
edges between v and what stands beside it in the history, in both directions and whatever their counts; other edges of
the history reach v's state by a detour only. What remains keeps its weight. Then only one row that v's state depends on
changes, v's own, so its state is exact after two steps without another pass over the graph (see `without_edges`). A
history in which nothing else stands beside v, such as one of a single item, says nothing: it weighs 0.5 and is left out
of the scaling within the batch. The weight carries a gradient, without which its KL term would do nothing. That term's
target is the softmax of sorted normal draws: two softmaxes agree where the sorted weights are the sorted draws but for
a constant, which the scaling decides.

One LayerNorm serves both graphs, and what it adds to a graph's mean is under the same dropout as what was sent along.

Edge dropout scales the edges that stay, as dropout does, since a model in use drops none. The states of all
items in both graphs are computed after each epoch, without any dropout, and saved with the model, which then needs no
graph. In training both graphs hold a user's whole training history, as published, including what comes after the target
of an example: A holds the step from v to the target, which counts among the edges that remain in the weight above, and
S what goes with every later item. This favours the graph views in training. No held-out item is in them.

Where the released code deviates, `quirks` brings back:

- `unscaled_edges`: edges that stay keep their weight.
- `edge_dropout_at_test`: edges are also dropped where the states of all items are computed for use.

What is not brought back of the released code:

- graphs from histories up to the test item, and early stopping on the test items: they leak.
- rows of S beyond the first block hold other items' neighbours: an error that depends on the order of items.
- the transitions of all users of a batch are removed at once, and neighbours are drawn at random: so a weight,
  before any scaling, depends on who else is in the batch, and on chance.
- examples are mixed over all users: here a batch holds the prefixes of its windows, so some of what a contrast tells
  apart, and of what scales a weight, is of the same user.
- the dropout between steps of a graph, whose result it throws away: there is none here.
- edges to drop are drawn with replacement, so at 0.5 only 39% go, and its graph library divides by the root of the
  numbers of neighbours once more.
- a second pass of the transformer, under other dropout, for the contrast: ours takes the first one's state.
- draws that are not normalised as the target of the KL term: it asks weights to spread like their logarithms.
- a rate of its own for dropout within attention (0.1), and a learning rate that falls by 0.2 every 30 epochs: not part
  of the method; `dropout` and train.learning_rate are for all.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.layers.attention import Transformer, TransformerParams, check_heads
from iadsr.layers.dropout import Dropout
from iadsr.layers.jagged import gather_rows
from iadsr.layers.sparse import Neighbours, SparseMatrix
from iadsr.models.config import ModelConfig
from iadsr.models.recommender import Recommender, Traits, evaluating
from iadsr.sequences.graphs import co_interaction_graph, transition_graph
from iadsr.sequences.prefix_examples import prefixes_with_target
from iadsr.sequences.windows import Batch, Feed


class DCRecParams(TransformerParams):
    """`denoisers.dcrec` of params.yaml."""

    graph_dropout: float = Field(ge=0, lt=1)  # of edges
    neighbours: int = Field(ge=1)  # of an item in S
    lambda_contrast: float = Field(ge=0)
    lambda_kl: float = Field(ge=0)
    temperature: float = Field(gt=0)  # of the contrasts
    weight_mean: float = Field(gt=0)
    quirks: list[Literal["unscaled_edges", "edge_dropout_at_test"]]


REMAINING = 10  # neighbours that stand for an item's neighbourhood
UNKNOWN = 0.5  # weight of a user without a transition to judge by
FLAT = 1e-5  # weights that differ by less are equal but for rounding
DEVIATION = 0.1  # of the normal distribution that weights are drawn to


class Graphs(nn.Module):
    """A and S, needed in training only."""

    def __init__(self, transitions: sparse.csr_array, similar: sparse.csr_array) -> None:
        super().__init__()
        self.transitions, self.similar = SparseMatrix(transitions), SparseMatrix(similar)
        self.neighbours = Neighbours(transitions)


class Spread(NamedTuple):
    """All item embeddings, sent along a graph."""

    weights: Float[Tensor, " entries"]  # that its edges had
    given: Float[Tensor, "items dim"]
    once: Float[Tensor, "items dim"]
    mixed: Float[Tensor, "items dim"]  # given + (given + once + twice) / 3


class DCRec(Recommender):
    """A bidirectional transformer and two item graphs."""

    params_type = DCRecParams
    traits = Traits(own_encoder=True, sampled_loss=False)
    transition_states: Tensor
    similar_states: Tensor

    @classmethod
    def of(cls, config: ModelConfig, backbone: Any, feed: Feed | None) -> DCRec:
        params = DCRecParams.model_validate(config.denoiser_params)
        check_heads(config.dim, params, "denoisers.dcrec")
        encoder = Transformer(config.dim, config.max_length, params, causal=False)
        graphs = None if feed is None else item_graphs(feed, params, config.dataset)
        return cls(config.item_count, config.dim, encoder, params, graphs)

    def __init__(
        self, item_count: int, dim: int, encoder: Transformer, params: DCRecParams, graphs: Graphs | None = None
    ) -> None:
        """`graphs` are needed for training only."""
        super().__init__(item_count, dim, encoder)
        self.params, self.graphs = params, graphs
        self.norm = nn.LayerNorm(dim)  # of both graphs
        self.dropout, self.edge_dropout = Dropout(params.dropout), Dropout(params.graph_dropout)
        self.mixing, self.attention = nn.Linear(dim, dim, bias=False), nn.Parameter(torch.empty(dim))
        for weight in (self.mixing.weight, self.attention):
            nn.init.normal_(weight, std=0.02)
        self.register_buffer("transition_states", torch.zeros(item_count + 1, dim))
        self.register_buffer("similar_states", torch.zeros(item_count + 1, dim))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, the two contrasts, and the KL term of their weights; terms with weight 0 are not computed."""
        examples = prefixes_with_target(batch, self.settings.prefixes_drawn)
        if not len(examples.targets):
            return {"ce": self.items.weight.sum() * 0}
        assert self.graphs is not None, "training needs the graphs"
        histories, item = examples.batch, newest_items(examples.batch)
        along, similar = self.spread(self.graphs.transitions), self.spread(self.graphs.similar)
        table = self.norm(along.mixed)
        views = torch.stack(
            [
                self.sequence_states(histories),
                F.embedding(item, table),
                self.norm(F.embedding(item, similar.mixed)),
            ]
        )
        terms = {"ce": self.cross_entropy(self.fused(views)[:, None], examples.targets[:, None])}
        if self.params.lambda_contrast or self.params.lambda_kl:
            terms |= self.contrast_terms(views, self.conformity(along, table, histories.items, item))
        return terms

    def states(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """The mixture of the three views of each history; those of the graphs as of the last epoch's end."""
        item = newest_items(batch)
        views = [self.sequence_states(batch), self.transition_states[item], self.similar_states[item]]
        return self.fused(torch.stack(views))

    def sequence_states(self, batch: Batch) -> Float[Tensor, "batch dim"]:
        """The transformer's state at each newest item."""
        positions = batch.newest
        states = self.prefix_states(batch.items, positions=positions)
        return gather_rows(states.flatten(0, 1), positions.flatten().nonzero().flatten())

    def fused(self, views: Float[Tensor, "views batch dim"]) -> Float[Tensor, "batch dim"]:
        """The mean of the views x by softmax(a . W x)."""
        shares = torch.softmax(views @ (self.attention @ self.mixing.weight), dim=0)
        return (views * shares[..., None]).sum(0)

    # --- graphs ---

    def spread(self, graph: SparseMatrix) -> Spread:
        """Two steps along a graph, edges and embeddings under dropout; a step has no parameters."""
        given, weights = self.dropout(self.items.weight), self.edge_dropout(graph.values)
        if "unscaled_edges" in self.params.quirks:
            weights = torch.where(weights > 0, graph.values, 0)
        once = graph.product(given, weights)
        return Spread(weights, given, once, given + (given + once + graph.product(once, weights)) / 3)

    def end_epoch(self) -> dict[str, float]:
        """Compute the items' states in both graphs, for use until the next epoch's end."""
        assert self.graphs is not None, "training needs the graphs"
        with torch.no_grad(), evaluating(self):
            self.edge_dropout.train("edge_dropout_at_test" in self.params.quirks)
            self.transition_states.copy_(self.norm(self.spread(self.graphs.transitions).mixed))
            self.similar_states.copy_(self.norm(self.spread(self.graphs.similar).mixed))
        return {}

    # --- how much a user conforms ---

    def conformity(
        self,
        along: Spread,
        table: Float[Tensor, "items dim"],
        items: Int[Tensor, "batch time"],
        item: Int[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """The weight of each history: near 0 where its newest item's state depends on the user's own transitions.

        It takes three cosines: of the item's state with that without these transitions, of the item with its remaining
        neighbours, and of the neighbours across the removed edges with the remaining ones.
        """
        assert self.graphs is not None
        removed = own_neighbours(items, item)
        candidates = self.graphs.neighbours.first(item, REMAINING + removed.shape[1])
        remaining = all_but(candidates, removed, REMAINING)
        state, without = F.embedding(item, table), self.norm(self.without_edges(along, item, removed))
        near, beyond = mean_rows(table, remaining), mean_rows(table, removed)
        pairs = ((state, without), (state, near), (beyond, near))
        agreement = torch.stack([F.cosine_similarity(one, other, dim=1) for one, other in pairs]).mean(0)
        return scaled(torch.sigmoid(agreement), removed.any(1), self.params.weight_mean)

    def without_edges(
        self, along: Spread, item: Int[Tensor, " batch"], removed: Int[Tensor, "batch some"]
    ) -> Float[Tensor, "batch dim"]:
        """`along.mixed` at v = `item` in the graph without the edges between v and `removed`, which does not hold v.

        Of the rows that v's state depends on, only v's own changes: with x, Ax and AAx as given, once and twice,
        once'[v] = once[v] - sum_u A[v, u] given[u] and, since v no longer reaches the rows u,
        twice'[v] = twice[v] - sum_u A[v, u] once[u] - A[v, v] sum_u A[v, u] given[u].
        """
        assert self.graphs is not None
        graph = self.graphs.transitions
        weights = graph.values_at(along.weights, item[:, None], removed)[..., None]
        lost_once = (weights * F.embedding(removed, along.given)).sum(1)
        lost_twice = (weights * F.embedding(removed, along.once)).sum(1)
        loop = graph.values_at(along.weights, item, item)[:, None]
        return F.embedding(item, along.mixed) - (lost_once + lost_twice + loop * lost_once) / 3

    def contrast_terms(
        self, views: Float[Tensor, "views batch dim"], weights: Float[Tensor, " batch"]
    ) -> dict[str, Tensor]:
        """w InfoNCE(sequence, A) + (max(w) - w) InfoNCE(A, S), a mean over histories; and the KL term of w."""
        terms, params = {}, self.params
        if params.lambda_contrast:
            sequence, along, similar = F.normalize(views, dim=-1)
            first, second = (contrast(*pair, params.temperature) for pair in ((sequence, along), (along, similar)))
            weighted = weights * first + (weights.max() - weights) * second
            terms["contrast"] = params.lambda_contrast * weighted.mean()
        if params.lambda_kl:
            drawn = params.weight_mean + DEVIATION * torch.randn(len(weights)).to(weights.device)
            terms["kl"] = params.lambda_kl * divergence(drawn, weights)
        return terms


def item_graphs(feed: Feed, params: DCRecParams, dataset: str) -> Graphs:
    """Both graphs of the training interactions; UserError where these have no transition."""
    transitions = transition_graph(feed.sequences)
    if transitions.nnz == feed.sequences.item_count:  # self loops
        raise UserError(
            f"params.yaml: denoiser: dcrec needs items that follow one another, but no training history of {dataset} "
            f"has two different items; raise datasets.{dataset}.core"
        )
    return Graphs(transitions, co_interaction_graph(feed.sequences, params.neighbours))


def newest_items(batch: Batch) -> Int[Tensor, " batch"]:
    return batch.items.gather(1, batch.last[:, None])[:, 0]


def own_neighbours(items: Int[Tensor, "batch time"], item: Int[Tensor, " batch"]) -> Int[Tensor, "batch some"]:
    """The different other items that stand beside `item` in each history, then zeros."""
    own, nothing = items == item[:, None], items.new_zeros(())
    before, after = items[:, :-1].where(own[:, 1:], nothing), items[:, 1:].where(own[:, :-1], nothing)
    beside = torch.cat([before, after], dim=1)
    beside = F.pad(beside.where(beside != item[:, None], nothing), (0, 1)).sort(1, descending=True).values
    beside[:, 1:] *= beside[:, 1:] != beside[:, :-1]
    most = max(1, int((beside > 0).sum(1).max()))
    return beside.sort(1, descending=True).values[:, :most]


def all_but(
    candidates: Int[Tensor, "batch some"], removed: Int[Tensor, "batch others"], most: int
) -> Int[Tensor, "batch some"]:
    """The first `most` candidates of each row that are not removed; zeros elsewhere."""
    free = (candidates > 0) & ~(candidates[:, :, None] == removed[:, None, :]).any(-1)
    return candidates * (free & (free.cumsum(1) <= most))


def mean_rows(table: Float[Tensor, "items dim"], numbers: Int[Tensor, "batch some"]) -> Float[Tensor, "batch dim"]:
    """The mean of the rows of these numbers, 0 meaning none; zeros where there are none at all."""
    real: Bool[Tensor, "batch some"] = numbers > 0
    total = (F.embedding(numbers, table) * real[..., None]).sum(1)
    return total / real.sum(1, keepdim=True).clamp(min=1)


def scaled(values: Float[Tensor, " batch"], known: Bool[Tensor, " batch"], mean: float) -> Float[Tensor, " batch"]:
    """Known values stretched to [0, 1], then to this mean (equal ones: all to it); UNKNOWN for the others."""
    numbers = known.nonzero().flatten()
    result = torch.full_like(values, UNKNOWN)
    if not len(numbers):
        return result
    some = values[numbers]
    low, high = some.min(), some.max()
    stretched = (some - low) / (high - low) if high - low > FLAT else torch.ones_like(some)
    return result.index_copy(0, numbers, stretched * (mean / stretched.mean()))


def contrast(
    anchors: Float[Tensor, "pairs dim"], positives: Float[Tensor, "pairs dim"], temperature: float
) -> Float[Tensor, " pairs"]:
    """InfoNCE of each pair among all positives of the batch; both sides of unit length."""
    numbers = torch.arange(len(anchors), device=anchors.device)
    return F.cross_entropy(anchors @ positives.T / temperature, numbers, reduction="none")


def divergence(drawn: Float[Tensor, " batch"], weights: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """KL(softmax of the sorted draws || softmax of the sorted weights)."""
    target, found = (torch.log_softmax(values.sort().values, dim=0) for values in (drawn, weights))
    return F.kl_div(found, target, reduction="sum", log_target=True)
