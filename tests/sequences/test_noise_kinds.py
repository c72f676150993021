"""Each kind of noise on histories so small that what may be planted is known."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadsr.errors import UserError
from iadsr.sequences import noise_kinds
from iadsr.sequences.noise_kinds import TrainingHistories, as_runs, drawn_places, drawn_users

lists = st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=9), min_size=1, max_size=5)
seeds = st.integers(0, 99)


def histories(*items: list[int], last_item: int = 6) -> TrainingHistories:
    return TrainingHistories(np.concatenate(items), np.cumsum([0, *map(len, items)]), last_item)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def shares(found: np.ndarray) -> dict[int, float]:
    return {item: count / len(found) for item, count in Counter(found.tolist()).items()}


# --- users and places ---


def test_plants_are_spread_evenly_over_gaps() -> None:
    """1 item has 2 gaps, 3 items have 4: of 6 plants, or 12, users get 2 and 4, or 4 and 8."""
    real = histories([1], [1, 2, 3])
    assert np.bincount(drawn_users(real, 6, generator())).tolist() == [2, 4]
    assert np.bincount(drawn_users(real, 12, generator())).tolist() == [4, 8]


def test_all_orders_of_items_and_plants_are_equally_likely() -> None:
    """2 items and 2 plants have 6 orders: of 6,000 users each has 1,000, give or take 4 deviations of 29."""
    real = histories(*[[1, 2]] * 6000)
    places = drawn_places(real, np.repeat(np.arange(6000), 2), generator())
    counts = Counter(map(tuple, places.reshape(-1, 2).tolist()))
    assert set(counts) == {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)}
    assert all(abs(count - 1000) < 4 * 29 for count in counts.values())


# --- items that the user has not met ---


def test_uniform_over_what_is_not_met() -> None:
    """Users who have met 1 of 6: 5,000 plants over 2 to 6 are 1,000 each, give or take 4 deviations of 28."""
    found = shares(noise_kinds.uniform(histories(*[[1]] * 5000), np.arange(5000), generator()))
    assert found == pytest.approx(dict.fromkeys((2, 3, 4, 5, 6), 0.2), abs=4 * 0.0057)


def test_nothing_is_planted_twice_while_there_is_something_else() -> None:
    """5 items are left for 5 plants, and then for 7."""
    five, seven = (
        noise_kinds.uniform(histories([1]), np.zeros(count, dtype=np.int64), generator()) for count in (5, 7)
    )
    assert sorted(five) == [2, 3, 4, 5, 6]
    assert set(seven) == {2, 3, 4, 5, 6}


def test_popularity_follows_training_interactions() -> None:
    """Items 2 and 3 were had 300 and 100 times, by others: 3 of 4 plants are 2, give or take 4 deviations of .014."""
    real = histories(*[[1]] * 1000, [2] * 300, [3] * 100)
    found = shares(noise_kinds.popularity(real, np.arange(1000), generator()))
    assert found == pytest.approx({2: 0.75, 3: 0.25}, abs=4 * 0.014)


NONE, A, B, C = -1, 0, 1, 2


def test_a_near_miss_shares_its_category_as_often_as_real_items_do() -> None:
    """Items 1, 2 and 4 are A, 3 and 6 B, 5 C. Of 1, 2, 3 two share theirs: 2 of 3 plants are 4, the others 5.

    6 is never planted: it would share B with 3. Deviations are .0086 of 3,000.
    """
    real, categories = histories(*[[1, 2, 3]] * 3000), np.array([NONE, A, A, B, A, C, B])
    found = shares(noise_kinds.near_miss(real, np.arange(3000), categories, generator()))
    assert found == pytest.approx({4: 2 / 3, 5: 1 / 3}, abs=4 * 0.0086)


def test_items_without_a_category_share_none() -> None:
    """1 and 2 have none, 3 has B alone: only 4 and 5, of none and of C, are planted, never 6 of B."""
    real, categories = histories(*[[1, 2, 3]] * 200), np.array([NONE, NONE, NONE, B, NONE, C, B])
    assert set(noise_kinds.near_miss(real, np.arange(200), categories, generator())) == {4, 5}


def test_a_near_miss_needs_categories() -> None:
    with pytest.raises(UserError, match=r"noise.kind: near_miss needs categories of items.* choose another kind"):
        noise_kinds.near_miss(histories([1]), np.array([0]), np.full(7, NONE), generator())


def best_of_dense_svd(real: TrainingHistories) -> np.ndarray:
    """Whether each item is among the 100 best not met [users, catalogue], by the plain formula."""
    met = np.zeros((len(real.offsets) - 1, real.last_item + 1))
    met[real.owner, real.items] = 1
    basis = np.linalg.svd(met)[2][: noise_kinds.FACTORS]
    scores = np.where(met > 0, -np.inf, met @ basis.T @ basis)
    scores[:, 0] = -np.inf
    return scores >= np.sort(scores, axis=1)[:, [-100]] - 1e-6


def test_the_boundary_is_that_of_a_dense_factorisation() -> None:
    """90 users of 1 to 25 of 160 items, some of which they have had twice; 10 plants each."""
    draw = generator(1)
    real = histories(*[draw.integers(1, 161, size=draw.integers(1, 26)).tolist() for _ in range(90)], last_item=160)
    before, users = real.items.copy(), np.repeat(np.arange(90), 10)
    found = noise_kinds.boundary(real, users, generator())
    assert best_of_dense_svd(real)[users, found].all()
    assert not best_of_dense_svd(real)[users, generator().permutation(found)].all()
    assert np.array_equal(real.items, before)


def test_the_boundary_of_one_user() -> None:
    assert noise_kinds.boundary(histories([1], last_item=200), np.zeros(3, dtype=np.int64), generator()).min() > 1


def test_a_catalogue_too_small_for_a_boundary() -> None:
    with pytest.raises(UserError, match=r"noise.kind: boundary .* 100 items, and one has only 100 not met; choose an"):
        noise_kinds.boundary(histories([1], [1, 2], last_item=102), np.array([0]), generator())


@pytest.mark.parametrize("kind", [noise_kinds.uniform, noise_kinds.popularity])
def test_whoever_has_met_all_leaves_nothing_to_plant(kind: Any) -> None:
    with pytest.raises(UserError, match=r"noise.ratio: a user has met every item .*; set it to 0, or noise.kind to "):
        kind(histories([1, 2, 1], [1], last_item=2), np.array([1]), generator())


def test_popularity_without_anything_suitable_takes_any_item() -> None:
    """All training interactions are of item 1, which everybody has met."""
    assert set(noise_kinds.popularity(histories([1], [1]), np.array([0, 1]), generator())) <= {2, 3, 4, 5, 6}


# --- bursts ---


@pytest.mark.parametrize(("length", "expected"), [(0, []), (1, []), (2, [2]), (3, [3])])
def test_runs_of_short_histories(length: int, expected: list[int]) -> None:
    """One item is no run; of three, the one that two would leave over joins them."""
    runs = as_runs(np.arange(1, length + 1), np.array([0, length]), generator())
    assert [len(run) for run in runs] == expected


@settings(max_examples=50, deadline=None)
@given(lists, seeds)
def test_runs_are_the_histories_cut(items: list[list[int]], seed: int) -> None:
    real = histories(*items)
    runs = as_runs(real.items, real.offsets, generator(seed))
    assert [item for run in runs for item in run] == [item for own in items if len(own) > 1 for item in own]
    assert all(2 <= len(run) <= 6 for run in runs)


def test_a_run_goes_whole_to_who_has_met_nothing_of_it() -> None:
    """User 0 has met 1 and 2, user 1 has met 5 and 6: the run 6 3 is for user 0, the run 4 1 2 for user 1."""
    plants = noise_kinds.burst(histories([1, 2], [5, 6]), [np.array([6, 3]), np.array([4, 1, 2])], generator())
    assert list(zip(plants.users, plants.items, strict=True)) == [(0, 6), (0, 3), (1, 4), (1, 1), (1, 2)]
    assert len(set(plants.places[:2])) == len(set(plants.places[2:])) == 1


def test_a_burst_without_a_run() -> None:
    with pytest.raises(UserError, match=r"noise.kind: burst found no two items in a row.*; choose another kind"):
        noise_kinds.burst(histories([1]), [], generator())


# --- real items ---


@settings(max_examples=50, deadline=None)
@given(lists, st.integers(0, 20), seeds)
def test_duplicates_come_after_what_they_repeat(items: list[list[int]], count: int, seed: int) -> None:
    plants = noise_kinds.duplicates(histories(*items), count, generator(seed))
    assert len(plants.items) == count
    assert all(item in items[user][:place] for user, place, item in zip(*plants, strict=True))
    assert sorted(zip(plants.users, plants.places, strict=True)) == list(zip(plants.users, plants.places, strict=True))


@settings(max_examples=50, deadline=None)
@given(lists, st.integers(0, 20), seeds)
def test_swaps_are_pairs_of_different_items_of_a_history(items: list[list[int]], count: int, seed: int) -> None:
    real = histories(*items)
    order = noise_kinds.swaps(real, count, generator(seed))
    moved = np.flatnonzero(order != np.arange(len(order)))
    assert len(moved) <= count
    assert np.array_equal(order[order], np.arange(len(order)))
    assert np.array_equal(real.owner[order], real.owner)
    assert (real.items[order] != real.items)[moved].all()


def test_as_many_swaps_as_asked() -> None:
    """Of 100 histories of 4 different items 60 items, 61, or all 400 change places: 61 is odd, and 500 too many."""
    for count, expected in ((60, 60), (61, 60), (500, 400)):
        order = noise_kinds.swaps(histories(*[[1, 2, 3, 4]] * 100), count, generator())
        assert (order != np.arange(400)).sum() == expected
