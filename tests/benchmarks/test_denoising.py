"""The log that is written for timing verdicts."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from benchmarks.denoising import write_log
from stages import paths


def test_the_log_is_of_strangers_with_real_histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows, asked for seven: three copies, each of people of its own, whose order of items is kept."""
    monkeypatch.chdir(tmp_path)
    paths.VERDICTS.parent.mkdir(parents=True)
    rows = {"user": ["a", "a", "b"], "item": ["x", "y", "x"], "timestamp": [1, 2, 3], "kept": [True] * 3}
    pl.DataFrame(rows).write_parquet(paths.VERDICTS)
    assert write_log(tmp_path / "log.csv", 7) == 9
    found = pl.read_csv(tmp_path / "log.csv")
    assert found["user"].unique(maintain_order=True).to_list()[:3] == ["a, copy 0", "b, copy 0", "a, copy 1"]
    assert found["item"].to_list() == ["x", "y", "x"] * 3 and found.columns == ["user", "item", "timestamp"]
