"""A user's own files: mapping of columns, forms of time, and every way to be told what is wrong."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iadsr.errors import UserError
from iadsr.ingest import own_files
from iadsr.ingest.own_files import Columns, Files, load, times
from iadsr.ingest.raw import Raw
from iadsr.ingest.rejects import Rejects

ITEMS = "sku,name,path\nb, Second  one ,\na,,Home > Tools\nunused,X,Y\n"


class Folder:
    """Writes interactions (and items) as CSV, and loads them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(
        self, interactions: str | bytes, items: str = ITEMS, limit: int = 0, **columns: str
    ) -> tuple[Raw, Rejects]:
        content = interactions if isinstance(interactions, bytes) else interactions.encode()
        (self.path / "i.csv").write_bytes(content)
        (self.path / "items.csv").write_text(items)
        rejects = Rejects(limit)
        return load(self.source(**columns), rejects), rejects

    def source(self, interactions: str = "i.csv", items: str = "items.csv", **columns: str) -> Files:
        names = {"user": "who", "item": "sku", "timestamp": "when", "title": "name", **columns}
        paths = {"interactions": str(self.path / interactions), "items": str(self.path / items)}
        return Files(kind="files", columns=Columns(**names), **paths)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_mapped_columns_in_the_order_of_the_file(folder: Folder) -> None:
    """Columns stand in another order, with names of their own; `007` stays text; item a has only categories."""
    text = "sku,when,extra,who,stars,odd\nb,20,x,007,4.5,TRUE\na,10,x,7,,0\n"
    raw, _ = folder.load(text, rating="stars", is_noise="odd", categories="path")
    assert raw.interactions.rows() == [("007", "b", 20, 4.5, True), ("7", "a", 10, None, False)]
    assert raw.interactions.columns == ["user", "item", "timestamp", "rating", "is_noise"]
    assert raw.items.rows() == [("b", "Second one", ""), ("a", "Home > Tools", "Home > Tools")]
    assert raw.titles == (1, 1, 0)


def test_the_item_table_may_name_its_id_differently(folder: Folder) -> None:
    raw, _ = folder.load("who,product,when\nu,b,1\n", item="product", item_id="sku")
    assert raw.items.rows() == [("b", "Second one", "")]


def test_byte_order_mark_and_windows_line_ends(folder: Folder) -> None:
    raw, _ = folder.load(b"\xef\xbb\xbfwho,sku,when\r\nu,b,1\r\n\r\n")
    assert raw.interactions.rows() == [("u", "b", 1)]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1400000000", " 1400000001 "], [1400000000, 1400000001]),
        (["1400000000000", "1400000001999"], [1400000000, 1400000001]),
        (["1.5", "-0.5"], [1, -1]),
        (["1970-01-02", "1970-01-01T00:00:10", "1970-01-01 01:00:00+01:00"], [86400, 10, 0]),
        (["1970-01-01T00:00:05Z"], [5]),
        (["10", "20", "1970-01-02", "noon", ""], [10, 20, None, None, None]),
        (["1970-01-02", "1970-01-03", "10", "nan"], [86400, 172800, None, None]),
        (["inf", "nan", "1e300", "1"], [None, None, None, 1]),
        ([date(1970, 1, 2), None], [86400, None]),
        ([datetime(1970, 1, 1, 0, 0, 9, 900_000)], [9]),
        ([1, 2], [1, 2]),
        ([1.4e12, float("nan")], [1400000000, None]),
        ([None, None], [None, None]),
        ([], []),
    ],
)
def test_times(values: list, expected: list) -> None:
    """The rule of the module's docstring: one decision a column, null for what does not fit it; a day is 86,400 s."""
    found = times(pl.Series("timestamp", values), "file")
    assert found.schema == {"timestamp": pl.Int64, "nanosecond": pl.Int32}
    assert found["timestamp"].to_list() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1400000000123", "1400000000124"], [123_000_000, 124_000_000]),
        (["10.5", "-0.25", "x", "11"], [500_000_000, 750_000_000, None, 0]),
        (["1970-01-01T00:00:05.000250Z", "1969-12-31 23:59:59.9"], [250_000, 900_000_000]),
        ([datetime(1969, 12, 31, 23, 59, 59, 250_000)], [250_000_000]),
        ([date(1970, 1, 2)], [0]),
    ],
)
def test_fractions_of_a_second(values: list, expected: list) -> None:
    """What is past the whole second below: -0.25 s is 0.75 s after -1 s."""
    assert times(pl.Series("timestamp", values), "file")["nanosecond"].to_list() == expected


def _two(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
    return numbers.map(lambda number: f"{number:02}")


days = st.tuples(st.sampled_from(["0000", "0001", "1969", "2024", "9999"]), *[_two(st.integers(0, 32))] * 2).map(
    "-".join
)
clocks = st.tuples(*[_two(st.integers(0, 61))] * 3).map(":".join)
dates = st.tuples(days, st.sampled_from("T t"), clocks, st.sampled_from(["", "Z", ".5", "+01:00", "x"])).map("".join)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(days | dates | st.sampled_from(["", " 2024-02-29", "20240229", "2024-02-29T"]), min_size=1, max_size=200)
)
def test_dates_are_what_python_reads_in_them(texts: list[str]) -> None:
    """Most go through a quicker parser, which must accept nothing else: days and hours that exist, and those that do
    not, years 0 and 9999, leap seconds, other separators, zones."""

    def python(text: str) -> datetime | None:
        try:
            moment = datetime.fromisoformat(text.strip())
            return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        except (ValueError, OverflowError):
            return None

    found = own_files._dates(pl.Series("timestamp", texts))
    assert found.to_list() == [python(text) for text in texts]


def test_nanoseconds_of_parquet() -> None:
    values = pl.Series("timestamp", [1_000_000_001, 1_000_000_002], dtype=pl.Datetime("ns"))
    assert times(values, "file").rows() == [(1, 1), (1, 2)]


def test_different_doubles_of_one_second_stay_different() -> None:
    """Doubles near 1.4e9 are 2 ** -22 apart (238 ns): steps of that size must all be told apart, in order."""
    values = pl.Series("timestamp", [1.4e9 + step * 2.0**-22 for step in range(50)])
    found = times(values, "file")["nanosecond"]
    assert found.is_sorted() and found.n_unique() == 50


def test_a_column_of_fractions_only_where_there_are_some(folder: Folder) -> None:
    """Milliseconds since 1970: 2014-05-13 in all rows, the first two with a fraction, then without any."""
    raw, _ = folder.load("who,sku,when\nu,b,1400000000500\nu,a,1400000000250\n")
    assert raw.interactions.rows() == [("u", "b", 1_400_000_000, 500_000_000), ("u", "a", 1_400_000_000, 250_000_000)]
    raw, _ = folder.load("who,sku,when\nu,b,1400000000000\n")
    assert raw.interactions.columns == ["user", "item", "timestamp"]


def test_times_of_another_type_are_an_error() -> None:
    with pytest.raises(
        UserError, match=r"file: column for `timestamp`: expected text, numbers or times, found Boolean"
    ):
        times(pl.Series("timestamp", [True]), "file")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["20240131", "20240201", "", "noon"], "20240131 looks like a date.*write dates as 2024-01-31"),
        ([19991231, 19991232, 20000101], "19991231 looks like a date.*write dates as 1999-12-31"),
        ([20240131120000], "20240131120000 looks like a date.*write dates as 2024-01-31"),
    ],
)
def test_numbers_that_read_as_dates_are_refused(values: list, message: str) -> None:
    """As seconds 20,240,131 is a day of August 1970, and 20240131120000 milliseconds would be the year 2611."""
    with pytest.raises(UserError, match=f"file: column for `timestamp`: {message}"):
        times(pl.Series("timestamp", values), "file")


def test_numbers_near_dates_are_times() -> None:
    """Of seconds one apart about one in 27 reads as a date, here 31 (January 2000) of 1,000."""
    values = list(range(20_000_101, 20_001_101))
    assert times(pl.Series("timestamp", values), "file")["timestamp"].to_list() == values


BAD = [
    (",b,1", "user is missing"),
    ("u, ,1", "item is missing"),
    ("u,b,", "timestamp is missing"),
    ("u,b", "timestamp is missing"),
    ("u,b,noon", "timestamp is no number"),
    ("u,b,2014-01-01", "timestamp is no number"),
    (",,", "user is missing"),
]


@pytest.mark.parametrize(("line", "reason"), BAD)
def test_a_bad_row_is_named_by_its_line(folder: Folder, line: str, reason: str) -> None:
    """The bad record begins on line 4: the quoted item before it spans lines 2 and 3."""
    text = f'who,sku,when\nu,"two\nlines",1\n{line}\nu,b,2\nu,b,3\n'
    items = 'sku,name\nb,B\n"two\nlines",T\n'
    with pytest.raises(UserError, match=rf"i.csv, row 4: {reason}.*only bad row, but ingest.max_rejects is 0"):
        folder.load(text, items)
    raw, rejects = folder.load(text, items, limit=1)
    assert raw.interactions["timestamp"].to_list() == [1, 2, 3]
    assert rejects.rows[0].row == 4


def test_rows_of_too_many_fields_are_bad_rows(folder: Folder) -> None:
    """Lines 2 and 5 have one field too many, line 4 has no user: three bad rows, the good one on line 3 stays."""
    text = "who,sku,when\nu,b,1,x\nu,b,2\n,b,3\nv,b,4,\n"
    with pytest.raises(UserError, match=r"i.csv, row 2: 4 fields, where the header has 3.*first of 3 bad rows"):
        folder.load(text, limit=2)
    raw, rejects = folder.load(text, limit=3)
    assert raw.interactions.rows() == [("u", "b", 2)]
    assert [(reject.row, reject.text) for reject in rejects.rows] == [(2, "u,b,1"), (4, ",b,3"), (5, "v,b,4")]


def test_items_of_too_many_fields_are_bad_rows(folder: Folder) -> None:
    """The comma of line 2 should have been quoted; b has a good row, line 3, too."""
    raw, rejects = folder.load("who,sku,when\nu,b,1\n", "sku,name\nb,Cup, blue\nb,Cup\n", limit=1)
    assert raw.items["title"].to_list() == ["Cup"]
    assert [(reject.row, reject.reason) for reject in rejects.rows] == [(2, "3 fields, where the header has 2")]


def test_ids_are_held_as_categories_without_outer_white_space(folder: Folder) -> None:
    """A number a row, however long the id; the rejected row stands as it was found."""
    raw, rejects = folder.load("who,sku,when\n u ,b,1\nu, a,2\n  , a,3\n", limit=1)
    assert raw.interactions.schema["user"] == raw.interactions.schema["item"] == pl.Categorical
    assert raw.interactions.rows() == [("u", "b", 1), ("u", "a", 2)]
    assert rejects.rows[0].text == "  , a,3"


def test_titles_are_taken_as_they_stand(folder: Folder) -> None:
    raw, _ = folder.load("who,sku,when\nu,b,1\n", 'sku,name\nb,"Salt &amp; Pepper 3"" pipe; x"\n')
    assert raw.items["title"].to_list() == ['Salt &amp; Pepper 3" pipe; x']


def test_truth_that_is_neither_true_nor_false(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"i.csv, row 3: is_noise is neither true nor false, found 'u,a,2,maybe'"):
        folder.load("who,sku,when,odd\nu,b,1,0\nu,a,2,maybe\n", is_noise="odd")


def test_an_item_without_id_is_a_bad_row(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"items.csv, row 3: item is missing, found ',Nameless'"):
        folder.load("who,sku,when\nu,b,1\n", "sku,name\nb,B\n,Nameless\n")


def test_of_several_rows_for_an_item_the_first_counts(folder: Folder) -> None:
    raw, _ = folder.load("who,sku,when\nu,b,1\n", "sku,name\nb,First\nb,Second\nb,Third\n")
    assert raw.items["title"].to_list() == ["First"]
    assert raw.repeated_items == 2


def test_items_without_a_row_are_bad_rows(folder: Folder) -> None:
    """Of b, x, y the table has b alone: two bad rows, whose interactions stay."""
    interactions = "who,sku,when\nu,b,1\nu,x,2\nu,y,2\nu,x,3\n"
    with pytest.raises(UserError, match=r"items.csv: no row for item 'x', .*i.csv \(2 of its 3 items have none\)"):
        folder.load(interactions, limit=1)
    raw, rejects = folder.load(interactions, limit=2)
    assert (raw.interactions.height, raw.titles) == (4, (1, 0, 2))
    assert [(reject.row, reject.text) for reject in rejects.rows] == [(None, "x"), (None, "y")]


def test_an_item_table_of_other_items_is_the_wrong_file(folder: Folder) -> None:
    with pytest.raises(UserError, match=r"items.csv: no row for item 'x', .*\(1 of its 1 items have none\)"):
        folder.load("who,sku,when\nu,x,1\n", limit=100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "i.csv: cannot be read: empty CSV"),
        ("who,sku,when\n", "i.csv: no interactions"),
        ("who,sku\nu,b\n", "i.csv: no column 'when' .`columns.timestamp`.; it has: who, sku"),
        ("who,sku,when\nu,b,1\nu,b,1,2\n", "i.csv, row 3: 4 fields, where the header has 3, found 'u,b,1'; it is the"),
        (
            "who;sku;when\nu;b;1,5\n",
            "i.csv, row 1: the separator looks like ';', expected commas: found 'who;sku;when'",
        ),
        ("who\tsku\twhen\nu\tb\t1\n", r"i.csv, row 1: the separator looks like '\\t', expected commas"),
        ('who,sku,when\nu,b,1\nu,3" pipe,1\nu,b,2\n', "i.csv, row 3: a quotation mark inside a field .*write the one"),
        ('who,sku,when\n"u, 1","""b""",1\nu,"3" pipe",1\n', "i.csv, row 3: a quotation mark inside a field"),
        ('who,sku,when\nu,"b\n\n""c",1\n"u",3" pipe,1\n', "i.csv, row 5: a quotation mark inside a field"),
        ('who,sku,when\nu,"b,1\nu,b,1\nu,"c",2\n', "i.csv, row 2: a quotation mark inside a field"),
        (b"who,sku,when\nu,b,1\nu,\xff,1\n", "i.csv, row 3: not valid UTF-8"),
        ('who,sku,when\nu,b,1\nu,"b,1\nu,b,1\n', "i.csv, after row 2: .*quotation mark"),
    ],
)
def test_an_unreadable_csv(folder: Folder, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        folder.load(content)


@pytest.mark.parametrize(("name", "message"), [("none.csv", "no such file"), ("i.xlsx", "ends in .csv or .parquet")])
def test_an_unusable_path(folder: Folder, name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"{name}: .*{message}"):
        load(folder.source(interactions=name), Rejects())


def test_parquet(folder: Folder) -> None:
    """Integers with a gap, as pandas writes them (1.0, missing); row numbers count from 1; lists are category paths."""
    columns = {"who": [1.0, None, 2.0], "sku": [10, 10, 11], "when": [1.4e12, 1.4e12, 1.5e12]}
    pl.DataFrame(columns).write_parquet(folder.path / "i.parquet")
    items = {"sku": [11, 10], "name": [None, "Ten"], "path": [["A", "B"], ["C"]]}
    pl.DataFrame(items).write_parquet(folder.path / "items.parquet")
    source = folder.source("i.parquet", "items.parquet", categories="path")
    with pytest.raises(UserError, match=r"i.parquet, row 2: user is missing"):
        load(source, Rejects())
    raw = load(source, Rejects(1))
    assert raw.interactions.rows() == [("1", "10", 1400000000), ("2", "11", 1500000000)]
    assert raw.items.rows() == [("10", "Ten", "C"), ("11", "A > B", "A > B")]


def test_parquet_without_rows(folder: Folder) -> None:
    pl.DataFrame({"who": [], "sku": [], "when": []}).write_parquet(folder.path / "i.parquet")
    (folder.path / "items.csv").write_text(ITEMS)
    with pytest.raises(UserError, match=r"i.parquet: no interactions in it"):
        load(folder.source("i.parquet"), Rejects())


def test_parquet_is_read_a_batch_at_a_time(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows in batches of two: ids as texts and as a dictionary, and one column under two of our names."""
    monkeypatch.setattr(own_files, "BATCH", 2)
    table = pl.DataFrame({"sku": ["b", "a", "a", "b", "a"], "who": list("vuwuv"), "when": range(5), "more": [[1]] * 5})
    table.with_columns(pl.col("who").cast(pl.Categorical)).write_parquet(folder.path / "i.parquet")
    (folder.path / "items.csv").write_text(ITEMS)
    raw = load(folder.source("i.parquet", rating="when"), Rejects())
    assert raw.interactions.schema["user"] == raw.interactions.schema["item"] == pl.Categorical
    assert raw.interactions.select("user", "item", "timestamp", "rating").rows() == [
        ("v", "b", 0, 0.0),
        ("u", "a", 1, 1.0),
        ("w", "a", 2, 2.0),
        ("u", "b", 3, 3.0),
        ("v", "a", 4, 4.0),
    ]


@pytest.mark.parametrize("damage", [slice(0), slice(200), slice(None, -9)])
def test_damaged_parquet(folder: Folder, damage: slice) -> None:
    path = folder.path / "i.parquet"
    pl.DataFrame({"who": ["u"] * 99, "sku": ["b"] * 99, "when": range(99)}).write_parquet(path)
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(UserError, match=r"i.parquet: not a whole Parquet file"):
        load(folder.source("i.parquet"), Rejects())


def test_ids_of_another_type_are_an_error(folder: Folder) -> None:
    pl.DataFrame({"who": [1.5], "sku": ["b"], "when": [1]}).write_parquet(folder.path / "i.parquet")
    with pytest.raises(UserError, match=r"column for `user`: expected text or integers as ids, found Float64"):
        load(folder.source("i.parquet"), Rejects())
