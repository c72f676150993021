"""The benchmark of `ingest` and `filter` on a few thousand rows: what it reports, and what it generates."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from benchmarks import generated_log
from benchmarks.generated_log import Size, pieces, write_amazon, write_csv

ROOT = Path(__file__).parents[2]
STAGES = {"ingest", "filter", "both"}


def run(*options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.ingest", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["csv", "amazon"])
def test_the_report(kind: str, tmp_path: Path) -> None:
    """3,000 rows of at most 150 users and 30 items; Python and polars alone take 40 MB, all of it less than 1 GB."""
    found = run("--json", "--format", kind, "--interactions", "3000", "--folder", str(tmp_path))
    assert (found["format"], found["interactions"], found["core"], found["seed"]) == (kind, 3000, 5, 0)
    assert 100 < found["users"] <= 150 and 20 < found["items"] <= 30
    assert all(0 < found["kept"][name] <= found[name] for name in ("users", "items", "interactions"))
    assert found["seconds"].keys() == found["cpu_seconds"].keys() == found["peak_memory_bytes"].keys() == STAGES
    assert found["seconds"]["both"] == pytest.approx(found["seconds"]["ingest"] + found["seconds"]["filter"], abs=0.01)
    assert all(40e6 < peak < 1e9 for peak in found["peak_memory_bytes"].values())
    assert found["interactions_per_second"] == pytest.approx(3000 / found["seconds"]["both"], rel=0.01)
    assert found["input_bytes"] == sum(file.stat().st_size for file in (tmp_path / "own").iterdir())
    assert found["device"]["cores"] >= 1 and found["device"]["cpu"]
    kept = pl.read_parquet(tmp_path / "data" / "filtered" / "sequences.parquet")
    assert kept.height == found["kept"]["interactions"]


def test_both_formats_hold_the_same_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of 100 rows, in the order of time; the same seed gives the same bytes."""
    monkeypatch.setattr(generated_log, "PIECE", 100)
    size = Size(interactions=250, users=20, items=10, seed=3)
    log, items = write_csv(tmp_path, size)
    reviews, meta = write_amazon(tmp_path, size, "Few")
    table = pl.read_csv(log)
    expected = [json.loads(line) for line in gzip.decompress(reviews.read_bytes()).splitlines()]
    assert table["user"].to_list() == [review["reviewerID"] for review in expected]
    assert table["item"].to_list() == [review["asin"] for review in expected]
    assert table["timestamp"].to_list() == [review["unixReviewTime"] for review in expected]
    assert all(one <= other for one, other in pairwise(table["timestamp"]))
    assert pl.read_csv(items).height == len(gzip.decompress(meta.read_bytes()).splitlines()) == 10
    before = log.read_bytes()
    write_csv(tmp_path, size)
    assert log.read_bytes() == before


def test_popularity_and_activity_are_uneven() -> None:
    """The most popular hundredth of 1,000 items has far more than its hundredth of 50,000 rows; some users have few."""
    log = pl.concat(pieces(Size(50_000, 2_500, 1_000, 0)))
    by_item = log["item"].value_counts()["count"].sort(descending=True)
    by_user = log["user"].value_counts()["count"]
    assert by_item.head(10).sum() > 5 * 500
    assert by_user.max() > 5 * by_user.mean() and (by_user < 5).mean() > 0.1  # type: ignore[operator]
