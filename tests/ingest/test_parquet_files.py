"""Parquet of every type and damage, and folders of parts."""

import datetime as dt
import decimal
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iadsr.errors import UserError
from iadsr.ingest import parquet_files
from iadsr.ingest.own_files import Columns, Files, load
from iadsr.ingest.raw import Raw
from iadsr.ingest.rejects import Rejects

T = 1_400_000_000
ITEMS = "sku,name\n10,Ten\n11,Eleven\n"
Make = Callable[..., Raw]


def write(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def log(tmp_path: Path) -> Make:
    """Writes a log of the columns who, sku, when, two good rows where nothing else is said, and loads it."""

    def make(name: str = "log.parquet", limit: int = 0, rating: str | None = None, **columns: Any) -> Raw:
        if columns:
            given = {"who": ["u", "v"], "sku": ["10", "11"], "when": [T, T + 1], **columns}
            write(tmp_path / name, **{key: value for key, value in given.items() if value is not None})
        (tmp_path / "items.csv").write_text(ITEMS)
        names = Columns(user="who", item="sku", timestamp="when", title="name", rating=rating)
        source = Files(
            kind="files", interactions=str(tmp_path / name), items=str(tmp_path / "items.csv"), columns=names
        )
        return load(source, Rejects(limit))

    return make


NOT_WHOLE = "not a whole Parquet file; write or copy it again"
UTF8 = [b"10", b"11"]
WHOLE = [decimal.Decimal(10), decimal.Decimal(11)]


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([10, 11], pa.int8()),
        pa.array([10, 11], pa.uint64()),
        pa.array([10.0, 11.0], pa.float64()),
        pa.array([10.0, 11.0], pa.float32()),
        pa.array(np.array([10, 11], np.float16)),
        pa.array(WHOLE, pa.decimal128(20, 0)),
        pa.array(WHOLE, pa.decimal256(60, 0)),
        pa.array(UTF8, pa.binary()),
        pa.array(UTF8, pa.binary(2)),
        pa.array(UTF8, pa.large_binary()),
        pa.array(["10", "11"], pa.large_string()),
        pa.array(["10", "11"], pa.string_view()),
        pa.array(["10 ", " 11"], pa.string()),
        pa.array(["10.0", "11.0"], pa.string()),
        pa.array(["10", "11"]).dictionary_encode(),
        pa.array([10, 11]).dictionary_encode(),
    ],
    ids=lambda ids: str(ids.type),
)
def test_ids_of_every_kind_are_the_same(log: Make, ids: pa.Array) -> None:
    raw = log(sku=ids, who=ids)
    assert raw.interactions.rows() == [("10", "10", T), ("11", "11", T + 1)]
    assert raw.items["title"].to_list() == ["Ten", "Eleven"]


@pytest.mark.parametrize(
    ("ids", "found"),
    [
        ([1.5, 2.0], "found 1.5"),
        ([True, False], "the type bool"),
        ([dt.date(2015, 4, 27)] * 2, "the type date32"),
        ([dt.datetime(2015, 4, 27)] * 2, "the type timestamp"),
        ([["a"], ["b"]], "the type list<"),
        ([{"id": 1}, {"id": 2}], "the type struct<"),
        (pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())), "the type map<"),
        ([decimal.Decimal("1.5")] * 2, "the type decimal128"),
        ([b"\xff\xfe", b"a"], "bytes that are no UTF-8"),
        (pa.array([1, 2], pa.duration("s")), "the type duration"),
        (pa.array([1, 2], pa.time32("s")), "the type time32"),
        (pa.array([b"0123456789abcdef"] * 2, pa.uuid()), "the type extension<arrow.uuid>"),
    ],
)
def test_ids_of_another_type(log: Make, ids: Any, found: str) -> None:
    for ours, theirs in (("user", "who"), ("item", "sku")):
        with pytest.raises(UserError, match=rf"log.parquet, column '{theirs}' .`columns.{ours}`.: .*{found}"):
            log(**{theirs: ids})


@pytest.mark.parametrize(("kind", "bits"), [(np.float64, 53), (np.float32, 24), (np.float16, 11)])
@pytest.mark.parametrize(("ours", "theirs"), [("user", "who"), ("item", "sku")])
def test_floats_that_merge_ids_are_refused(log: Make, kind: type, bits: int, ours: str, theirs: str) -> None:
    """2 ** bits + 1 is no float of the kind; one below that is the last that is told apart from its neighbours."""
    large: np.ndarray = np.array([2**bits - 1, 2**bits], kind)
    said = rf"column '{theirs}' .`columns.{ours}`.: 1 ids are floats of 2 \*\* {bits} or more, such as {2**bits}, where"
    with pytest.raises(UserError, match=said):
        log(**{theirs: large})
    if theirs == "who":
        assert log(who=large[:1].repeat(2)).interactions["user"].to_list() == [str(2**bits - 1)] * 2


def test_large_integers_are_ids(log: Make) -> None:
    """2 ** 60 and its neighbour, which as floats would be one user."""
    assert log(who=[2**60, 2**60 + 1]).interactions["user"].to_list() == [str(2**60), str(2**60 + 1)]


def test_gaps_of_floats_are_missing_ids(log: Make) -> None:
    with pytest.raises(UserError, match=r"log.parquet, row 2: user is missing, found 'nan,11,1400000001'"):
        log(who=[1.0, float("nan")])
    with pytest.raises(UserError, match="1 ids are floats of 2"):
        log(who=[1.0, float("inf")])


@pytest.mark.parametrize(
    "when",
    [
        pa.array([T, T + 1], pa.uint32()),
        pa.array([float(T), T + 1.0]),
        pa.array([str(T), str(T + 1)]),
        pa.array([b"1400000000", b"1400000001"]),
        pa.array([decimal.Decimal(T), decimal.Decimal(T + 1)]),
        pa.array([decimal.Decimal(f"{T}.00"), decimal.Decimal(f"{T + 1}.00")]),
        pa.array([T, T + 1], pa.timestamp("s")),
        pa.array([T * 1000, T * 1000 + 1000], pa.timestamp("ms", "Europe/Berlin")),
        pa.array([T * 10**6, T * 10**6 + 10**6], pa.timestamp("us", "UTC")),
        pa.array([T * 10**9, T * 10**9 + 10**9], pa.timestamp("ns", "+05:30")),
        pa.array([T * 10**6, T * 10**6 + 10**6], pa.timestamp("us", "Mars/Phobos")),
        pa.array(["2014-05-13T16:53:20", "2014-05-13T16:53:21Z"]).dictionary_encode(),
    ],
    ids=lambda when: str(when.type),
)
def test_times_of_every_kind_are_the_same(log: Make, when: pa.Array) -> None:
    assert log(when=when).interactions["timestamp"].to_list() == [T, T + 1]


@pytest.mark.parametrize("kind", [pa.date32(), pa.date64()])
def test_dates(log: Make, kind: pa.DataType) -> None:
    """2014-05-14 is day 16,204 since 1970."""
    raw = log(when=pa.array([dt.date(2014, 5, 14)] * 2, kind))
    assert raw.interactions["timestamp"].to_list() == [16_204 * 86_400] * 2


def test_nanoseconds_are_kept(log: Make) -> None:
    raw = log(when=pa.array([T * 10**9 + 1, T * 10**9 + 2], pa.timestamp("ns")))
    assert raw.interactions["nanosecond"].to_list() == [1, 2]


@pytest.mark.parametrize("kind", [pa.decimal128(38, 9), pa.decimal256(60, 9)])
def test_decimals_are_exact(log: Make, kind: pa.DataType) -> None:
    when = pa.array([decimal.Decimal(f"{T}.123456789"), decimal.Decimal(f"{T}.123456790")], kind)
    assert log(when=when).interactions["nanosecond"].to_list() == [123_456_789, 123_456_790]
    with pytest.raises(UserError, match="row 2: timestamp is 0, which stands for a missing one"):
        log(when=pa.array([decimal.Decimal(f"{T}.123456789"), decimal.Decimal(0)], kind))


@pytest.mark.parametrize(("kind", "grid"), [(pa.float32(), "every 128 seconds"), (pa.float16(), "no times of today")])
def test_floats_that_hold_no_seconds(log: Make, kind: pa.DataType, grid: str) -> None:
    when = pa.array(np.array([T, T + 1], kind.to_pandas_dtype()) if kind == pa.float32() else np.zeros(2, np.float16))
    with pytest.raises(UserError, match=rf"column 'when' .*: .*found float{kind.bit_width}, which holds .*{grid}"):
        log(when=when)


@pytest.mark.parametrize("when", [pa.array([T, 2**64 - 1], pa.uint64()), [decimal.Decimal(T), decimal.Decimal(10**30)]])
def test_the_largest_integers_are_no_missing_times(log: Make, when: Any) -> None:
    with pytest.raises(UserError, match=r"row 2: timestamp is in the future"):
        log(when=when)


@pytest.mark.parametrize("when", [dt.datetime(1, 1, 1), dt.datetime(1970, 1, 1), dt.datetime(9999, 12, 31)])
def test_moments_outside_the_range_are_bad_rows(log: Make, when: dt.datetime) -> None:
    good = dt.datetime(2014, 5, 13)
    with pytest.raises(UserError, match=r"log.parquet, row 2: timestamp is (before 1990|in the future)"):
        log(when=pa.array([good, when], pa.timestamp("us")))
    with pytest.raises(UserError, match="no time lies between 1990 and today"):
        log(when=pa.array([when, when], pa.timestamp("us")))


@pytest.mark.parametrize("when", [[True, False], [dt.time(1)] * 2, [[T], [T]], [{"t": 1}] * 2])
def test_times_of_another_type(log: Make, when: Any) -> None:
    with pytest.raises(UserError, match=r"column 'when' .*: expected text, numbers or times, found the type"):
        log(when=when)


@pytest.mark.parametrize("stars", [[4, 5], [4.0, 5.0], ["4", "5"], [decimal.Decimal("4.0")] * 2, [None, None]])
def test_ratings(log: Make, stars: Any) -> None:
    raw = log(rating="stars", stars=stars)
    assert raw.interactions.schema.get("rating") == (None if stars == [None, None] else pl.Float32)


def test_a_row_that_is_bad_stands_with_all_its_columns(log: Make) -> None:
    """In the order of the file, those that are not mapped too."""
    more = {"z": [[1, 2], None], "a": [{"x": 1}, {"x": None}]}
    with pytest.raises(UserError) as error:
        log(who=[None, "u"], **more)
    assert """row 1: user is missing, found ",10,1400000000,[1, 2],{'x': 1}"; it is""" in str(error.value)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([["A", "B"], ["C"]], ["A > B", "C"]),
        ([[["A", "B"], ["A", "C"]], [None, []]], ["A > B > C", ""]),
        ([[[["A"]], [["B"]]], None], ["A > B", ""]),
        (pa.array([["A", "B"], ["C", "C"]], pa.list_(pa.string(), 2)), ["A > B", "C"]),
        (pa.array([["A"], ["B"]], pa.large_list(pa.string())), ["A", "B"]),
        (pa.array(["A", "B"]).dictionary_encode(), ["A", "B"]),
        (pa.array([["A", " "], ["B"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), ["A", "B"]),
        ([[1, 2], [3]], ["1 > 2", "3"]),
        ([7, None], ["7", ""]),
        ([b"A", b"B"], ["A", "B"]),
    ],
)
def test_categories_however_nested(tmp_path: Path, path: Any, expected: list[str]) -> None:
    items = pa.table({"sku": ["10", "11"], "name": ["Ten", "Eleven"], "path": path})
    assert _categories(tmp_path, items) == expected


@pytest.mark.parametrize(
    "path",
    [
        pa.array([[("a", "b")], []], pa.map_(pa.string(), pa.string())),
        pa.array([{"a": 1}, None]),
        pa.array([[{"a": 1}], []]),
        pa.array([[[{"a": 1}]], []]),
    ],
)
def test_categories_that_are_no_lists_of_text(tmp_path: Path, path: pa.Array) -> None:
    said = r"items.parquet, column 'path' .`columns.categories`.: expected text or lists of text, found the type "
    with pytest.raises(UserError, match=said):
        _categories(tmp_path, pa.table({"sku": ["10", "11"], "name": ["Ten", "Eleven"], "path": path}))


def _categories(folder: Path, items: pa.Table) -> list[str]:
    pq.write_table(items, folder / "items.parquet")
    (folder / "log.csv").write_text(f"who,sku,when\nu,10,{T}\nu,11,{T}\n")
    names = Columns(user="who", item="sku", timestamp="when", title="name", categories="path")
    paths: dict[str, Any] = {"interactions": str(folder / "log.csv"), "items": str(folder / "items.parquet")}
    return load(Files(kind="files", columns=names, **paths), Rejects()).items["categories"].to_list()


def test_no_rows(log: Make) -> None:
    with pytest.raises(UserError, match=r"log.parquet: no interactions in it"):
        log(who=[], sku=[], when=[])


def test_a_batch_at_a_time(log: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five rows in batches of two, one column under two of our names."""
    monkeypatch.setattr(parquet_files, "BATCH", 2)
    who, sku, when = pa.array(list("vuwuv")).dictionary_encode(), ["11", "10", "10", "11", "10"], range(T, T + 5)
    raw = log(who=who, sku=sku, when=list(when), rating="when")
    assert raw.interactions.schema["user"] == raw.interactions.schema["item"] == pl.Categorical
    assert raw.interactions["user"].to_list() == list("vuwuv")
    assert raw.interactions["timestamp"].to_list() == list(when)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(slice(0), "the file is empty"), (slice(200), NOT_WHOLE), (slice(None, -9), NOT_WHOLE), (slice(4), NOT_WHOLE)],
)
def test_damaged_files(log: Make, tmp_path: Path, damage: slice, message: str) -> None:
    path = tmp_path / "log.parquet"
    write(path, who=["u"] * 99, sku=["10"] * 99, when=range(T, T + 99))
    path.write_bytes(path.read_bytes()[damage])
    with pytest.raises(UserError, match=f"log.parquet: {message}"):
        log()


def test_damage_anywhere_is_one_sentence_or_none(log: Make, tmp_path: Path) -> None:
    """A byte changed at each of 80 places: nothing but a UserError may come of it."""
    path = tmp_path / "log.parquet"
    write(path, who=["u", "v"] * 20, sku=["10"] * 40, when=range(T, T + 40))
    whole = path.read_bytes()
    for place in range(4, len(whole), len(whole) // 80):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xA5]) + whole[place + 1 :])
        try:
            log()
        except UserError as error:
            assert str(error).isprintable() or "\\" in str(error)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"who,sku,when\nu,10,1\n", "the file is text, expected Parquet; if it is CSV, let its name end in .csv"),
        (b"\x1f\x8b\x08\0" * 9, "the file is compressed by gzip, expected Parquet; unpack it first"),
        (b"PARE" + bytes(99), "an encrypted Parquet file"),
        (b"PK\3\4" + b"xl/workbook.xml" + bytes(99), "a spreadsheet .xlsx or ods., expected Parquet; save"),
    ],
)
def test_other_files_by_the_name_of_parquet(log: Make, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "log.parquet").write_bytes(content)
    with pytest.raises(UserError, match=f"log.parquet: .*{message}"):
        log()


# --- folders of parts ---


def good(path: Path, user: str, **columns: Any) -> None:
    write(path, **{"who": [user], "sku": ["10"], "when": [T], **columns})


def test_parts_are_read_by_path_and_other_files_are_not(log: Make, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    good(folder / "part-1.parquet", "v")
    good(folder / "part-0.snappy.parquet", "u")
    good(folder / "part-2", "w")
    for hidden in (
        "_SUCCESS",
        "_metadata",
        ".part-0.crc",
        "part-1.parquet.crc",
        "_delayed/a.parquet",
        ".x/b.parquet",
    ):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_text("x")
    (folder / "notes.md").write_text("x")
    raw = log("log")
    assert raw.interactions["user"].to_list() == ["u", "v", "w"]
    assert raw.notes == (f"{folder}: 1 of its files are no Parquet, and left out",)


@pytest.mark.parametrize("word", ["\\N", "NULL", "nan", "None", "<NA>", " "])
def test_words_for_nothing_are_missing_ids(log: Make, word: str) -> None:
    assert log(limit=1, who=["17.0", word]).interactions["user"].to_list() == ["17"]


@pytest.mark.parametrize("who", [["1.5", "2.0"], [1.5, 2.0]])
def test_fractions_are_no_ids(log: Make, who: list) -> None:
    with pytest.raises(UserError, match=r"expected text or integers as ids, found 1.5"):
        log(who=who)


@pytest.mark.parametrize("name", ["part.{}.parquet", "part-{:03}.parquet", "day={}/part-0.parquet", "2{}"])
def test_parts_stand_in_natural_order(log: Make, tmp_path: Path, name: str) -> None:
    """As dask, Spark with more than its five digits, and partitions write them; `2` alone precedes `20`."""
    for place in (10, 9, 0, 1, 1000):
        good(tmp_path / "log" / name.format(place), str(place))
    assert log("log").interactions["user"].to_list() == ["0", "1", "9", "10", "1000"]


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("log/_delta_log/0.json", r"log: a Delta table \(it holds _delta_log\).*export it as plain Parquet"),
        ("log/day=1/_delta_log/0.json", "log/day=1: a Delta table"),
        ("_delta_log/0.json", "a Delta table"),
        ("log/metadata/v1.metadata.json", "log: an Iceberg table"),
        ("metadata/v1.metadata.json", "an Iceberg table"),
        ("log/.hoodie/hoodie.properties", "log: a Hudi table"),
        ("log/_spark_metadata/0", "log: what a Spark stream has written"),
        ("log/_temporary/0/a.parquet", "log: a write of Spark or Hadoop that has not ended"),
        ("log/.spark-staging-1/a.parquet", "log: a write of Spark that has not ended"),
        ("log/.hive-staging_hive_1/a.parquet", "log: a write of Hive that has not ended"),
    ],
)
def test_folders_whose_files_do_not_all_count(log: Make, tmp_path: Path, there: str, message: str) -> None:
    good(tmp_path / "log" / "0.parquet", "u")
    (tmp_path / there).parent.mkdir(parents=True)
    (tmp_path / there).write_text("{}")
    with pytest.raises(UserError, match=message):
        log("log")


def test_links_are_followed(log: Make, tmp_path: Path) -> None:
    good(tmp_path / "elsewhere" / "1.parquet", "v")
    good(tmp_path / "one.parquet", "w")
    good(tmp_path / "log" / "0.parquet", "u")
    (tmp_path / "log" / "1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "log" / "2.parquet").symlink_to(tmp_path / "one.parquet")
    assert log("log").interactions["user"].to_list() == ["u", "v", "w"]


@pytest.mark.parametrize("to", ["nothing.parquet", "log", "log/0.parquet", "log/day=1", "."])
def test_links_to_nothing_or_to_what_is_there_anyhow(log: Make, tmp_path: Path, to: str) -> None:
    good(tmp_path / "log" / "0.parquet", "u")
    good(tmp_path / "log" / "day=1" / "0.parquet", "u")
    (tmp_path / "log" / "z.parquet").symlink_to(tmp_path / to)
    with pytest.raises(UserError, match=r"log.*z.parquet.*: a link to .*give a folder without"):
        log("log")


def test_a_pipe_is_no_part(log: Make, tmp_path: Path) -> None:
    good(tmp_path / "log" / "0.parquet", "u")
    os.mkfifo(tmp_path / "log" / "1.parquet")
    with pytest.raises(UserError, match=r"log/1.parquet: no plain file"):
        log("log")


def test_types_of_parts_are_united(log: Make, tmp_path: Path) -> None:
    """Wide and narrow integers, floats of a part with a gap, and a part that has no rating at all."""
    folder = tmp_path / "log.parquet"
    for place, (user, stars) in enumerate(
        [
            (pa.array([1], pa.int32()), pa.array([4], pa.int64())),
            (pa.array([2], pa.int64()), pa.array([None], pa.null())),
            (pa.array([3.0]), pa.array([2.5])),
        ]
    ):
        write(folder / f"{place}.parquet", who=user, sku=["10"], when=[T], stars=stars)
    assert log(rating="stars").interactions.rows() == [
        ("1", "10", T, 4.0),
        ("2", "10", T, None),
        ("3", "10", T, 2.5),
    ]


def test_a_part_is_named(log: Make, tmp_path: Path) -> None:
    """One that lacks a column, one with another type, one that is damaged, one with a bad row."""
    folder = tmp_path / "log"
    good(folder / "0.parquet", "u", when=[T])
    write(folder / "1.parquet", who=["u"], sku=["10"])
    with pytest.raises(UserError, match=r"log/1.parquet: no column 'when'"):
        log("log")
    good(folder / "1.parquet", "u", when=[dt.datetime(2014, 5, 13)])
    with pytest.raises(UserError, match=r"log/1.parquet: times are times, but integers in .*log/0.parquet"):
        log("log")
    good(folder / "1.parquet", "u", who=[True])
    with pytest.raises(UserError, match=r"log/1.parquet, column 'who'"):
        log("log")
    (folder / "1.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=rf"log/1.parquet: {NOT_WHOLE}"):
        log("log")
    write(folder / "1.parquet", who=["u", None], sku=["10", "11"], when=[T, T])
    with pytest.raises(UserError, match=r"log/1.parquet, row 2: user is missing, found ',11,1400000000'"):
        log("log")


def test_names_of_folders_are_columns_that_the_files_lack(log: Make, tmp_path: Path) -> None:
    """`who` is the key of a folder in both; `when` stands in the files, whatever the folder says."""
    for user in ("a%20b", "c"):
        write(tmp_path / "log" / f"who={user}" / "when=5" / "0.parquet", sku=["10"], when=[T])
    assert log("log").interactions.rows() == [("a b", "10", T), ("c", "10", T)]


@pytest.mark.parametrize(("name", "found"), [("", "it is empty"), ("a.csv", "found 'a.csv'")])
def test_folders_without_parquet(log: Make, tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "log").mkdir()
    if name:
        (tmp_path / "log" / name).write_text("who,sku,when\n")
    with pytest.raises(UserError, match=rf"log: a folder without Parquet files \({found}\)"):
        log("log")


def test_a_name_is_no_pattern(log: Make, tmp_path: Path) -> None:
    good(tmp_path / "log1.parquet", "other")
    assert log("log[1].parquet", who=["u", "v"]).interactions["user"].to_list() == ["u", "v"]
