"""The log that is generated for timing verdicts."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from benchmarks.denoising import write_log
from stages import paths


def test_the_log_is_of_strangers_with_known_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many rows, in the order of time, with 20 a user; a row may be any of the catalogue."""
    monkeypatch.chdir(tmp_path)
    paths.ITEMS.parent.mkdir(parents=True)
    pl.DataFrame({"raw_item": ["a", "b", "c"]}).write_parquet(paths.ITEMS)
    write_log(tmp_path / "log.csv", 200)
    found = pl.read_csv(tmp_path / "log.csv")
    assert found.columns == ["user", "timestamp", "item"] and len(found) == 200
    assert set(found["item"]) == {"a", "b", "c"} and found["user"].n_unique() == 10
    assert found["timestamp"].is_sorted()
