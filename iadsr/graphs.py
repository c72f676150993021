"""Sparse graphs over items, of training interactions alone: rows and columns are item numbers, 0 (padding) is empty."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from scipy import sparse

from iadsr.schemas import TRAIN
from iadsr.sequences import Sequences

Integers = Int[np.ndarray, " some"]
BLOCK = 1024  # items that are compared with all others at once


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
    """Without stored zeros, columns rising in each row."""
    matrix = sparse.csr_array(matrix)
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix
