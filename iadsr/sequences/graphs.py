"""Sparse graphs over items and users, of training interactions alone.

Rows and columns are numbers of items or of users, both from 1; 0 (padding, or an unknown user) is empty.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy import sparse

from iadsr.errors import UserError
from iadsr.schemas import TRAIN
from iadsr.sequences.windows import Sequences

Integers = Int[np.ndarray, " some"]
BLOCK = 1024  # items that are compared with all others at once
MOST_PAIRS = 5 * 10**8  # that are compared, each of about 12 bytes


def training_interactions(sequences: Sequences) -> tuple[Integers, Integers]:
    """The user, from 0, and the item of each training row, in the order of the rows."""
    offsets, ends = sequences.offsets.cpu().numpy(), sequences.history_ends(TRAIN).cpu().numpy()
    owner = np.repeat(np.arange(sequences.users), np.diff(offsets))
    inside = np.arange(len(owner)) < ends[owner]
    return owner[inside], sequences.items.cpu().numpy()[inside]


def transition_counts(sequences: Sequences) -> sparse.csr_array:
    """How often two items stand next to each other in a history, in either order; symmetric.

    An item that follows itself is no transition.
    """
    users, items = training_interactions(sequences)
    moves = (users[1:] == users[:-1]) & (items[1:] != items[:-1])
    counts = _counted(items[:-1][moves], items[1:][moves], _square(sequences))
    return sparse.csr_array(counts + counts.T)


def transition_graph(sequences: Sequences) -> sparse.csr_array:
    """D^-1/2 (A + I) D^-1/2 of the transition counts A, where D are the row sums of A + I."""
    linked = transition_counts(sequences) + _self_loops(_square(sequences))
    roots = _inverse(np.sqrt(linked.sum(axis=1)))
    return _ordered(sparse.diags_array(roots) @ linked @ sparse.diags_array(roots))


def co_interaction_graph(sequences: Sequences, neighbours: int, block: int = BLOCK) -> sparse.csr_array:
    """Each item's `neighbours` nearest others by the cosine of their users, and itself with weight 1; rows sum to 1.

    An item's vector is 1 for each user that has it, however often. Of equal cosines the lower item number wins. Items
    that share no user are no neighbours, so a row may hold fewer.
    """
    users, items = training_interactions(sequences)
    holders = _counted(items, users, (sequences.item_count + 1, sequences.users)).sign()
    popularity, transposed = holders.sum(axis=1), holders.T.tocsr()
    parts = [
        _nearest(sparse.csr_array(holders[start : start + block] @ transposed), start, popularity, neighbours)
        for start in range(0, holders.shape[0], block)
    ]
    linked = sparse.vstack(parts) + _self_loops(_square(sequences))
    return _ordered(sparse.diags_array(_inverse(linked.sum(axis=1))) @ linked)


def _nearest(shared: sparse.csr_array, start: int, popularity: Integers, count: int) -> sparse.csr_array:
    """Cosines of the `count` nearest others of each item from `start` on, from the numbers of users they share.

    Cosines are shared / sqrt(own * other). They are compared by shared^2 / other, a single rounding, so that equal ones
    are equal in floating point, too.
    """
    found = sparse.coo_array(shared)
    other = found.col != found.row + start
    row, column, users = found.row[other], found.col[other], found.data[other].astype(np.float64)
    order = np.lexsort((column, -(users * users / popularity[column]), row))
    begins = np.searchsorted(row[order], row[order])
    best = order[np.arange(len(order)) - begins < count]
    cosines = users[best] / np.sqrt(popularity[row[best] + start].astype(np.float64) * popularity[column[best]])
    return sparse.csr_array((cosines, (row[best], column[best])), shape=shared.shape)


# --- SSDRec's: who precedes whom, who has what in common, and who has not but shares a neighbour ---


class Succession(NamedTuple):
    """For each pair of items, in how many places the first stands before the second, and with what total weight."""

    counts: sparse.csr_array
    weights: sparse.csr_array


def succession(sequences: Sequences) -> Succession:
    """A pair at distance d in a history of n items counts once and weighs (n - d) / n; an item and itself are no pair.

    Quadratic in the length of histories, with a step of numpy for each distance.
    """
    users, items = training_interactions(sequences)
    lengths = np.bincount(users, minlength=sequences.users)
    _check_room(int((lengths.astype(np.int64) ** 2).sum()) // 2, "items of a history")
    ends, length, items = np.cumsum(lengths)[users], lengths[users], items.astype(np.int32)
    before, parts, distance = np.arange(len(users)), [], 1
    while len(before := before[before + distance < ends[before]]):
        after = before + distance
        parts.append((items[before], items[after], (length[before] - distance) / length[before]))
        distance += 1
    if not parts:
        return Succession(*(sparse.csr_array(_square(sequences)) for _ in range(2)))
    one, other, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    different = one != other
    pair = one[different], other[different]
    weighed = sparse.csr_array((weights[different], pair), shape=_square(sequences))
    return Succession(_ordered(_counted(*pair, _square(sequences))), _ordered(weighed))


def frequent_succession(found: Succession, frequent: int) -> sparse.csr_array:
    """The weights of pairs that count more than `frequent` times."""
    return _ordered(found.weights * (found.counts > frequent))


def item_conflicts(counts: sparse.csr_array, frequent: int, hot: Integers) -> sparse.csr_array:
    """Pairs of hot items that never share a history, but are tied to a third item more than `frequent` times each.

    An edge weighs the sum of both ties over all such bridges; ties count both orders. Symmetric.
    """
    ties = sparse.csr_array(counts + counts.T)
    return _bridged(_ordered(ties * (ties > frequent)), ties, hot)


def ownership(sequences: Sequences) -> sparse.csr_array:
    """How often each user has each item."""
    users, items = training_interactions(sequences)
    return _counted(users + 1, items, (sequences.users + 1, sequences.item_count + 1))


def common_share(owned: sparse.csr_array) -> sparse.csr_array:
    """For two users, the share of both histories' interactions with an item that the other has too; 1 on the diagonal.

    In float32: of all graphs it has the most entries.
    """
    _check_room(int((owned.sign().sum(axis=0).astype(np.int64) ** 2).sum()), "users that share an item")
    counts = owned.astype(np.float32)
    common = sparse.csr_array(counts @ counts.sign().T)
    common = sparse.csr_array(common + common.T)
    lengths = counts.sum(axis=1)
    owners = np.repeat(np.arange(len(lengths)), np.diff(common.indptr))
    common.data /= lengths[owners] + lengths[common.indices]
    common.sort_indices()
    return common


def user_conflicts(shares: sparse.csr_array, hot: Integers) -> sparse.csr_array:
    """Pairs of hot users that have no item in common, but each have some in common with a third user.

    An edge weighs the sum of both shares over all such bridges. Symmetric.
    """
    others = shares.copy()
    others.setdiag(0)
    return _bridged(_ordered(others), shares, hot)


def hottest(counts: Int[np.ndarray, " numbers"], cold: float) -> Integers:
    """The numbers, from 1, of all but the share `cold` with the smallest counts; of equal counts lower ones are colder.

    `counts` begins with that of number 0, which stands for no item or user.
    """
    order = np.argsort(counts[1:], kind="stable") + 1
    return np.sort(order[math.ceil(cold * len(order) - 1e-9) :])


def row_normalised(matrix: sparse.csr_array) -> sparse.csr_array:
    """The matrix with rows that sum to 1, but for empty ones."""
    result = sparse.csr_array(matrix, dtype=np.result_type(matrix.dtype, np.float32), copy=True)
    result.data *= np.repeat(_inverse(matrix.sum(axis=1)), np.diff(matrix.indptr))
    return _ordered(result)


def _bridged(ties: sparse.csr_array, related: sparse.csr_array, hot: Integers) -> sparse.csr_array:
    """For different hot nodes that are not related, the sum of their ties to nodes that both are tied to."""
    _check_room(
        len(hot) ** 2, "users or items that are not cold (denoisers.ssdrec.cold_users, denoisers.ssdrec.cold_items)"
    )
    own = ties[hot]
    one_side = sparse.csr_array(own @ own.sign().T)
    both = sparse.csr_array(one_side + one_side.T)
    both = sparse.csr_array(both - both * related[hot][:, hot].sign())
    both.setdiag(0)
    found = sparse.coo_array(both)
    return _ordered(sparse.csr_array((found.data, (hot[found.row], hot[found.col])), shape=ties.shape))


def _check_room(pairs: int, what: str) -> None:
    """UserError where a graph would compare more pairs than fit a machine."""
    if pairs > MOST_PAIRS:
        raise UserError(
            f"params.yaml: denoiser: ssdrec compares {pairs:,} pairs of {what}, and there is room for {MOST_PAIRS:,}; "
            "choose another denoiser or a smaller data set"
        )


def _counted(rows: Integers, columns: Integers, shape: tuple[int, int]) -> sparse.csr_array:
    """How often each pair occurs."""
    return sparse.csr_array((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=shape)


def _square(sequences: Sequences) -> tuple[int, int]:
    return sequences.item_count + 1, sequences.item_count + 1


def _self_loops(shape: tuple[int, int]) -> sparse.csr_array:
    """1 on the diagonal, but for padding."""
    ones = np.ones(shape[0])
    ones[0] = 0
    return sparse.csr_array(sparse.diags_array(ones))


def _inverse(values: np.ndarray) -> np.ndarray:
    """1 / value, and 0 of 0."""
    return np.divide(1.0, values, out=np.zeros(len(values)), where=values > 0)


def _ordered(matrix: sparse.csr_array) -> sparse.csr_array:
    """The matrix without stored zeros, with rising columns in each row."""
    matrix = sparse.csr_array(matrix)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix
