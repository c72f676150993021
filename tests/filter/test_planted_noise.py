"""Planted noise: where it stands, what it is drawn from, and what it must not depend on."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small_logs import histories_strategy, sequences

from iadsr.errors import UserError
from iadsr.filter.planted_noise import NoiseParams, plant_noise


def test_nothing_is_planted_at_ratio_zero() -> None:
    split = sequences([1, 2, 3])
    assert plant_noise(split, 0.0, 0) is split


def test_the_only_foreign_item_is_planted_before_a_training_row() -> None:
    """User 0 trains on 1 to 4 of 5, user 1 on 5, 1, 2, 3: only 5 and only 4 can be planted.

    8 training rows at ratio 0.25 make 2 plants, each at the time of a training row of its user, before that row.
    """
    split = sequences([1, 2, 3, 4, 1, 2], [5, 1, 2, 3, 1, 2])
    planted = plant_noise(split, 0.25, 3)
    assert planted["is_noise"].sum() == 2
    for user, item, position, time in planted.filter("is_noise").select("user", "item", "position", "timestamp").rows():
        assert item == {0: 5, 1: 4}[user]
        following = planted.filter((pl.col("user") == user) & (pl.col("position") > position) & ~pl.col("is_noise"))
        assert following.row(0, named=True)["timestamp"] == time
        assert following.row(0, named=True)["split"] == "train"


def test_noise_that_the_source_knows_stays_flagged() -> None:
    split = sequences([1, 2, 3, 4], [5, 6, 7]).with_columns(is_noise=pl.Series([True] + 6 * [False]))
    planted = plant_noise(split, 1.0, 0)
    assert planted["is_noise"].sum() == 1 + 3
    assert planted.filter(pl.col("is_noise") & (pl.col("user") == 0) & (pl.col("item") == 1)).height == 1


def test_nobody_has_rated_what_is_planted() -> None:
    split = sequences([1, 2, 3, 4], [5, 6, 7]).with_columns(rating=pl.lit(4.5, pl.Float32))
    planted = plant_noise(split, 1.0, 0)
    assert planted.filter("is_noise")["rating"].to_list() == [None] * 3
    assert planted.filter(~pl.col("is_noise"))["rating"].to_list() == [4.5] * 7


def test_a_user_who_trains_on_everything_leaves_nothing_to_plant() -> None:
    with pytest.raises(UserError, match=r"noise.ratio: a user has met every item of the catalogue"):
        plant_noise(sequences([1, 2, 3, 1, 2], [1, 2, 3]), 0.5, 0)


def test_plants_do_not_depend_on_what_is_held_out() -> None:
    """Items 2 and 3 change places in validation and test, then are 4 and 5: the training rows stay as they are."""
    parts = [
        plant_noise(sequences([1, 1, 1, 1, *held_out], [6, 5, 4, 3, 2, 1]), 0.5, 0).filter(pl.col("split") == "train")
        for held_out in ([2, 3], [3, 2], [4, 5])
    ]
    assert parts[0].equals(parts[1]) and parts[0].equals(parts[2])


@settings(max_examples=100, deadline=None)
@given(histories_strategy, st.sampled_from([0.01, 0.2, 0.5, 1.0, 2.5]), st.integers(0, 99))
def test_planting(histories: list[list[int]], ratio: float, seed: int) -> None:
    """A last user with item 9 alone, three times, makes a catalogue of 9 items that nobody has met wholly."""
    split = sequences(*histories, [9, 9, 9])
    planted = plant_noise(split, ratio, seed)
    noise, real = planted.filter("is_noise"), planted.filter(~pl.col("is_noise"))
    train = sum(len(items) - 2 for items in histories) + 1
    assert noise.height == round(ratio * train)
    assert set(noise["split"]) <= {"train"}
    same = ("user", "item", "timestamp", "split")
    assert real.select(same).equals(split.select(same))
    met = set(split.filter(pl.col("split") == "train").select("user", "item").rows())
    assert not met & set(noise.select("user", "item").rows())
    assert noise["item"].is_between(1, 9).all()
    for (_,), own in planted.group_by("user", maintain_order=True):
        assert own["position"].to_list() == list(range(own.height))
        assert own["timestamp"].is_sorted()
        assert own["split"].to_list() == ["train"] * (own.height - 2) + ["validation", "test"]
        assert not own["is_noise"][own.height - 3]  # a user's last training row is real
    assert planted["user"].is_sorted()
    assert planted.schema == {**split.schema, "is_noise": pl.Boolean}
    assert plant_noise(split, ratio, seed).equals(planted)


def test_another_seed_plants_other_noise() -> None:
    split = sequences(*[[1 + user, 2 + user, 3 + user, 4 + user] for user in range(20)])
    assert not plant_noise(split, 0.5, 0).equals(plant_noise(split, 0.5, 1))


def test_plants_are_uniform_over_foreign_items() -> None:
    """Users 0 to 99 train on 1 of 6: 5,000 plants over 2 to 6 are 1,000 each, give or take 4 deviations of 28.

    Items 2 and 3, which are held out, are drawn as often as the others.
    """
    planted = plant_noise(sequences(*[[1, 2, 3]] * 100, [2, 3, 4, 5, 6]), 5000 / 103, 0)
    counts = planted.filter(pl.col("is_noise") & (pl.col("user") < 100))["item"].value_counts()
    share = counts["count"] / counts["count"].sum()
    assert sorted(counts["item"]) == [2, 3, 4, 5, 6]
    assert share.is_between(0.2 - 4 * 0.0057, 0.2 + 4 * 0.0057).all()


@pytest.mark.parametrize("change", [{"ratio": -0.1}, {"ratio": 11}, {"ratio": float("nan")}, {"seed": 0.5}])
def test_wrong_noise_parameters(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        NoiseParams.model_validate({"ratio": 0.0, "seed": 0, **change})
