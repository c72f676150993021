"""Planted noise in the table: where it stands, what it leaves alone, and that nothing but the item gives it away."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from small_logs import histories_strategy, sequences

from iadsr.errors import UserError
from iadsr.filter.filtered import Filtered, filtered
from iadsr.filter.interactions import time_order
from iadsr.filter.planted_noise import Kind, NoiseParams, category_numbers, hold_out_donors, plant_noise

KINDS: tuple[Any, ...] = get_args(Kind)
INSERTING = [kind for kind in KINDS if kind != "swaps"]
DRAWN = [kind for kind in INSERTING if kind != "burst"]  # as many as asked
NUMEROUS = [151, 152, 151]  # a last user, whose items make a catalogue that nobody has met wholly


def noise(kind: Kind = "uniform", ratio: float = 0.5, seed: int = 0) -> NoiseParams:
    return NoiseParams(kind=kind, ratio=ratio, seed=seed)


def raw(*histories: str) -> pl.DataFrame:
    """Interactions of users a, b, c ... with items of one letter."""
    rows = [("abcdefgh"[user], item, time) for user, items in enumerate(histories) for time, item in enumerate(items)]
    return pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")


def catalogue(split: pl.DataFrame) -> pl.DataFrame:
    """Items 1, 2, 3 ... are i1, i2, i3 ... in the source, of three categories in turn and none."""
    numbers = range(1, int(split["item"].max()) + 1)  # type: ignore[arg-type]
    categories = [("", "A", "B", "C")[number % 4] for number in numbers]
    return pl.DataFrame({"item": numbers, "raw_item": [f"i{number}" for number in numbers], "categories": categories})


DONORS = pl.DataFrame({"user": [*"aaaabbb"], "item": ["i2", "i9", "i151", "i152", "i6", "gone", "i7"]})


def planted(split: pl.DataFrame, *what: Any) -> pl.DataFrame:
    return plant_noise(split, catalogue(split), noise(*what), DONORS)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_planted_at_ratio_zero(kind: Kind) -> None:
    split = sequences([1, 2, 3])
    assert planted(split, kind, 0.0) is split
    whole, nobody = hold_out_donors(split, noise(kind, 0.0))
    assert whole is split and nobody.is_empty()


def test_the_only_foreign_item_is_planted() -> None:
    """User 0 trains on 1 to 4 of 5, user 1 on 5, 1, 2, 3: of 8 training rows 2 are planted, item 5 and item 4."""
    out = planted(sequences([1, 2, 3, 4, 1, 2], [5, 1, 2, 3, 1, 2]), "uniform", 0.25)
    assert out.filter("is_noise").select("user", "item").rows() == [(0, 5), (1, 4)]


def test_noise_that_the_source_knows_stays_flagged() -> None:
    split = sequences([1, 2, 3, 4], [5, 6, 7]).with_columns(is_noise=pl.Series([True] + 6 * [False]))
    out = planted(split, "uniform", 1.0)
    assert out["is_noise"].sum() == 1 + 3
    assert out.filter(pl.col("is_noise") & (pl.col("user") == 0) & (pl.col("item") == 1)).height == 1


def test_nobody_has_rated_what_is_planted() -> None:
    split = sequences([1, 2, 3, 4], [5, 6, 7]).with_columns(rating=pl.lit(4.5, pl.Float32))
    out = planted(split, "uniform", 1.0)
    assert out.filter("is_noise")["rating"].to_list() == [None] * 3
    assert out.filter(~pl.col("is_noise"))["rating"].to_list() == [4.5] * 7


@settings(max_examples=70, deadline=None)
@given(histories_strategy, st.sampled_from(KINDS), st.sampled_from([0.01, 0.2, 1.0, 2.5]), st.integers(0, 99))
def test_planting(histories: list[list[int]], kind: Kind, ratio: float, seed: int) -> None:
    """Whatever the kind: what is held out stays, plants are training rows, and rows stand in order."""
    split = sequences(*histories, NUMEROUS)
    out = planted(split, kind, ratio, seed)
    held_out = pl.col("split") != "train"
    same = ("user", "item", "timestamp", "split")
    assert out.filter(held_out).select(same).equals(split.filter(held_out).select(same))
    assert not out.filter(held_out)["is_noise"].any()
    assert out["user"].is_sorted() and out.schema == {**split.schema, "is_noise": pl.Boolean}
    for (_,), own in out.group_by("user", maintain_order=True):
        assert own["position"].to_list() == list(range(own.height))
        assert own["timestamp"].is_sorted()
        assert own["split"].to_list() == ["train"] * (own.height - 2) + ["validation", "test"]
    assert planted(split, kind, ratio, seed).equals(out)


@settings(max_examples=60, deadline=None)
@given(histories_strategy, st.sampled_from(INSERTING), st.sampled_from([0.01, 0.2, 1.0, 2.5]))
def test_what_is_planted(histories: list[list[int]], kind: Kind, ratio: float) -> None:
    """Real items keep their order; as many are planted as asked, and only `duplicates` plants what a user has met.

    Of the donors 4 items in a row are in the catalogue; the two that stand around one that is not are not in a row.
    """
    split = sequences(*histories, NUMEROUS)
    out = planted(split, kind, ratio)
    assert out.filter(~pl.col("is_noise")).select("user", "item").equals(split.select("user", "item"))
    plants, train = out.filter("is_noise"), split.filter(pl.col("split") == "train")
    assert plants.height == (4 if kind == "burst" else round(ratio * train.height))
    met = plants.join(train, on=["user", "item"], how="semi").height
    assert kind == "burst" or met == (plants.height if kind == "duplicates" else 0)


@settings(max_examples=50, deadline=None)
@given(histories_strategy, st.sampled_from([0.2, 1.0]))
def test_swapping(histories: list[list[int]], ratio: float) -> None:
    """Each user keeps the same items, each row its time; what is flagged is what has changed."""
    split = sequences(*histories, NUMEROUS)
    out = planted(split, "swaps", ratio)
    assert out.sort("user", "item")["item"].equals(split.sort("user", "item")["item"])
    assert out["timestamp"].equals(split["timestamp"])
    assert out["is_noise"].equals(out["item"] != split["item"])


def test_a_swap_moves_what_belongs_to_the_item() -> None:
    """Items 1 and 2 change places, with their ratings, and are flagged, as 1 was already."""
    flags = pl.Series([True, False, False, False])
    out = planted(sequences([1, 2, 3, 4]).with_columns(rating=pl.Series([5, 1, 2, 2]), is_noise=flags), "swaps", 1.0)
    assert out.select("item", "rating", "is_noise").rows()[:2] == [(2, 1, True), (1, 5, True)]


@pytest.mark.parametrize("kind", KINDS)
def test_plants_do_not_depend_on_what_is_held_out(kind: Kind) -> None:
    """Items 2 and 3 change places in validation and test, then are 4 and 5: the training rows stay as they are."""
    own = [1, 1, 6, 7]
    parts = [
        planted(sequences([*own, *held_out], [6, 5, 4, 3, 2, 1], NUMEROUS), kind).filter(pl.col("split") == "train")
        for held_out in ([2, 3], [3, 2], [4, 5])
    ]
    assert parts[0].equals(parts[1]) and parts[0].equals(parts[2]) and parts[0]["is_noise"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_plants_other_noise(kind: Kind) -> None:
    split = sequences(*[[1 + user, 2 + user, 3 + user, 4 + user, 5 + user] for user in range(20)], NUMEROUS)
    assert not planted(split, kind, 0.5, 0).equals(planted(split, kind, 0.5, 1))


# --- times ---


def with_times(*times: tuple[int, int]) -> pl.DataFrame:
    """User 0 trains at the first two of these seconds and nanoseconds, user 1 at the last; all is held out later."""
    rows = [*times[:2], (99, 0), (99, 0), times[2], (99, 0), (99, 0)]
    split = sequences([1, 2, 3, 4], [5, 6, 7]).drop("timestamp")
    return split.with_columns(pl.DataFrame(rows, schema=["timestamp", "nanosecond"], orient="row"))


@pytest.mark.parametrize(
    ("first", "second", "other", "more"),
    [
        ((0, 0), (20, 0), (10, 0), (10, 0)),
        ((5, 1), (5, 3), (5, 2), (5, 2)),
        ((5, 1), (5, 1), (5, 2), (5, 1)),
        ((0, 0), (20, 0), (20, 0), (0, 0)),
    ],
)
def test_a_plant_brings_a_time(first: Any, second: Any, other: Any, more: Any) -> None:
    """Of user 0 one from between its two, if user 1 has one there, else the first; of user 1 that of its only row."""
    out = planted(with_times(first, second, other), "uniform", 1.0).filter(pl.col("split") == "train")
    found = [own.select("timestamp", "nanosecond").rows() for (_,), own in out.group_by("user", maintain_order=True)]
    assert found[0] == sorted([first, second, *[more] * (len(found[0]) - 2)])
    assert found[1] == [other] * (6 - len(found[0]))


# --- near misses and donors ---


def test_numbers_of_categories() -> None:
    """Items 1 to 3 are A, B and none; 5 is A again; padding has none."""
    numbers = category_numbers(catalogue(sequences([1, 2, 5])))
    assert [number < 0 for number in numbers] == [True, False, False, False, True, False]
    assert numbers[1] == numbers[5] != numbers[2]


@pytest.mark.parametrize(("ratio", "leave"), [(0.5, 1), (1.0, 2)])
def test_as_many_users_leave_as_bursts_take(ratio: float, leave: int) -> None:
    """4 users of 5 rows, 3 of them training: one gives 5 for 9, which is .5 of 9 at least; two give 10 for 6."""
    whole = raw("abcde", "fghij", "klmno", "pqrst")
    others, donors = hold_out_donors(whole, noise("burst", ratio))
    assert donors["user"].n_unique() == leave and donors.height == 5 * leave
    assert pl.concat([others, donors]).sort("user", "timestamp").equals(whole)


def test_bursts_that_leave_nobody() -> None:
    with pytest.raises(UserError, match=r"noise.ratio: bursts are taken from users who leave .*; lower it, or choose"):
        hold_out_donors(raw("abc", "def"), noise("burst", 10.0))


@pytest.mark.parametrize("kind", DRAWN)
def test_only_bursts_make_users_leave(kind: Kind) -> None:
    whole = raw("abc", "def")
    assert hold_out_donors(whole, noise(kind))[0] is whole


# --- a whole log, filtered with and without noise ---


@cache
def log() -> pl.DataFrame:
    """400 users with 3 to 30 interactions, most in 3 of 30 categories; 4 of 10 gaps are ties, 3 seconds, 3 days."""
    draw, tables = np.random.default_rng(0), []
    for user in range(400):
        length, own = int(draw.integers(3, 31)), draw.integers(30, size=3)
        category = np.where(draw.random(length) < 0.7, draw.choice(own, length), draw.integers(30, size=length))
        item = category + 30 * (20 * draw.random(length) ** 2).astype(int)
        gaps = draw.exponential(draw.choice([0, 60, 400_000], size=length, p=[0.4, 0.3, 0.3])).astype(int)
        time = draw.integers(30_000_000) + gaps.cumsum()
        tables.append(
            pl.DataFrame({"user": [f"u{user}"] * length, "item": [f"i{each}" for each in item], "timestamp": time})
        )
    return pl.concat(tables)


def log_items() -> pl.DataFrame:
    ids = [f"i{number}" for number in range(600)]
    return pl.DataFrame({"item": ids, "title": ids, "categories": [f"c{number % 30}" for number in range(600)]})


@cache
def noisy(kind: Kind, ratio: float = 0.2) -> Filtered:
    params = {
        "dataset": "beauty",
        "datasets": {"beauty": {"core": 0, "max_length": 50, "source": {}}},
        "filter": {"duplicates": "keep", "ties": "raw", "ties_seed": 0},
        "noise": {"kind": kind, "ratio": ratio, "seed": 0},
    }
    return filtered(params, log, log_items)


def train_rows(kind: Kind, ratio: float = 0.2) -> pl.DataFrame:
    """With what might tell a plant, and the category."""
    gap = pl.col("timestamp").diff().over("user")
    rows = noisy(kind, ratio).sequences.filter(pl.col("split") == "train")
    rows = rows.join(noisy(kind, ratio).items, on="item", how="left", maintain_order="left")
    rows = rows.with_columns(length=pl.len().over("user"), before=gap, after=gap.shift(-1).over("user"))
    tied = (pl.col("before") == 0).fill_null(False) | (pl.col("after") == 0).fill_null(False)
    return rows.with_columns(tied=tied, alike=pl.len().over("user", "categories") > 1)


def auc(rows: pl.DataFrame, signal: str) -> float:
    known = rows.drop_nulls(signal)
    return float(roc_auc_score(known["is_noise"], known[signal]))


@pytest.mark.parametrize("kind", INSERTING)
@pytest.mark.parametrize("signal", ["before", "after", "tied", "position", "length"])
def test_nothing_but_the_item_gives_a_plant_away(kind: Kind, signal: str) -> None:
    """But a duplicate's position: it is never first, since something must stand before it."""
    tolerance = 0.06 if signal == "length" else 0.05
    if (kind, signal) == ("duplicates", "position"):
        assert train_rows(kind).filter("is_noise")["position"].min() > 0  # type: ignore[operator]
    else:
        assert auc(train_rows(kind), signal) == pytest.approx(0.5, abs=tolerance)


@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_a_shared_category_does_not_give_a_near_miss_away(ratio: float) -> None:
    assert auc(train_rows("near_miss", ratio), "alike") == pytest.approx(0.5, abs=0.03)
    assert 0.2 < train_rows("near_miss", ratio)["alike"].mean() < 0.9  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["uniform", "popularity", "near_miss", "boundary"])
def test_a_repetition_does_not_give_a_plant_away(kind: Kind) -> None:
    """Each of a user's plants is an item that stands once in the history."""
    assert not train_rows(kind).filter("is_noise", pl.len().over("user", "item") > 1).height


def test_bursts_are_runs_of_users_who_have_left() -> None:
    """Each plant stands beside one that somebody who is not in the data has had right before or after it."""
    stay = noisy("burst").users["raw_user"].to_list()
    gone = time_order(log(), "raw", 0).filter(~pl.col("user").is_in(stay))
    runs = set(gone.select("item", later=pl.col("item").shift(-1).over("user")).rows())
    both = pl.col("is_noise") & pl.col("is_noise").shift(-1).over("user").fill_null(False)
    rows = train_rows("burst").with_columns(both=both, later=pl.col("raw_item").shift(-1).over("user"))
    joined = rows["both"] & pl.Series([pair in runs for pair in rows.select("raw_item", "later").rows()])
    assert (joined | joined.shift(fill_value=False)).filter(rows["is_noise"]).all() and len(stay) < 400


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_counted(kind: Kind) -> None:
    """All that is flagged; bursts come in whole users, who have left, and swaps in pairs."""
    metrics = noisy(kind).metrics
    assert metrics["planted_interactions"] == train_rows(kind)["is_noise"].sum()
    assert metrics["planted_interactions"] == pytest.approx(0.2 * metrics["train_interactions"], abs=15)
    assert (metrics["interactions"] == log().height) == (kind != "burst")


@pytest.mark.parametrize("kind", KINDS)
def test_table_1_is_of_the_data_before_planting(kind: Kind) -> None:
    """The log is not the paper's. Without those who have left for bursts no data would be, so nothing is said."""
    assert noisy(kind).metrics.get("equals_paper_table_1") == (None if kind == "burst" else False)


@pytest.mark.parametrize(
    "change", [{"kind": "odd"}, {"ratio": -0.1}, {"ratio": 11}, {"ratio": float("nan")}, {"seed": 0.5}]
)
def test_wrong_noise_parameters(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        NoiseParams.model_validate({"kind": "uniform", "ratio": 0.0, "seed": 0, **change})
