"""Histories to recommend for: the same ids, columns and times as a log's, and bad rows that refuse nothing."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iadsr.errors import UserError
from iadsr.ingest.histories import OURS, Histories, columns_of, read_histories
from iadsr.ingest.own_files import Columns

T = 1_400_000_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def csv(text: str, columns: Columns = OURS, **settings: Any) -> Histories:
    Path("h.csv").write_text(text.replace("@", str(T)[:-1]))
    return read_histories("h.csv", columns, **settings)


def parquet(columns: Columns = OURS, **table: Any) -> Histories:
    pq.write_table(pa.table(table), "h.parquet")
    return read_histories("h.parquet", columns)


def test_by_time_where_there_is_one() -> None:
    """u's c and a have the same time and stay as in the file; users stand in the order of their first rows."""
    found = csv("item,user,timestamp,title\nb,v,@5,Bee\nc,u,@3,\na,u,@3, A \nd,u,@1,Dee\n")
    assert found == Histories(["v", "u"], [["b"], ["d", "c", "a"]], [["Bee"], ["Dee", None, "A"]], [])


def test_without_times_as_in_the_file() -> None:
    found = csv("user,item\nu,b\nu,a\n")
    said = ["h.csv: no column 'timestamp', so the order of the file counts"]
    assert found == Histories(["u"], [["b", "a"]], [[None, None]], said)


def test_a_source_without_times() -> None:
    found = csv("user,item,timestamp\nu,b,@2\nu,a,@1\n", Columns(user="user", item="item"))
    assert found.items == [["b", "a"]]
    assert found.notes == ["h.csv: no column of times, so the order of the file counts"]


def test_times_that_cannot_be_understood_refuse_nothing() -> None:
    found = csv("user,item,timestamp\nu,b,2\nu,a,1\n")
    assert found.items == [["b", "a"]]
    assert "column 'timestamp'" in found.notes[0] and found.notes[0].endswith("; so the order of the file counts")


def test_mapped_columns_and_settings() -> None:
    """Semicolons are said, a pattern of dates is followed."""
    names = Columns(user="who", item="sku", timestamp="when", title="name")
    found = csv("sku;when;who;name\nb;02.05.2014;7.0;B\na;01.05.2014;7.0;A\n", names, format="%d.%m.%Y")
    assert found == Histories(["7"], [["a", "b"]], [["A", "B"]], ["h.csv: fields are separated by ';'"])


def test_bad_rows_are_left_out_and_counted() -> None:
    """Row 3 has no item, row 4 no user, row 5 no time, row 6 a field too many; w's only row is bad."""
    found = csv("user,item,timestamp\nu,a,@1\nw,,@2\n,b,@3\nu,c,soon\nu,d,@1,x\nu,e,@2\n")
    said = "h.csv: 4 of 6 rows left out; first: row 3: item is missing, found 'w,,1400000002'"
    assert found == Histories(["u", "w"], [["a", "e"], []], [[None, None], []], [said])


def test_all_rows_bad() -> None:
    found = csv("user,item\nu,\n,b\n")
    assert (found.users, found.items) == (["u"], [[]])
    assert found.notes[-1].startswith("h.csv: 2 of 2 rows left out")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,timestamp\n", "h.csv: no row in it"),
        ("user,thing\nu,a\n", "h.csv: no column 'item'"),
        ("item\na\n", "h.csv: no column 'user'"),
        ("", "h.csv: the file is empty"),
        ("user,item\n9007199254740992.0,a\n", "1 ids are floats of 2"),
    ],
)
def test_files_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        csv(text)


def test_a_missing_file() -> None:
    with pytest.raises(UserError, match=r"no.csv: no such file"):
        read_histories("no.csv", OURS)


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view])
def test_a_row_may_be_a_whole_history(kind: Any) -> None:
    """Whole floats are integers; v has nothing, w an item without id."""
    items = pa.array([[3.0, 4.0], [], None, [5.0, None]], kind(pa.float64()))
    titles = pa.array([["Three", None], [], None, ["Five", "?"]], kind(pa.string()))
    found = parquet(user=["u", "v", "x", "w"], item=items, title=titles)
    assert found.users == ["u", "v", "x", "w"]
    assert found.items == [["3", "4"], [], [], ["5"]]
    assert found.titles == [["Three", None], [], [], ["Five"]]
    assert found.notes[-1] == ("h.parquet: 3 of 6 rows left out; first: row 2: item is missing, found 'v,[],[]'")


def test_lists_with_times_are_sorted_by_them() -> None:
    """u's second history comes first by its times."""
    times = [[T + 9, T + 8], [T + 2, T + 1]]
    found = parquet(user=["u", "u"], item=[["d", "c"], ["b", "a"]], timestamp=times)
    assert found.items == [["a", "b", "c", "d"]]


def test_one_time_for_a_whole_history() -> None:
    found = parquet(user=["u", "v", "u"], item=[["c", "d"], ["x"], ["a", "b"]], timestamp=[T + 9, T, T + 2])
    assert (found.users, found.items) == (["u", "v"], [["a", "b", "c", "d"], ["x"]])


def test_lists_of_different_lengths() -> None:
    """Titles that do not go with the items are unknown; items whose times do not are bad rows."""
    found = parquet(user=["u", "v"], item=[["a", "b"], ["c"]], title=[["A"], ["C"]], timestamp=[[T, T], [T, T]])
    assert (found.items, found.titles) == ([["a", "b"], []], [[None, None], []])
    assert "1 of 3 rows left out; first: row 2: timestamp is missing" in found.notes[0]


def test_a_list_where_none_may_be() -> None:
    tables: list[dict[str, Any]] = [{"user": [["u"]], "item": ["a"]}, {"user": ["u"], "item": [[["a"]]]}]
    for table in tables:
        with pytest.raises(UserError, match=r"h.parquet, column '(user|item)'.*expected text or integers"):
            parquet(**table)


def test_settings_of_the_chosen_source() -> None:
    """Of a user's own files theirs, of others our names."""
    names = {"user": "who", "item": "sku"}
    files = {"kind": "files", "interactions": "i.csv", "items": "t.csv", "columns": names, "separator": ";"}
    params = {"dataset": "mine", "datasets": {"mine": {"source": files}, "ml": {"source": {"kind": "movielens-100k"}}}}
    found = columns_of(params)
    assert (found.columns, found.separator, found.unit) == (Columns(user="who", item="sku"), ";", "auto")
    assert columns_of({**params, "dataset": "ml"}).columns == OURS
