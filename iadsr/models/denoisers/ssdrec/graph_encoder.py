"""SSDRec's first stage: embeddings of users and items that have looked at neighbours in graphs of interactions.

They are a large constant and a small part of their own, since a layer without bias reads a sigmoid. Products rounded to
bfloat16 would drown that part, so these layers compute in float32 whatever `train.dtype` says.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from scipy import sparse
from torch import Tensor, nn
from torch.nn import Linear
from torch.nn import functional as F

from iadsr.errors import UserError
from iadsr.layers.dropout import Dropout
from iadsr.layers.jagged import gather_rows, scatter_rows
from iadsr.layers.sparse import SparseMatrix, SparseRows
from iadsr.sequences import graphs
from iadsr.sequences.windows import Sequences

SLOPE = 0.2  # of the LeakyReLU below 0


class InteractionGraphs(nn.Module):
    """The graphs of the training interactions, rows summing to 1; needed in training only.

    An item's `earlier` and `later` neighbours stand before and after it, and `in_order` are the items that have any;
    `rivals` are the negative graphs.
    """

    in_order: Tensor

    def __init__(self, sequences: Sequences, frequent: int, cold_items: float, cold_users: float) -> None:
        """UserError where no two items stand in the same order more than `frequent` times."""
        super().__init__()
        owned, succession = graphs.ownership(sequences), graphs.succession(sequences)
        later = graphs.frequent_succession(succession, frequent)
        if not later.nnz:
            most = int(succession.counts.max()) if succession.counts.nnz else 0
            raise UserError(
                f"params.yaml: denoisers.ssdrec.frequent: no two items stand in the same order more than {frequent} "
                f"times in the training histories, at most {most} times; lower it below that"
            )
        hot_items, hot_users = (
            graphs.hottest(owned.sum(axis=axis), cold) for axis, cold in ((0, cold_items), (1, cold_users))
        )
        shares = graphs.common_share(owned)
        rivals = graphs.item_conflicts(succession.counts, frequent, hot_items)
        self.users_of_item = _of_all(owned.T)
        self.earlier_items, self.later_items, self.rival_items = _of_all(later.T), _of_all(later), _of_all(rivals)
        in_order = (later.sum(axis=0) + later.sum(axis=1)).nonzero()[0]
        self.register_buffer("in_order", torch.from_numpy(in_order), persistent=False)
        self.items_of_user, self.like_users, self.rival_users = (
            SparseRows(graphs.row_normalised(graph))
            for graph in (owned, shares, graphs.user_conflicts(shares, hot_users))
        )


def _of_all(matrix: sparse.sparray) -> SparseMatrix:
    return SparseMatrix(graphs.row_normalised(sparse.csr_array(matrix)))


class GraphEncoder(nn.Module):
    """One layer over `InteractionGraphs`."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.of_users, self.of_items = Fusion(dim, dropout), Fusion(dim, dropout)
        self.earlier, self.later = Linear(dim, dim, bias=False), Linear(dim, dim, bias=False)
        for layer in (self.earlier, self.later):
            nn.init.xavier_uniform_(layer.weight)

    def users(
        self,
        known: InteractionGraphs,
        users: Float[Tensor, "users dim"],
        items: Float[Tensor, "items dim"],
        rows: Int[Tensor, " some"],
    ) -> Float[Tensor, "some dim"]:
        """The embeddings of the users of these numbers; zeros for number 0."""
        like, rival = (graph.of(rows, users) for graph in (known.like_users, known.rival_users))
        found = self.of_users(F.embedding(rows, users), like, rival, known.items_of_user.of(rows, items))
        return found * (rows > 0)[:, None]

    def items(
        self, known: InteractionGraphs, users: Float[Tensor, "users dim"], items: Float[Tensor, "items dim"]
    ) -> Float[Tensor, "items dim"]:
        """The embeddings of all items; row 0 has no meaning."""
        earlier, later = known.earlier_items.product(items), known.later_items.product(items)
        rivals, owners = known.rival_items.product(items), known.users_of_item.product(users)
        mixed = self.mixed(*(gather_rows(table, known.in_order) for table in (items, earlier, later)))
        return self.of_items(items, scatter_rows(mixed, known.in_order, len(items)), rivals, owners)

    def mixed(
        self,
        own: Float[Tensor, "items dim"],
        earlier: Float[Tensor, "items dim"],
        later: Float[Tensor, "items dim"],
    ) -> Float[Tensor, "items dim"]:
        """Both kinds of neighbours, mixed by a softmax of sum(LeakyReLU((x * neighbours) W)) / sqrt(dim)."""
        scores = [
            F.leaky_relu(layer(own * neighbours), SLOPE).sum(1) * own.shape[1] ** -0.5
            for layer, neighbours in ((self.earlier, earlier), (self.later, later))
        ]
        share = torch.softmax(torch.stack(scores), dim=0)[..., None]
        return share[0] * earlier + share[1] * later


class Fusion(nn.Module):
    """An embedding, its neighbours in two graphs of its kind, and those of the other kind become one embedding."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.kernel, self.bias = nn.Parameter(torch.empty(1, 2)), nn.Parameter(torch.zeros(1))
        self.dropout = Dropout(dropout)
        self.joined = Linear(2 * dim, dim, bias=False)
        self.inner, self.outer = Linear(dim, dim, bias=False), Linear(dim, dim, bias=False)
        for weight in (self.kernel, self.joined.weight, self.inner.weight, self.outer.weight):
            nn.init.xavier_uniform_(weight)

    def forward(
        self,
        own: Float[Tensor, "some dim"],
        positive: Float[Tensor, "some dim"],
        negative: Float[Tensor, "some dim"],
        across: Float[Tensor, "some dim"],
    ) -> Float[Tensor, "some dim"]:
        """Each branch mixes `own` with a kind of neighbours by a kernel of two numbers; their mean joins `across`.

        The layer that joins is linear, so it takes the mean of the branches instead of each.
        """
        branches = [
            self.dropout(self.kernel[0, 0] * own + self.kernel[0, 1] * near + self.bias)
            for near in (positive, negative)
        ]
        joined = self.joined(torch.cat([across, (branches[0] + branches[1]) / 2], dim=1))
        return self.outer(torch.sigmoid(self.inner(joined)))
