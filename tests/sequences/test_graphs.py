"""Graphs against dense loops over training histories; what they may not have seen."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse
from small_models import ITEMS, random_histories, sequences_of
from torch import Tensor

from iadsr.errors import UserError
from iadsr.sequences import graphs
from iadsr.sequences.graphs import (
    co_interaction_graph,
    common_share,
    frequent_succession,
    hottest,
    item_conflicts,
    ownership,
    row_normalised,
    succession,
    training_interactions,
    transition_counts,
    transition_graph,
    user_conflicts,
)
from iadsr.sequences.windows import Sequences

HISTORIES = [*random_histories(9, 12), [4, 4, 5, 4, 1, 2], [6, 1, 2]]
SEQUENCES = sequences_of(*HISTORIES)
TRAINED = [history[:-2] for history in HISTORIES]


def literal_transition_graph(histories: list[list[int]]) -> np.ndarray:
    """Counts of neighbours at distance 1, both ways; self loop 1; D^-1/2 A D^-1/2."""
    counts = np.zeros((ITEMS + 1, ITEMS + 1))
    for history in histories:
        for place in range(len(history) - 1):
            one, other = history[place], history[place + 1]
            if one != other:
                counts[one, other] += 1
                counts[other, one] += 1
    for item in range(1, ITEMS + 1):
        counts[item, item] = 1
    degrees, result = counts.sum(1), np.zeros_like(counts)
    for one in range(1, ITEMS + 1):
        for other in range(1, ITEMS + 1):
            result[one, other] = counts[one, other] / math.sqrt(degrees[one] * degrees[other])
    return result


def literal_co_interaction_graph(histories: list[list[int]], neighbours: int) -> np.ndarray:
    """Cosines of 0/1 vectors over users; the nearest others and the item itself; rows divided by their sums."""
    users = {item: {user for user, history in enumerate(histories) if item in history} for item in range(1, ITEMS + 1)}
    result = np.zeros((ITEMS + 1, ITEMS + 1))
    for item in range(1, ITEMS + 1):
        found = []
        for other in range(1, ITEMS + 1):
            shared = len(users[item] & users[other])
            if other != item and shared:
                found.append((-(shared**2) / len(users[other]), other, shared))
        for _, other, shared in sorted(found)[:neighbours]:
            result[item, other] = shared / math.sqrt(len(users[item]) * len(users[other]))
        result[item, item] = 1
        result[item] /= result[item].sum()
    return result


def test_training_interactions_by_hand() -> None:
    """Of 3 1 4 1 5, of 9 2 (too short to train on) and of 6 5 3 the last two items are held out."""
    users, items = training_interactions(sequences_of([3, 1, 4, 1, 5], [9, 2], [6, 5, 3]))
    assert (users.tolist(), items.tolist()) == ([0, 0, 0, 2], [3, 1, 4, 6])


def test_transitions_by_hand() -> None:
    """1 2 1 1 and 2 3 hold 1-2 twice and 2-3 once; 1 after 1 is none, nor is 1 then 2 of different users.

    With self loops D is 1 + 2 = 3 for item 1, 1 + 2 + 1 = 4 for item 2 and 2 for item 3.
    """
    sequences = sequences_of([1, 2, 1, 1, 9, 9], [2, 3, 9, 9])
    counts = transition_counts(sequences).toarray()
    assert counts[:4, :4].tolist() == [[0, 0, 0, 0], [0, 0, 2, 0], [0, 2, 0, 1], [0, 0, 1, 0]]
    graph = transition_graph(sequences).toarray()
    expected = [[1 / 3, 2 / 12**0.5, 0], [2 / 12**0.5, 1 / 4, 1 / 8**0.5], [0, 1 / 8**0.5, 1 / 2]]
    np.testing.assert_allclose(graph[1:4, 1:4], expected)
    assert graph[9, 9] == 1 and graph.sum() == pytest.approx(np.sum(expected) + 6)  # items 4 to 9 stand alone


def test_co_interactions_by_hand() -> None:
    """Users {1, 2}, {1, 2} and {2, 3}: cosines of item 1 with 2: 2 / sqrt(2 * 3); of 2 with 3: 1 / sqrt(3)."""
    sequences = sequences_of([1, 2, 4, 4], [2, 1, 1, 4, 4], [2, 3, 4, 4])
    graph = co_interaction_graph(sequences, 1).toarray()
    near, far = 2 / 6**0.5, 1 / 3**0.5
    expected = np.zeros((5, 5))
    expected[1, 1:3], expected[2, [2, 1]], expected[3, 2:4] = (1, near), (1, near), (far, 1)
    expected[4, 4] = 1
    np.testing.assert_allclose(graph[1:], expected[1:] / expected[1:].sum(1, keepdims=True))
    assert not graph[0].any() and not graph[:, 0].any()


def test_transition_graph_equals_the_loops() -> None:
    np.testing.assert_allclose(transition_graph(SEQUENCES).toarray(), literal_transition_graph(TRAINED))


@pytest.mark.parametrize("neighbours", [1, 2, 4, ITEMS, 2 * ITEMS])
@pytest.mark.parametrize("block", [1, 5, ITEMS, ITEMS + 1, 100])
def test_co_interaction_graph_equals_the_loops(neighbours: int, block: int) -> None:
    """Also where blocks do not divide the items, and where ties leave a choice."""
    graph = co_interaction_graph(SEQUENCES, neighbours, block)
    np.testing.assert_allclose(graph.toarray(), literal_co_interaction_graph(TRAINED, neighbours))


def test_the_lower_of_equally_near_items_wins() -> None:
    """Items 2 to 12 all share their only user with item 1: its 4 neighbours are 2, 3, 4, 5, those of 3 are 1, 2, 4, 5.

    Also where equal cosines are reached by different roundings: 3 / sqrt(3 * 27) and 1 / sqrt(3 * 3) are both 1/3.
    """
    graph = co_interaction_graph(sequences_of([*range(12, 0, -1), 1, 1]), 4)
    assert graph[[1]].indices.tolist() == [1, 2, 3, 4, 5] and graph[[3]].indices.tolist() == [1, 2, 3, 4, 5]
    histories = [[1, 3], [1, 3], [1, 3, 2], [2], [2], *[[3]] * 24]
    tied = co_interaction_graph(sequences_of(*([*history, 4, 4] for history in histories)), 1)
    assert tied[[1]].indices.tolist() == [1, 2]


@pytest.mark.parametrize("graph", [transition_graph, lambda sequences: co_interaction_graph(sequences, 3)])
def test_held_out_items_change_nothing(graph: object) -> None:
    """Whatever the validation and test items are; a training item does change the graph."""
    assert callable(graph)
    items: Tensor = SEQUENCES.items.clone()
    held_out = [row for end in SEQUENCES.offsets[1:].tolist() for row in (end - 2, end - 1)]
    items[held_out] = items[held_out] % (ITEMS - 1) + 1
    changed = graph(Sequences(items, SEQUENCES.offsets))
    assert (changed != graph(SEQUENCES)).nnz == 0
    items[1] = items[1] % (ITEMS - 1) + 1
    assert (graph(Sequences(items, SEQUENCES.offsets)) != changed).nnz > 0


def test_histories_too_short_for_any_edge() -> None:
    """One training item each: only self loops."""
    sequences = sequences_of([1, 2, 3], [2, 3, 3], [3, 1, 1])
    assert transition_counts(sequences).nnz == 0
    for graph in (transition_graph(sequences), co_interaction_graph(sequences, 4)):
        assert graph.toarray().tolist() == np.diag([0.0, 1, 1, 1]).tolist()


# --- SSDRec's ---


def literal_succession(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Counts, and sums of (n - distance) / n, of i before j in one history."""
    counts, weights = np.zeros((2, ITEMS + 1, ITEMS + 1))
    for history in histories:
        for i in range(len(history)):
            for j in range(i + 1, len(history)):
                if history[i] != history[j]:
                    counts[history[i], history[j]] += 1
                    weights[history[i], history[j]] += (len(history) - (j - i)) / len(history)
    return counts, weights


def literal_conflicts(ties: np.ndarray, related: np.ndarray, hot: list[int]) -> np.ndarray:
    """Never related, but sharing a neighbour: the sum of both ties over the neighbours they share."""
    result = np.zeros_like(ties)
    for one in hot:
        for other in hot:
            if one != other and related[one, other] == 0:
                for bridge in range(len(ties)):
                    if ties[one, bridge] > 0 and ties[other, bridge] > 0:
                        result[one, other] += ties[one, bridge] + ties[other, bridge]
    return result


def literal_common_share(histories: list[list[int]]) -> np.ndarray:
    """(items of u that v has + items of v that u has) / (n_u + n_v), for users from 1."""
    result = np.zeros((len(histories) + 1,) * 2)
    for u, own in enumerate(histories, 1):
        for v, other in enumerate(histories, 1):
            common = sum(item in other for item in own) + sum(item in own for item in other)
            result[u, v] = common / (len(own) + len(other)) if common else 0
    return result


def test_succession_by_hand() -> None:
    """In 1 2 3: 1-2 and 2-3 at distance 1 weigh 2/3 each, 1-3 at distance 2 1/3; in 2 3: 1/2."""
    found = succession(sequences_of([1, 2, 3, 4, 4], [2, 3, 1, 1]))
    assert found.counts.toarray().tolist() == [[0] * 5, [0, 0, 1, 1, 0], [0, 0, 0, 2, 0], [0] * 5, [0] * 5]
    np.testing.assert_allclose(found.weights.toarray()[1:3, 2:4], [[2 / 3, 1 / 3], [0, 2 / 3 + 1 / 2]])
    assert frequent_succession(found, 1).indices.tolist() == [3] and frequent_succession(found, 2).nnz == 0


def test_succession_equals_the_loops() -> None:
    counts, weights = literal_succession(TRAINED)
    found = succession(SEQUENCES)
    np.testing.assert_array_equal(found.counts.toarray(), counts)
    np.testing.assert_allclose(found.weights.toarray(), weights)
    np.testing.assert_allclose(frequent_succession(found, 1).toarray(), weights * (counts > 1))


def test_nothing_succeeds() -> None:
    found = succession(sequences_of([1, 2, 3], [2, 2, 3, 3]))
    assert found.counts.nnz == found.weights.nnz == frequent_succession(found, 0).nnz == 0


def test_hottest_by_hand() -> None:
    """Of counts 3, 1, 1, 0, 5 the coldest 60% are items 4, 2 and 3; at 40% item 3 stays, as the later of equal ones."""
    counts = np.array([99, 3, 1, 1, 0, 5])
    assert hottest(counts, 0.6).tolist() == [1, 5] and hottest(counts, 0.4).tolist() == [1, 3, 5]
    assert hottest(counts, 0.0).tolist() == [1, 2, 3, 4, 5] and hottest(counts, 1.0).tolist() == []
    assert len(hottest(np.arange(31), 0.1)) == 27  # 0.1 * 30 is a bit above 3 in floating point


def test_conflicts_by_hand() -> None:
    """1-2 stand together three times and 2-3 twice, 1-3 never: an edge of 3 + 2, be 2 hot or not."""
    counts = succession(sequences_of(*[[1, 2, 4, 4]] * 2, [2, 1, 4, 4], [2, 3, 4, 4], [3, 2, 4, 4])).counts
    found = item_conflicts(counts, 1, np.array([1, 2, 3])).toarray()
    assert found[1, 3] == found[3, 1] == 5 and found.sum() == 10
    assert item_conflicts(counts, 1, np.array([1, 3])).sum() == 10
    assert item_conflicts(counts, 1, np.array([1, 2])).nnz == 0
    assert item_conflicts(counts, 2, np.array([1, 2, 3])).nnz == 0  # 2-3 is no frequent tie


@pytest.mark.parametrize("frequent", [0, 1, 2])
def test_item_conflicts_equal_the_loops(frequent: int) -> None:
    sparse_histories = [history[:3] for history in TRAINED]
    counts, _ = literal_succession(sparse_histories)
    found = succession(sequences_of(*([*history, 1, 1] for history in sparse_histories), [1, ITEMS, 1])).counts
    both = counts + counts.T
    for hot in (list(range(1, ITEMS + 1)), [1, 2, 4, 7, 9]):
        expected = literal_conflicts(both * (both > frequent), both, hot)
        np.testing.assert_array_equal(item_conflicts(found, frequent, np.array(hot)).toarray(), expected)
    assert item_conflicts(found, 0, np.arange(1, ITEMS + 1)).nnz > 10


def test_user_graphs_equal_the_loops() -> None:
    trained = [history[:2] for history in TRAINED if len(history) > 1]
    owned = ownership(sequences_of(*([*history, 1, 1] for history in trained)))
    shares = common_share(owned)
    expected = literal_common_share(trained)
    np.testing.assert_allclose(shares.toarray(), expected, rtol=1e-6)
    others = expected * (1 - np.eye(len(expected)))
    for hot in (list(range(1, len(trained) + 1)), [2, 3, 5, 8]):
        found = user_conflicts(shares, np.array(hot))
        np.testing.assert_allclose(found.toarray(), literal_conflicts(others, expected, hot), rtol=1e-6)
    assert user_conflicts(shares, np.arange(1, len(trained) + 1)).nnz > 2


def test_ownership_and_normalised_rows() -> None:
    """Counts of users from 1; rows sum to 1, empty ones stay empty."""
    owned = ownership(sequences_of([2, 1, 2, 3, 3], [1, 3, 3]))
    assert owned.toarray().tolist() == [[0, 0, 0, 0], [0, 1, 2, 0], [0, 1, 0, 0]]
    np.testing.assert_allclose(row_normalised(owned).toarray()[1:], np.array([[0, 1 / 3, 2 / 3, 0], [0, 1, 0, 0]]))
    assert owned.sum() == 4  # unchanged


GRAPHS: list[Callable[[Sequences], sparse.csr_array]] = [
    lambda sequences: succession(sequences).weights,
    lambda sequences: item_conflicts(succession(sequences).counts, 1, np.arange(1, ITEMS + 1)),
    ownership,
    lambda sequences: common_share(ownership(sequences)),
    lambda sequences: user_conflicts(common_share(ownership(sequences)), np.arange(1, 12)),
]


@pytest.mark.parametrize("graph", GRAPHS)
def test_ssdrec_graphs_see_no_held_out_items(graph: Callable[[Sequences], sparse.csr_array]) -> None:
    items: Tensor = SEQUENCES.items.clone()
    held_out = [row for end in SEQUENCES.offsets[1:].tolist() for row in (end - 2, end - 1)]
    items[held_out] = items[held_out] % (ITEMS - 1) + 1
    assert (graph(Sequences(items, SEQUENCES.offsets)) != graph(SEQUENCES)).nnz == 0


def test_too_many_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four users of item 1, which three of them share with item 2: 16 + 9; (4 + 4 + 4 + 1) / 2 in histories; 4 x 4."""
    sequences = sequences_of(*[[1, 2, 3, 3]] * 3, [1, 3, 3])
    owned = ownership(sequences)
    shares = common_share(owned)
    for pairs, what, compare in (
        (25, "users that share an item", lambda: common_share(owned)),
        (6, "items of a history", lambda: succession(sequences)),
        (16, "users or items that are not cold", lambda: user_conflicts(shares, np.arange(1, 5))),
    ):
        monkeypatch.setattr(graphs, "MOST_PAIRS", pairs)
        compare()
        monkeypatch.setattr(graphs, "MOST_PAIRS", pairs - 1)
        with pytest.raises(UserError, match=f"denoiser: ssdrec compares {pairs} pairs of {what}"):
            compare()
