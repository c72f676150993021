"""What `describe` counts, by hand; and Table 1 of the paper, from the official files."""

from __future__ import annotations

import ast
import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from iadsr.filter import interactions
from iadsr.filter.table_1 import compared, describe, equals_paper
from iadsr.params import lookup, read_params
from iadsr.published import TABLE_1
from stages import paths

ROOT = Path(__file__).parents[2]


def split(*rows: tuple[int, int, int]) -> pl.DataFrame:
    schema = {"user": pl.Int32, "item": pl.Int32, "timestamp": pl.Int64}
    return interactions.leave_one_out(pl.DataFrame(rows, schema=schema, orient="row"))


# user 0: items 1, 2, 1, 3 (item 1 twice), last two at the same time; user 1: items 2, 3, 4, times all different
TWO_USERS = ((0, 1, 1), (0, 2, 2), (0, 1, 3), (0, 3, 3), (1, 2, 1), (1, 3, 2), (1, 4, 3))


def test_a_data_set_of_seven_rows() -> None:
    """2 users, 4 items, 7 rows: average length 3.5, sparsity 1 - 7/8; lengths 4 and 3, median 3.5; 3 training rows."""
    assert describe(split(*TWO_USERS)) == {
        "users": 2,
        "items": 4,
        "interactions": 7,
        "average_length": 3.5,
        "sparsity": 0.125,
        "shortest": 3,
        "median_length": 3.5,
        "longest": 4,
        "train_interactions": 3,
        "test_interactions": 2,
        "noise_interactions": 0,
        "repeated_pairs": 1,
        "tied_last_two": 0.5,
    }


def test_known_noise_is_counted_apart() -> None:
    flagged = split(*TWO_USERS).with_columns(is_noise=pl.Series([True, False, True, False, False, False, False]))
    described = describe(flagged)
    assert (described["noise_interactions"], described["interactions"]) == (2, 7)


def test_what_people_compare_of_data_sets() -> None:
    """Noise is among it where there is any, and so is the paper's verdict where it has one."""
    few = {"users", "items", "interactions", "average_length", "sparsity", "tied_last_two"}
    described = {**describe(split(*TWO_USERS)), "planted_interactions": 0}
    assert compared(described) == {name: described[name] for name in few}
    more = {"noise_interactions": 2, "planted_interactions": 3, "equals_paper_table_1": False}
    assert compared({**described, **more}) == {name: described[name] for name in few} | more


def test_times_that_differ_within_a_second_are_no_tie() -> None:
    """User 0's last two rows are both in second 3, 1 and 2 ns past it; without that, one of two users is tied."""
    past = split(*TWO_USERS).with_columns(nanosecond=pl.Series([0, 0, 1, 2, 0, 0, 0]))
    assert describe(past)["tied_last_two"] == 0.0


def test_equality_is_that_of_the_printed_figures() -> None:
    """Beauty as Table 1 prints it: 198,502 / 22,363 = 8.876 rounds to 8.9, sparsity 99.927% to 99.93%."""
    beauty = {"users": 22363, "items": 12101, "interactions": 198502, "average_length": 8.876, "sparsity": 0.99927}
    assert equals_paper("beauty", beauty) is True
    assert equals_paper("beauty", {**beauty, "interactions": 198501}) is False
    assert equals_paper("beauty", {**beauty, "sparsity": 0.99924}) is False
    assert equals_paper("toys", beauty) is False
    assert equals_paper("demo", beauty) is None


# --- real data: the stages run as commands, because checked types would slow their loops over raw rows tenfold ---


@pytest.fixture(scope="module")
def filtered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Path]:
    """The project's folder after `ingest` and `filter` of a data set, each run once, with params.yaml as committed."""

    @cache
    def run(dataset: str, mirror: Path) -> Path:
        folder = tmp_path_factory.mktemp(dataset)
        text = (ROOT / "params.yaml").read_text(encoding="utf-8")
        (folder / "params.yaml").write_text(text.replace("dataset: demo ", f"dataset: {dataset} ", 1), encoding="utf-8")
        environment = {**os.environ, "IADSR_MIRROR": str(mirror), "PYTHONPATH": str(ROOT)}
        for stage in ("ingest", "filter"):
            subprocess.run([sys.executable, "-m", f"stages.{stage}"], cwd=folder, env=environment, check=True)
        return folder

    return run


@pytest.mark.parametrize("dataset", list(TABLE_1))
def test_table_1_of_the_paper(dataset: str, mirror: Path, filtered: Callable[[str, Path], Path]) -> None:
    """Users, items, actions, average length, sparsity in percent: typed from the paper, not taken from the code."""
    printed = {
        "beauty": (22363, 12101, 198502, "8.9", "99.93"),
        "sports": (35598, 18357, 296337, "8.3", "99.95"),
        "toys": (19412, 11924, 167597, "8.6", "99.93"),
        "ml-100k": (943, 1682, 100000, "106.0", "93.70"),
    }
    found = json.loads((filtered(dataset, mirror) / paths.DATASET_METRICS).read_text())
    length, sparsity = f"{found['average_length']:.1f}", f"{100 * found['sparsity']:.2f}"
    assert (found["users"], found["items"], found["interactions"], length, sparsity) == printed[dataset]
    assert found["equals_paper_table_1"] is True


def test_beauty_equals_a_plain_sort_of_the_raw_file(mirror: Path, filtered: Callable[[str, Path], Path]) -> None:
    """The reference: a dictionary of lists, filled in the order of the file, each sorted by time, which is stable."""
    histories: dict[str, list[tuple[int, str]]] = {}
    with gzip.open(mirror / "reviews_Beauty_5.json.gz", "rt", encoding="utf-8") as lines:
        for review in map(json.loads, lines):
            histories.setdefault(review["reviewerID"], []).append((review["unixReviewTime"], review["asin"]))
    expected = {user: sorted(history, key=lambda entry: entry[0]) for user, history in histories.items()}

    folder = filtered("beauty", mirror)
    sequences, users, items = (pl.read_parquet(folder / path) for path in (paths.SEQUENCES, paths.USERS, paths.ITEMS))
    raw_users, raw_items = users["raw_user"].to_list(), ["", *items["raw_item"]]
    assert raw_users == list(histories)
    found: dict[str, list[tuple[int, str]]] = {}
    for user, item, time in sequences.select("user", "item", "timestamp").rows():
        found.setdefault(raw_users[user], []).append((time, raw_items[item]))
    assert found == expected


def test_titles_of_beauty_are_those_of_the_meta_file(mirror: Path, filtered: Callable[[str, Path], Path]) -> None:
    """A sample: the first hundred items whose title has no HTML entity, read by Python's own parser."""
    items = pl.read_parquet(filtered("beauty", mirror) / paths.ITEMS)
    titles = dict(items.select("raw_item", "title").rows())
    expected: dict[str, str] = {}
    with gzip.open(mirror / "meta_Beauty.json.gz", "rt", encoding="utf-8") as lines:
        for meta in map(ast.literal_eval, lines):
            if meta["asin"] in titles and meta.get("title") and "&" not in meta["title"]:
                expected[meta["asin"]] = " ".join(meta["title"].split())
            if len(expected) == 100:
                break
    assert {item: titles[item] for item in expected} == expected


def test_the_paper_has_four_data_sets() -> None:
    assert set(TABLE_1) <= set(lookup(read_params(ROOT / "params.yaml"), "datasets"))
