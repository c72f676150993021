"""Graphs against dense loops over training histories; what they may not have seen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_models import ITEMS, random_histories, sequences_of
from torch import Tensor

from iadsr.graphs import co_interaction_graph, training_interactions, transition_counts, transition_graph
from iadsr.sequences import Sequences

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
