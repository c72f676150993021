"""verdicts.parquet by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import torch

from iadsr.models.recommender import Verdicts
from iadsr.train.verdicts_file import RawIds, write_verdicts


def test_inserted_items_by_hand(tmp_path: Path) -> None:
    """Before the second row items 2 and 1, before the third item 3, under the source's ids; nothing before the others.

    A model that inserts nothing has no such column.
    """
    rows = {"user": [0] * 4, "item": [1, 2, 3, 1], "position": [0, 1, 2, 3], "timestamp": [5, 6, 7, 8]}
    splits, sequences = ["train", "train", "validation", "test"], tmp_path / "sequences.parquet"
    own = {"nanosecond": [0, 5, 0, 0], "rating": [1.5, None, 3.0, 4.0]}
    pl.DataFrame({**rows, "split": splits, **own}).write_parquet(sequences)
    ones = torch.ones(4)
    verdicts = Verdicts(ones, ones, ones, ones, ones, ones.bool())
    inserted = torch.tensor([[0, 0], [2, 1], [3, 0], [0, 0]])
    ids = RawIds(pa.chunked_array([["u"]]), pa.chunked_array([["a"], ["b", "c"]]))
    write_verdicts(tmp_path / "some.parquet", sequences, ids, verdicts, inserted, 0)
    found = pl.read_parquet(tmp_path / "some.parquet")
    assert found["item"].to_list() == ["a", "b", "c", "a"]
    assert found.select("timestamp", "nanosecond", "rating").row(1) == (6, 5, None)
    assert found["inserted_before"].to_list() == [None, ["b", "a"], ["c"], None]
    write_verdicts(tmp_path / "nothing.parquet", sequences, ids, verdicts, inserted * 0, 0)
    assert pl.read_parquet(tmp_path / "nothing.parquet")["inserted_before"].to_list() == [None] * 4
    write_verdicts(tmp_path / "plain.parquet", sequences, ids, verdicts, None, 0)
    assert pl.read_parquet(tmp_path / "plain.parquet").columns == found.columns[:-1]
