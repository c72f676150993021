"""The generator: what its docstring promises, measured."""

from functools import cache
from io import BytesIO

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from iadsr.errors import UserError
from iadsr.filter.interactions import Core, k_core
from iadsr.ingest.demo import Demo, load
from iadsr.ingest.raw import Raw


@cache
def default() -> Raw:
    return load(Demo(kind="demo"))


def histories(interactions: pl.DataFrame) -> pl.DataFrame:
    """A row a user: lists of items and of accidents, in order of time."""
    return interactions.group_by("user", maintain_order=True).agg("item", "is_noise")


def parquet(frame: pl.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("users", "items", "noise"),
    [(3, 20, 0.0), (3, 20, 0.15), (5, 39, 0.5), (4, 61, 0.6), (50, 100, 0.15), (3, 9000, 0.3)],
)
def test_edge_shapes(users: int, items: int, noise: float) -> None:
    """Any size holds: no item twice in a history, at least 5 interactions, the last two real, the share exact."""
    raw = load(Demo(kind="demo", users=users, items=items, noise=noise))
    users_rows = histories(raw.interactions)
    assert users_rows.height == users
    assert (users_rows["item"].list.len() >= 5).all()
    assert users_rows["item"].list.n_unique().equals(users_rows["item"].list.len())
    assert not users_rows["is_noise"].list.tail(2).list.any().any()
    assert raw.interactions["is_noise"].sum() == round(noise * raw.interactions.height)
    assert raw.items["title"].n_unique() == raw.items.height


def test_more_noise_than_places_is_an_error() -> None:
    """Histories of 5 have 3 open places: at most 0.60 of all."""
    with pytest.raises(UserError, match=r"`noise` of the demo: expected at most 0.60, because the last 2 .* found 0.9"):
        load(Demo(kind="demo", users=3, items=20, noise=0.9))


def test_the_same_seed_gives_the_same_bytes_another_seed_others() -> None:
    first, second, other = (load(Demo(kind="demo", users=50, items=100, seed=seed)) for seed in (1, 1, 2))
    assert parquet(first.interactions) == parquet(second.interactions)
    assert parquet(first.items) == parquet(second.items)
    assert parquet(first.interactions) != parquet(other.interactions)


def test_default_size_and_share_of_noise() -> None:
    """2,000 users of 8 to 9 interactions on average; 15% accidents, none in a user's last two; in order of time."""
    interactions = default().interactions
    users = histories(interactions)
    assert users.height == 2000
    assert 8 <= interactions.height / 2000 <= 9
    assert interactions["is_noise"].mean() == pytest.approx(0.15, abs=1e-4)
    assert not users["is_noise"].list.tail(2).list.any().any()
    assert interactions["timestamp"].is_sorted()


def test_popularity_has_a_long_tail_that_survives_the_5_core() -> None:
    """The most popular tenth takes over a quarter; a tenth of items has at most 8; the 5-core drops under 5%."""
    counts = default().interactions["item"].value_counts()["count"].sort(descending=True).to_numpy()
    assert counts[:100].sum() / counts.sum() > 0.25
    assert counts[0] > 10 * np.median(counts)
    assert np.quantile(counts, 0.1) <= 8
    core = k_core(default().interactions, Core(5, "datasets.demo.core"))
    assert core["item"].n_unique() >= 940
    assert core["user"].n_unique() >= 1950


def test_titles_tell_accidents_apart_and_popularity_does_not() -> None:
    """Score of an accident: minus the tf-idf cosine of its title and the rest of its history; AUC over all rows."""
    raw = default()
    vectors = TfidfVectorizer().fit_transform(raw.items["title"]).toarray()
    index = {item: row for row, item in enumerate(raw.items["item"])}
    strangeness, accident = [], []
    for _, items, flags in histories(raw.interactions).rows():
        own = vectors[[index[item] for item in items]]
        rest = own.sum(axis=0) - own
        cosine = (own * rest).sum(axis=1) / np.maximum(np.linalg.norm(rest, axis=1), 1e-9)
        strangeness.extend(-cosine)
        accident.extend(flags)
    popularity = raw.interactions.select(pl.len().over("item")).to_series()
    assert roc_auc_score(accident, strangeness) > 0.9
    assert roc_auc_score(raw.interactions["is_noise"], popularity) == pytest.approx(0.5, abs=0.05)


def test_the_last_item_tells_more_of_the_next_than_popularity() -> None:
    """Hit ratio at 10 of each user's last item: by counts of earlier transitions, and by plain counts."""
    raw = default()
    index = {item: row for row, item in enumerate(raw.items["item"])}
    users = [[index[item] for item in items] for items in histories(raw.interactions)["item"]]
    transitions = np.zeros((len(index), len(index)))
    for items in users:
        np.add.at(transitions, (items[:-2], items[1:-1]), 1)
    popularity = transitions.sum(axis=0)

    def hit(scores: np.ndarray, items: list[int]) -> bool:
        scores = scores.copy()
        scores[items[:-1]] = -1
        return bool((scores > scores[items[-1]]).sum() < 10)

    by_popularity = np.mean([hit(popularity, items) for items in users])
    by_last = np.mean([hit(transitions[items[-2]] + popularity / popularity.sum(), items) for items in users])
    assert by_last > 2 * by_popularity
