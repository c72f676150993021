"""Full ranking against sorting, user by user; metrics against ir_measures; ties, repeats and scores that are NaN."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import ITEMS, plain, random_histories, sequences_of
from torch import Tensor

from iadsr.models import ranking
from iadsr.models.ranking import Ranks, SeenItems, first_occurrences, gains, hits, rank_targets, summarise
from iadsr.models.recommender import Recommender
from iadsr.schemas import TEST, VALIDATION
from iadsr.sequences.windows import Batch, Feed, Sequences

pytestmark = pytest.mark.usefixtures("one_thread")


class Scripted(Recommender):
    """Scores user u's items as row u of a given table, whatever the history holds."""

    def __init__(self, sequences: Sequences, given: Tensor) -> None:
        super().__init__(1, 1, plain("gru4rec").backbone)
        self.owner = torch.repeat_interleave(torch.arange(sequences.users), sequences.offsets.diff())
        self.given = given

    def item_table(self) -> Tensor:
        return torch.nn.functional.pad(self.given.T, (0, 0, 1, 0))

    def states(self, batch: Batch) -> Tensor:
        newest = batch.rows[torch.arange(len(batch.rows)), batch.last]
        return torch.eye(len(self.given))[self.owner[newest]]


def ranked(sequences: Sequences, scores: list[list[float]] | Tensor, split: str = TEST) -> Ranks:
    table = torch.as_tensor(scores, dtype=torch.float32)
    return rank_targets(Scripted(sequences, table), Feed(sequences), split, 50)


@contextmanager
def few_at_once(encoded: int, counted: int, items: int) -> Iterator[None]:
    with mock.patch.multiple(ranking, ENCODED=encoded, CPU_SCORES=counted * items, FEWEST=1):
        yield


def literal_rank(scores: list[float], target: int, left_out: set[int]) -> float:
    """Sort all items but those left out, best first; the mean of the places that the target's equals share."""
    order = sorted(set(range(1, len(scores) + 1)) - left_out, key=lambda item: -scores[item - 1])
    places = [place for place, item in enumerate(order, 1) if scores[item - 1] == scores[target - 1]]
    return sum(places) / len(places)


def test_by_hand() -> None:
    """History 4, 1, 2 (seen: 4, 1), test target 2; scores .5 .3 .4 .9: above it 4, 1 and 3: rank 4, unseen: only 3.

    Validation target 1 with 4 seen: above it 4 alone, which is filtered: ranks 2 and 1.
    """
    one = sequences_of([4, 1, 2])
    test = ranked(one, [[0.5, 0.3, 0.4, 0.9]])
    assert (test.targets.tolist(), test.unfiltered.tolist(), test.filtered.tolist()) == ([2], [4], [2])
    validation = ranked(one, [[0.5, 0.3, 0.4, 0.9]], VALIDATION)
    assert (validation.targets.tolist(), validation.unfiltered.tolist(), validation.filtered.tolist()) == (
        [1],
        [2],
        [1],
    )


def test_ties_share_their_places() -> None:
    """Target 5 ties with 1, 2 (seen) and 3; item 4 is above: places 2 to 5, mean 3.5; unseen: 2, 3, mean 2.5."""
    ranks = ranked(sequences_of([1, 2, 5]), [[0.0, 0.0, 0.0, 1.0, 0.0]])
    assert ranks.unfiltered.tolist() == [3.5]
    assert ranks.filtered.tolist() == [2.5]


def test_a_target_that_was_seen_before_is_ranked() -> None:
    """History 2, 1, 1, test target 2 again: it is never filtered, and 1 (twice) is filtered once: ranks 2 and 1."""
    ranks = ranked(sequences_of([2, 1, 1, 2]), [[0.9, 0.8, 0.1]])
    assert (ranks.unfiltered.tolist(), ranks.filtered.tolist()) == ([2], [1])


def test_validation_does_not_filter_what_comes_later() -> None:
    """Validation target 2, test item 3 scores best: at validation it is not seen yet."""
    assert ranked(sequences_of([1, 2, 3]), [[0.0, 0.5, 0.9]], VALIDATION).filtered.tolist() == [2]


def test_constant_scores_earn_no_hits() -> None:
    """43 items at one score: everybody ranks 22nd, or 21st of the 41 unseen, so no cutoff up to 20 is reached."""
    ranks = ranked(sequences_of([1, 2, 3], [43, 42, 41]), torch.zeros(2, 43))
    assert (ranks.unfiltered.tolist(), ranks.filtered.tolist()) == ([22, 22], [21, 21])
    assert set(summarise(ranks, (5, 10, 20), "test").values()) == {0.0}


def test_scores_that_are_no_numbers_rank_last() -> None:
    """Target 3 of 5, with 1 and 2 seen. NaN everywhere is a constant: ranks 3 and 2. NaN for the target alone: 5, 3.

    NaN for all but the target: 1, 1.
    """
    nan, one = math.nan, sequences_of([1, 2, 3])
    cases = {(3, 2): [nan] * 5, (5, 3): [1.0, 2.0, nan, 3.0, 4.0], (1, 1): [nan, nan, -1.0, nan, nan]}
    for expected, scores in cases.items():
        ranks = ranked(one, [scores])
        assert (ranks.unfiltered.item(), ranks.filtered.item()) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 4), st.sampled_from([VALIDATION, TEST]))
def test_equals_sorting_every_user_s_scores(seed: int, users: int, levels: int, split: str) -> None:
    """Random histories with repeats, scores of few levels and so many ties; 3 users encoded, 2 counted at once."""
    histories = random_histories(users, 9, seed)
    scores = np.random.default_rng(seed).integers(0, levels, (users, 12)).astype(float)
    with few_at_once(3, 2, items=12):
        ranks = ranked(sequences_of(*histories), torch.tensor(scores), split)
    held_out = 1 if split == TEST else 2
    for user, history in enumerate(histories):
        target, before = history[-held_out], history[:-held_out]
        row = scores[user].tolist()
        assert ranks.targets[user] == target
        assert ranks.unfiltered[user] == literal_rank(row, target, set())
        assert ranks.filtered[user] == literal_rank(row, target, set(before) - {target})


def test_ranks_do_not_depend_on_the_number_of_threads() -> None:
    sequences = sequences_of(*random_histories(40, 9))
    model = plain("sasrec").eval()
    with few_at_once(3, 2, ITEMS):
        expected = rank_targets(model, Feed(sequences), TEST, 5)
        torch.set_num_threads(3)
        found = rank_targets(model, Feed(sequences), TEST, 5)
    assert found.filtered.tolist() == expected.filtered.tolist()
    assert found.unfiltered.tolist() == expected.unfiltered.tolist()


def test_a_real_model_ranks_by_its_scores() -> None:
    histories = random_histories(5, 9)
    sequences, model = sequences_of(*histories), plain("sasrec").eval()
    with few_at_once(2, 1, ITEMS):
        ranks = rank_targets(model, Feed(sequences), TEST, 4)
    for user, history in enumerate(histories):
        window = torch.tensor([history[:-1][-4:]])
        scores = (model.prefix_states(window)[0, -1] @ model.item_table()[1:].T).tolist()
        assert ranks.unfiltered[user] == sorted(scores, reverse=True).index(scores[history[-1] - 1]) + 1


def test_seen_items_by_hand() -> None:
    """User 0: 2, 3, 2 before the test target 3: only item 2 counts, once. User 1: 1, 2 before 3: both."""
    seen = SeenItems(sequences_of([2, 3, 2, 3], [1, 2, 3]), TEST)
    columns, counts = seen.of(torch.arange(2))
    found = [sorted(columns[user][counts[user]].tolist()) for user in range(2)]
    assert found == [[1], [0, 1]]


def test_first_occurrences_by_hand() -> None:
    users, items = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 1, 2, 2, 2])
    assert first_occurrences(users, items).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("k", [1, 5, 10, 20])
def test_metrics_equal_ir_measures(k: int) -> None:
    """Distinct random scores of 60 items, one relevant: Success@k and nDCG@k of each user."""
    draw = np.random.default_rng(k)
    scores = np.array([draw.permutation(60) for _ in range(30)], dtype=float)
    targets = draw.integers(0, 60, 30)
    ranks = np.array([1.0 + (row > row[target]).sum() for row, target in zip(scores, targets, strict=True)])
    qrels = [ir_measures.Qrel(str(user), str(target), 1) for user, target in enumerate(targets)]
    run = [ir_measures.ScoredDoc(str(u), str(i), scores[u, i]) for u in range(30) for i in range(60)]
    measures = {ir_measures.Success @ k: hits(ranks, k), ir_measures.nDCG @ k: gains(ranks, k)}
    for found in ir_measures.iter_calc(list(measures), qrels, run):
        assert measures[found.measure][int(found.query_id)] == pytest.approx(found.value)


def test_summary_by_hand() -> None:
    """Ranks 1, 3 and 11: HR@10 2/3, NDCG@10 (1 + 1/2) / 3; filtered 1, 1, 1: both 1."""
    ranks = Ranks(np.array([1, 2, 3]), np.array([1.0, 3.0, 11.0]), np.ones(3))
    assert summarise(ranks, (10,), "test") == pytest.approx(
        {
            "test_hr_10_unfiltered": 2 / 3,
            "test_ndcg_10_unfiltered": 0.5,
            "test_hr_10_filtered": 1,
            "test_ndcg_10_filtered": 1,
        }
    )
