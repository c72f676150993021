"""All columns of a table as they stand, in as many pieces as it takes, under the numbers of its rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest

from iadsr.errors import UserError
from iadsr.ingest import whole_rows as module
from iadsr.ingest.columns import Wanted
from iadsr.ingest.tables import read_table
from iadsr.ingest.whole_rows import whole_rows

WANTED = Wanted({"user": "user", "item": "item"})


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 2)


def whole(path: Path) -> pa.Table:
    found = whole_rows(str(path), WANTED)
    return pa.concat_tables([found.schema.empty_table(), *found.pieces])


def test_a_csv_is_text_to_the_last_character(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b'\xef\xbb\xbfuser;item;price;;\r\na;1;007.50;"x;\n""y""";\r\nb;2\r\nc;3;1e3; z ;\r\n')
    table = whole(path)
    assert table.column_names == ["user", "item", "price", "", " 2"]
    assert table.to_pylist() == [
        {"user": "a", "item": "1", "price": "007.50", "": 'x;\n"y"', " 2": ""},
        {"user": "b", "item": "2", "price": "", "": "", " 2": ""},
        {"user": "c", "item": "3", "price": "1e3", "": " z ", " 2": ""},
    ]
    assert read_table(str(path), WANTED).frame["item"].to_list() == table["item"].to_pylist()


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, 2, 3], "item": ["a", "b", None], "tags": [["x"], [], None], "at": [1.5, None, 2]})
    frame.write_parquet(tmp_path / "log.parquet")
    assert pl.DataFrame(whole(tmp_path / "log.parquet")).equals(frame)


def test_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["user", "item", "item"])
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    assert whole(tmp_path / "log.parquet").to_pylist() == [{"user": 1, "item": 2, "item 2": 3}]


def test_parts_of_a_folder(tmp_path: Path) -> None:
    """In natural order; a column that a part lacks is empty there, and the names of folders are columns."""
    folder = tmp_path / "log"
    for day, columns in (("2", {"user": ["a"], "item": [1]}), ("10", {"user": ["b"], "item": [2], "note": ["x"]})):
        (folder / f"day={day}").mkdir(parents=True)
        pl.DataFrame(columns).write_parquet(folder / f"day={day}" / "part.parquet")
    rows = [(row["user"], row["item"], row["day"], row["note"]) for row in whole(folder).to_pylist()]
    assert rows == [("a", 1, "2", None), ("b", 2, "10", "x")]
    assert read_table(str(folder), WANTED).frame["user"].to_list() == ["a", "b"]


def test_parts_of_unlike_types(tmp_path: Path) -> None:
    """A column is as wide as it must be, or text; what one part must have another may lack."""
    must = pa.field("must", pa.int64(), nullable=False)
    one = pa.table({"user": ["a"], "wide": pa.array([1], pa.int8()), "note": [2**60]})
    other = pa.table(
        {"user": ["b"], "wide": pa.array([2**40]), "note": [0.5], "seen": pa.array(["x"], pa.string_view())}
    )
    pyarrow.parquet.write_table(one.append_column(must, pa.array([7])), tmp_path / "1.parquet")
    pyarrow.parquet.write_table(other, tmp_path / "2.parquet")
    assert whole(tmp_path).to_pylist() == [
        {"user": "a", "wide": 1, "note": str(2**60), "must": 7, "seen": None},
        {"user": "b", "wide": 2**40, "note": "0.5", "must": None, "seen": "x"},
    ]


def test_rows_of_text_views_can_be_taken(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"user": pa.array(["a", "b"], pa.string_view())}), tmp_path / "log.parquet")
    assert whole(tmp_path / "log.parquet").take([1]).to_pylist() == [{"user": "b"}]


def test_rows_too_long_and_empty(tmp_path: Path) -> None:
    """They keep their numbers, by which `ingest` rejects them; nothing at the end is no row there."""
    path = tmp_path / "log.csv"
    path.write_text("user,item\na,1,2\n,\nb,2\n\n", encoding="utf-8")
    found = whole(path)["user"].to_pylist()
    assert found[:3] == ["a", "", "b"] and not any(found[3:])
    table = read_table(str(path), WANTED)
    assert table.frame.height == 3 and table.faults.found()["row"].to_list() == [0]


def test_parts_that_do_not_go_together(tmp_path: Path) -> None:
    pl.DataFrame({"user": ["a"], "item": [1], "note": ["x"]}).write_parquet(tmp_path / "1.parquet")
    pl.DataFrame({"user": ["a"], "item": [1], "note": [{"a": 1}]}).write_parquet(tmp_path / "2.parquet")
    with pytest.raises(UserError, match=r"2.parquet, column 'note': of the type .*struct"):
        whole(tmp_path)
