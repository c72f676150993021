"""Popularity buckets and what they show, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadsr.evaluate.popularity import Equal, bucket_table, popularity_buckets
from iadsr.models.ranking import Ranks


def buckets_of(counts: list[int], buckets: int, equal: Equal) -> list[int]:
    return popularity_buckets(np.array(counts), buckets, equal).tolist()


@pytest.mark.parametrize("equal", ["interactions", "items"])
def test_one_item(equal: Equal) -> None:
    assert buckets_of([3], 5, equal) == [1]


def test_equal_items_by_hand() -> None:
    """Hot to cold: items 2, 4, 1, 3, 5, 6 (ties by index); three buckets of two."""
    assert buckets_of([2, 9, 2, 5, 1, 1], 3, "items") == [2, 1, 2, 1, 3, 3]


def test_equal_interactions_by_hand() -> None:
    """Counts 4, 3, 2, 2, 1 (running 4, 7, 9, 11, 12) in 3 shares of 4: the 7th lies in the second, 9 and more last."""
    assert buckets_of([2, 4, 1, 3, 2], 3, "interactions") == [3, 1, 3, 2, 3]


def test_items_hotter_than_a_share() -> None:
    """One item with 90 of 100 interactions is alone in the first of five buckets; the rest is cold."""
    assert buckets_of([5, 90, 5], 5, "interactions") == [5, 1, 5]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 6), st.sampled_from(["interactions", "items"])
)
def test_a_hotter_item_is_never_in_a_colder_bucket(counts: list[int], buckets: int, equal: Equal) -> None:
    found = buckets_of(counts, buckets, equal)
    assert min(found) == 1 and max(found) <= buckets
    order = np.argsort(-np.array(counts), kind="stable")
    assert np.all(np.diff(np.array(found)[order]) >= 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6))
def test_buckets_of_equal_items_differ_by_at_most_one(items: int, buckets: int) -> None:
    sizes = np.bincount(buckets_of(list(range(items)), buckets, "items"), minlength=buckets + 1)[1:]
    assert items < buckets or sizes.max() - sizes.min() <= 1


def test_table_by_hand() -> None:
    """Items 1, 3 are in bucket 1, item 2 in bucket 3; nothing is in bucket 2.

    Targets 1, 2, 3 at ranks 1, 3, 9 (filtered 1, 1, 3): bucket 1 has HR@5 1/2, NDCG@5 1/2, filtered (1 + 1/2) / 2;
    bucket 3 has HR@5 1, NDCG@5 1/2, filtered 1. Judged: items 1, 1, 2, 3, of which the first and third are dropped.
    """
    ranks = Ranks(np.array([1, 2, 3]), np.array([1.0, 3.0, 9.0]), np.array([1.0, 1.0, 3.0]))
    dropped, probability = np.array([True, False, True, False]), np.array([0.9, 0.3, 0.5, 0.0])
    table = bucket_table(np.array([1, 3, 1]), ranks, np.array([1, 1, 2, 3]), dropped, probability)
    names = ("items", "test_users", "hr_5_unfiltered", "ndcg_5_unfiltered", "ndcg_5_filtered", "judged", "drop_ratio")
    assert [tuple(row[name] for name in names) for row in table] == [
        (2, 2, 0.5, 0.5, 0.75, 3, pytest.approx(1 / 3)),
        (0, 0, 0, 0, 0, 0, 0),
        (1, 1, 1, 0.5, 1, 1, 1),
    ]
    assert [row["drop_ratio_expected"] for row in table] == pytest.approx([0.4, 0, 0.5])
    assert [row["bucket"] for row in table] == [1, 2, 3]
