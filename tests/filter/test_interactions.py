"""From raw interactions to sequences: each step on hand-worked rows, then as properties of random ones."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_logs import histories_strategy, sequences

from iadsr.errors import UserError
from iadsr.filter.interactions import (
    Core,
    FilterParams,
    arranged,
    core_rows,
    drop_duplicates,
    k_core,
    refuse_short,
    reindex,
    time_order,
)

Row = tuple[str, str, int]
Pair = tuple[str, str]
COLUMNS = {"user": pl.String, "item": pl.String, "timestamp": pl.Int64}


def raw(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def untimed(pairs: str) -> pl.DataFrame:
    """`a1 b2` -> user a with item 1, user b with item 2, one second apart."""
    return raw(*[(pair[0], pair[1:], time) for time, pair in enumerate(pairs.split())])


def core(size: int) -> Core:
    return Core(size, "datasets.mine.core")


def pairs(frame: pl.DataFrame) -> str:
    return " ".join(user + item for user, item in frame.select("user", "item").rows())


# --- duplicates ---


@pytest.mark.parametrize(
    ("policy", "rows"), [("keep", [0, 1, 2, 3, 4, 5, 6]), ("first", [0, 1, 4, 5]), ("last", [1, 2, 3, 4, 5, 6])]
)
def test_which_of_several_rows_stays(policy: str, rows: list[int]) -> None:
    """u: a b a | a c, v: d d, where | begins what is held out, all of v. `first`: u a b c, v d.

    `last`: of u's training rows a (0), b, a (2) the later a stays; the two held-out rows stay, a once more; so does v.
    """
    marked = untimed("ua ub ua ua uc vd vd").with_row_index("row")
    assert drop_duplicates(marked, policy)["row"].to_list() == rows


def test_training_rows_do_not_tell_the_held_out_items() -> None:
    """The plain rule of the last would leave B C D A of A B C D A, so that A is missing because it is the answer."""
    assert pairs(drop_duplicates(untimed("uA uB uC uD uA"), "last")) == "uA uB uC uD uA"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=3, max_size=9), st.sampled_from(["keep", "first", "last"]))
def test_training_rows_are_those_of_a_history_cut_before_the_held_out(history: list[str], policy: str) -> None:
    """`last` of the whole is `last` of the training part (all rows once, the later ones) and two untouched rows."""
    found = [item for item in drop_duplicates(untimed(" ".join("u" + item for item in history)), policy)["item"]]
    train = history[:-2]
    expected = {
        "keep": history,
        "first": list(dict.fromkeys(history)),
        "last": [*reversed(dict.fromkeys(reversed(train))), *history[-2:]],
    }
    assert found == expected[policy]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("123")), max_size=30))
def test_duplicates_of_several_users_equal_windows_over_each(rows: list[Pair]) -> None:
    """The plain form of both rules, in polars' own terms, on users of any number of rows that stand together."""
    frame = time_order(raw(*[(user, item, time) for time, (user, item) in enumerate(rows)]), "raw", 0)
    held_out = pl.int_range(pl.len()).over("user") >= pl.len().over("user") - 2
    marked = frame.with_columns(held_out=held_out)
    same = ("user", "item", "held_out")
    last = pl.int_range(pl.len()).over(same) == pl.len().over(same) - 1
    assert drop_duplicates(frame, "first").equals(frame.unique(["user", "item"], keep="first", maintain_order=True))
    assert drop_duplicates(frame, "last").equals(marked.filter(pl.col("held_out") | last).drop("held_out"))


def test_the_same_item_of_another_user_is_no_duplicate() -> None:
    assert pairs(drop_duplicates(untimed("a1 b1 a2"), "first")) == "a1 b1 a2"


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("keep", "a1 a1 b1 b2 c1 c2 b1"), ("first", "b1 b2 c1 c2 b1"), ("last", "b1 b2 c1 c2 b1")],
)
def test_a_pair_counts_once_in_the_core_unless_duplicates_are_kept(policy: str, expected: str) -> None:
    """The 2-core: a's two rows are one pair, so a has one interaction and goes; b1 stays in both its rows."""
    assert pairs(core_rows(untimed("a1 a1 b1 b2 c1 c2 b1"), policy, core(2))) == expected


# --- k-core ---


def test_k_core_unravels_a_chain_round_by_round() -> None:
    """The 2-core of c4 c3 b3 b2 a2 a1 x1 x5 x6 y5 y6.

    Item 4 has one row; without c4 user c has one; without c3 item 3 has one; then b, item 2, a, and item 1 follow, one
    a round. x5 x6 y5 y6 hold each other.
    """
    assert pairs(k_core(untimed("c4 c3 b3 b2 a2 a1 x1 x5 x6 y5 y6"), core(2))) == "x5 x6 y5 y6"


@pytest.mark.parametrize("size", [0, 1])
def test_no_core_keeps_everything(size: int) -> None:
    frame = untimed("a1 b2 c3")
    assert k_core(frame, core(size)).equals(frame)


def test_k_core_counts_rows_and_not_distinct_partners() -> None:
    """As published preprocessings do: a met item 1 twice, so both have two interactions."""
    assert pairs(k_core(untimed("a1 a1 b2"), core(2))) == "a1 a1"


def test_an_empty_core_is_an_error() -> None:
    with pytest.raises(
        UserError, match=r"^params.yaml: datasets.mine.core: the 2-core of 3 interactions is empty; lower it"
    ):
        k_core(untimed("a1 b2 c3"), core(2))


def test_no_interactions_at_all_are_an_error() -> None:
    with pytest.raises(UserError, match="core"):
        k_core(raw(), core(0))


def slow_k_core(rows: list[Pair], size: int) -> list[Pair]:
    """Take away one row at a time, as long as its user or its item has too few: ends at the largest core."""
    left = list(rows)
    while True:
        users, items = Counter(user for user, _ in left), Counter(item for _, item in left)
        poor = next((n for n, (user, item) in enumerate(left) if users[user] < size or items[item] < size), None)
        if poor is None:
            return left
        del left[poor]


some_pairs = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("123456")), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(some_pairs, st.integers(0, 4))
def test_k_core_is_a_fixed_point_and_the_largest(rows: list[Pair], size: int) -> None:
    frame = raw(*[(user, item, time) for time, (user, item) in enumerate(rows)])
    expected = slow_k_core(rows, size)
    if not expected:
        with pytest.raises(UserError, match="empty"):
            k_core(frame, core(size))
        return
    found = k_core(frame, core(size))
    assert found.select("user", "item").rows() == expected
    assert found["timestamp"].is_sorted()
    assert k_core(found, core(size)).equals(found)


# --- time order ---

# v comes first in the file, then u; u's last three are at the same time
TIED = (("v", "a", 9), ("u", "b", 5), ("u", "c", 5), ("v", "d", 1), ("u", "e", 2), ("u", "f", 5))


def test_equal_times_stay_in_raw_order() -> None:
    """v: d at 1, a at 9. u: e at 2, then b, c, f at 5 as in the file. v stands first, as in the file."""
    assert pairs(time_order(raw(*TIED), "raw", 0)) == "vd va ue ub uc uf"


def test_only_ties_are_shuffled() -> None:
    """In every shuffle v d, v a, u e keep their places; over 20 seeds all 6 orders of b, c, f appear."""
    orders = [pairs(time_order(raw(*TIED), "shuffled", seed)) for seed in range(20)]
    assert all(order.startswith("vd va ue ") for order in orders)
    assert len({order.removeprefix("vd va ue ") for order in orders}) == 6


def test_a_shuffle_follows_its_seed() -> None:
    again = [pairs(time_order(raw(*TIED), "shuffled", 7)) for _ in range(2)]
    assert again[0] == again[1]


def test_fractions_of_a_second_are_times_too() -> None:
    """All in second 5; c and b tie at 100 ns, a is earlier. 'raw' gives a, c, b; shuffles give also a, b, c."""
    frame = raw(("u", "c", 5), ("u", "b", 5), ("u", "a", 5)).with_columns(nanosecond=pl.Series([100, 100, 20]))
    assert pairs(time_order(frame, "raw", 0)) == "ua uc ub"
    assert {pairs(time_order(frame, "shuffled", seed)) for seed in range(9)} == {"ua uc ub", "ua ub uc"}


timed_rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("12345"), st.integers(0, 3)), min_size=1, max_size=30
)


@settings(max_examples=75, deadline=None)
@given(timed_rows, st.sampled_from(["raw", "shuffled"]), st.integers(0, 9))
def test_time_order_equals_a_plain_sort_of_each_history(rows: list[Row], ties: str, seed: int) -> None:
    histories: dict[str, list[Row]] = {}
    for row in rows:
        histories.setdefault(row[0], []).append(row)
    ordered = [row for history in histories.values() for row in sorted(history, key=lambda row: row[2])]
    found = time_order(raw(*rows), ties, seed).rows()
    if ties == "raw":
        assert found == ordered
    assert [(user, time) for user, _, time in found] == [(user, time) for user, _, time in ordered]
    assert sorted(found) == sorted(rows)


def test_more_users_than_a_half_of_their_number_holds() -> None:
    """70,000 users with two rows each, the later one first: numbers of 17 bits, which are sorted by two halves."""
    users = [f"u{number}" for number in range(70_000)]
    frame = pl.DataFrame({"user": users + users[::-1], "item": "i", "timestamp": [2] * 70_000 + [1] * 70_000})
    found = time_order(frame, "raw", 0)
    assert found["user"].to_list() == [user for user in users for _ in range(2)]
    assert found["timestamp"].to_list() == [1, 2] * 70_000


# --- numbering ---

TITLES = pl.DataFrame(
    {"item": ["a", "b", "c"], "title": ["Ant", "Bee", "Cat"], "categories": ["", "X > Y", ""]},
)


def test_users_and_items_are_numbered_as_they_appear() -> None:
    """Users w, u: 0, 1. Items b, a: 1, 2 (0 is padding); c occurs nowhere and gets no number."""
    found, users, items = reindex(raw(("w", "b", 1), ("w", "a", 2), ("u", "b", 3)), TITLES)
    assert found.select("user", "item", "timestamp").rows() == [(0, 1, 1), (0, 2, 2), (1, 1, 3)]
    assert users.rows(named=True) == [{"user": 0, "raw_user": "w"}, {"user": 1, "raw_user": "u"}]
    assert items.rows() == [(1, "b", "Bee", "X > Y"), (2, "a", "Ant", "")]
    assert (items.columns, users.columns) == (["item", "raw_item", "title", "categories"], ["user", "raw_user"])
    assert found.schema["user"] == found.schema["item"] == pl.Int32


def test_an_item_without_a_row_in_the_item_table_is_an_error() -> None:
    with pytest.raises(UserError, match=r"items.parquet: no row for item 'x' \(2 such items\)"):
        reindex(untimed("ua ux uy"), TITLES)


@settings(max_examples=75, deadline=None)
@given(timed_rows, st.sampled_from(["keep", "first", "last"]))
def test_categories_are_what_their_texts_are(rows: list[Row], duplicates: str) -> None:
    """All steps on ids as texts, and on categories whose codes are in the opposite order of appearance."""
    texts = raw(*rows)
    backwards = texts.reverse().with_columns(pl.col("user", "item").cast(pl.Categorical(pl.Categories.random())))
    titles = pl.DataFrame({"item": list("12345"), "title": "t", "categories": ""})
    found = []
    for frame in (texts, backwards.reverse()):
        ordered = time_order(core_rows(frame, duplicates, core(1)), "raw", 0)
        found.append(reindex(drop_duplicates(ordered, duplicates), titles))
    assert all(one.equals(other) for one, other in zip(*found, strict=True))


# --- leave-one-out ---


def test_the_last_two_are_held_out() -> None:
    """User 0 has four rows: train, train, validation, test. User 1 has the fewest that are allowed, three."""
    split = sequences([1, 2, 3, 4], [2, 1, 3])
    assert split["position"].to_list() == [0, 1, 2, 3, 0, 1, 2]
    assert split["split"].to_list() == ["train", "train", "validation", "test", "train", "validation", "test"]


def test_histories_shorter_than_three_are_an_error_with_an_example() -> None:
    """u has three rows, v two, w one; of the two short ones, v comes first."""
    message = (
        r"^2 users have fewer than 3 interactions .*, for example 'v' with 2; set datasets.mine.core in params.yaml"
    )
    with pytest.raises(UserError, match=message):
        refuse_short(untimed("u1 v1 u2 v2 w1 u3"), core(2))
    refuse_short(untimed("u1 u2 u3"), core(2))


@settings(max_examples=50, deadline=None)
@given(histories_strategy)
def test_every_user_has_one_validation_and_one_test_row_at_the_end(histories: list[list[int]]) -> None:
    split = sequences(*histories)
    for user, items in enumerate(histories):
        own = split.filter(pl.col("user") == user)
        assert own["item"].to_list() == items
        assert own["split"].to_list() == ["train"] * (len(items) - 2) + ["validation", "test"]
        assert own["position"].to_list() == list(range(len(items)))


# --- the table, and its parameters ---


def test_columns_stand_in_the_schemas_order() -> None:
    split = sequences([1, 2, 3]).with_columns(rating=pl.lit(5.0))
    assert arranged(split).columns == ["user", "item", "position", "timestamp", "split", "rating"]
    assert arranged(split.with_columns(is_noise=pl.lit(False))).columns[-2:] == ["is_noise", "rating"]


@pytest.mark.parametrize(
    "change", [{"duplicates": "none"}, {"ties": "random"}, {"ties_seed": -1}, {"ties_seed": "0"}, {"core": 5}]
)
def test_wrong_filter_parameters(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        FilterParams.model_validate({"duplicates": "keep", "ties": "raw", "ties_seed": 0, **change})
