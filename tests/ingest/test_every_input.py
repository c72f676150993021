"""Hundreds of inputs by kind: each ends in the right result, or in one sentence that names the file.

`GOOD` is the log of two users and two items that every readable input holds.
"""

import bz2
import datetime as dt
import gzip
import io
import itertools
import lzma
import random
import re
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from iadsr.errors import UserError
from iadsr.ingest.own_files import Columns, Files, load
from iadsr.ingest.rejects import Rejects

T = 1_400_000_000
GOOD = [("1", "10", T), ("2", "11", T + 60), ("1", "11", T + 120)]
HEADER = ("user", "item", "timestamp", "rating")
ANY = ""  # an error, whichever
LIBRARIES = re.compile(r"polars|pyarrow|arrowinvalid|panick|traceback|0x[0-9a-f]{6}|errno|delete", re.IGNORECASE)


class Input(NamedTuple):
    """A file's name and content, and what must come of it: None for GOOD, else a part of the error."""

    name: str
    content: bytes
    error: str | None = None
    settings: dict[str, Any] = {}  # noqa: RUF012


def table(separator: str = ",", end: str = "\n", header: tuple[str, ...] = HEADER, **change: list[str]) -> str:
    columns = {
        "user": [row[0] for row in GOOD],
        "item": [row[1] for row in GOOD],
        "timestamp": [str(row[2]) for row in GOOD],
        "rating": ["4", "5", "3"],
        **change,
    }
    rows = [header, *zip(*columns.values(), strict=True)]
    return end.join(separator.join(row) for row in rows) + end


def zipped(inner: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(inner, table())
    return file.getvalue()


def encodings() -> Iterator[Input]:
    for name, end, mark in itertools.product(("a.csv", "a.tsv", "a.TXT"), ("\n", "\r\n"), (b"", b"\xef\xbb\xbf")):
        yield Input(name, mark + table(end=end).encode())
    for name, end in itertools.product(("a.csv", "a.txt"), ("\r", "\r\r")):
        yield Input(name, table(end=end).encode(), "lines end in CR alone")
    for name, code in itertools.product(("a.csv", "a.tsv"), ("utf-16", "utf-16-le", "utf-16-be")):
        yield Input(name, table().encode(code), "UTF-16")
    yield Input("a.csv", table().encode("utf-32"), "UTF-32")
    for code, text in (("latin-1", "ö"), ("cp1252", "€"), ("cp932", "日本"), ("koi8-r", "ж")):
        yield Input("a.csv", table(rating=["4", text, "3"]).encode(code), "not valid UTF-8")
        yield Input("a.csv", table(user=["1", text, "1"]).encode(code), "not valid UTF-8")


def separators() -> Iterator[Input]:
    for sep, end, name in itertools.product(",;\t|", ("\n", "\r\n"), ("a.csv", "a.tsv", "a.txt")):
        yield Input(name, table(sep, end).encode())
        yield Input(name, table(sep, end).encode(), None, {"separator": sep})
    for sep in "^ :~#":
        yield Input("a.csv", table(sep).encode(), "no column 'user'")
        yield Input("a.csv", table(sep).encode(), None, {"separator": sep})
    for sep, wrong in itertools.permutations(",;\t|", 2):
        yield Input("a.csv", table(sep).encode(), "no column 'user'", {"separator": wrong})
    yield Input("a.csv", table(", ").encode())


def other_files() -> Iterator[Input]:
    text = table().encode()
    packed = {
        "gzip": gzip.compress(text),
        "bzip2": bz2.compress(text),
        "xz": lzma.compress(text),
        "zstd": b"\x28\xb5\x2f\xfd" + text,
        "zip archive": zipped("a.csv"),
        "spreadsheet": zipped("xl/workbook.xml"),
        "Excel": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        "PDF": b"%PDF-1.7\n" + text,
        "web page": b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
        "SQLite": b"SQLite format 3\0" + bytes(99),
        "numpy": b"\x93NUMPY\1\0" + bytes(99),
        "Feather": b"ARROW1\0\0" + bytes(99),
        "ORC": b"ORC" + bytes(99),
        "Avro": b"Obj\x01" + bytes(99),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(99),
        "tar": b"a.csv".ljust(257, b"\0") + b"ustar" + bytes(250),
        "empty": b"",
        "NUL": b"user,item,timestamp\n1,10\0,5\n" + text,
        "binary": bytes(range(1, 256)) * 9,
        "empty, ": b"\xef\xbb\xbf\n",
    }
    for (what, content), name in itertools.product(packed.items(), ("a.csv", "a.tsv", "a.parquet")):
        yield Input(name, content, what.rstrip(", "))
    yield Input("a.csv", parquet({}), "Parquet file, expected CSV; let its name end in .parquet")
    yield Input("a.parquet", text, "text, expected Parquet; if it is CSV")
    for name in ("a.xlsx", "a", "a.json", "a.csv.gz", "a.parquet.csv.bak"):
        yield Input(name, text, "expected a file that ends in")


def ids() -> Iterator[Input]:
    fine = [["1", "2", "1"], [" 1", "2 ", "1"], ["1.0", "2.0", "1.0"], ['"1"', '"2"', '"1"'], ["1.000", "2.0", "1.0"]]
    for user in fine:
        yield Input("a.csv", table(user=user).encode())
    wrong = {
        "missing": ["", " ", '""', '" "'],
        "spreadsheet has rounded": ["4.00639E+12", "1E+15", '"1,2E+20"', "9.1e+18", "-4.5E+12"],
        "NUL": [],
    }
    for (why, texts), column in itertools.product(wrong.items(), ("user", "item")):
        for text in texts:
            good = {"user": ["1", "2", "1"], "item": ["10", "11", "11"]}[column]
            change: dict[str, Any] = {column: [good[0], text, good[2]]}
            yield Input("a.csv", table(**change).encode(), f"row 3: {column} .*{why}")
    for large in ("9007199254740992.0", "1152921504606846977.0", "99999999999999999999.0", "-9007199254740993.0"):
        for column in ("user", "item"):
            change = {column: [large, "2.0", "3.0"]}
            yield Input("a.csv", table(**change).encode(), "1 ids are floats of 2 .. 53")


def times() -> Iterator[Input]:
    moments = [row[2] for row in GOOD]
    dates = [dt.datetime.fromtimestamp(moment, dt.UTC) for moment in moments]
    for scale, point in itertools.product((1, 10**3, 10**6, 10**9), ("", ".0", ".")):
        yield Input("a.csv", table(timestamp=[f"{moment * scale}{point}" for moment in moments]).encode())
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.000Z", "%Y-%m-%dT%H:%M:%S+00:00"):
        yield Input("a.csv", table(timestamp=[f"{date:{form}}" for date in dates]).encode())
    forms = ("%d-%m-%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%Y/%m/%d %H:%M:%S", "%Y%m%d%H%M%S")
    for form in (*forms, "%d %b %Y %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z", "%a %b %d %H:%M:%S %Y"):
        content = table(timestamp=[f"{date:{form}}" for date in dates]).encode()
        yield Input("a.csv", content, f'set `format: "{form}"`')
        yield Input("a.csv", content, None, {"format": form})
    strays = ("0", "-1", "1970-01-01", "5", "9999999999", "", "null", "NaN", "inf", "noon", "2147483647000", "1e9.")
    for stray, place in itertools.product(strays, range(3)):
        texts = [str(moment) for moment in moments]
        texts[place] = stray
        yield Input("a.csv", table(timestamp=texts).encode(), f"row {place + 2}: timestamp ")
    alone = ("1.60E+12", "1,60E+12", "0", "17", "noon", "null", "", "0001-01-01", "9999-12-31", "42121", "04/05/2015")
    for text in alone:
        yield Input("a.csv", table(timestamp=[f'"{text}"'] * 3).encode(), "column 'timestamp'")
    for mixed in ([T, T * 1000, T], [T * 10**6, T * 1000, T * 1000], [T * 10**9, T, T * 10**9]):
        yield Input("a.csv", table(timestamp=list(map(str, mixed))).encode(), "different units")
    for unit in ("milliseconds", "microseconds", "nanoseconds"):
        yield Input("a.csv", table().encode(), "look like seconds, correct `unit`", {"unit": unit})


def shapes() -> Iterator[Input]:
    text = table()
    yield Input("a.csv", (text + "\n\n").encode())
    yield Input("a.csv", (text + ",,,\n,,,\n").encode())
    yield Input("a.csv", text.rstrip("\n").encode())
    yield Input("a.csv", table(header=('"user"', " item", "timestamp ", "rating")).encode())
    yield Input("a.csv", ("\n" + text).encode(), "row 1: empty")
    yield Input("a.csv", ("sep=,\n" + text).encode(), "row 1: 'sep=,'")
    yield Input("a.csv", text.replace("2,11,", "2,11,9,", 1).encode(), "row 3: 5 fields")
    yield Input("a.csv", text.replace("2,11,", '2,1"1,', 1).encode(), "row 3: a quotation mark")
    yield Input("a.csv", text.replace("2,11,", '2,"11,', 1).encode(), "quotation mark")
    yield Input("a.csv", text.partition("\n")[2].encode(), "no column 'user'")
    yield Input("a.csv", HEADER[0].encode(), "no column 'item'")
    yield Input("a.csv", b",".join(f"c{n}".encode() for n in range(30_000)) + b"\n", "no column 'user'")
    yield Input("a.csv", b"x" * 1_100_000, "without a line end")
    for missing in HEADER[:3]:
        header = tuple("other" if name == missing else name for name in HEADER)
        yield Input("a.csv", table(header=header).encode(), f"no column '{missing}'")
        header = tuple(missing if name == "rating" else name for name in HEADER)
        yield Input("a.csv", table(header=header).encode(), f"2 columns are called '{missing}'")


def parquet(change: dict[str, Any], drop: str = "") -> bytes:
    columns = {name: [row[place] for row in GOOD] for place, name in enumerate(HEADER[:3])}
    file = io.BytesIO()
    pq.write_table(pa.table({key: each for key, each in {**columns, **change}.items() if key != drop}), file)
    return file.getvalue()


def types() -> Iterator[Input]:
    """Every type in each column that is mapped; the right result where it says the same."""
    numbers: dict[str, list[Any]] = {"user": [1, 2, 1], "item": [10, 11, 11], "timestamp": [row[2] for row in GOOD]}
    for column, values in numbers.items():
        fine = [
            *(pa.array(values, kind) for kind in (pa.int32(), pa.int64(), pa.uint32(), pa.uint64(), pa.float64())),
            *(pa.array(list(map(Decimal, values)), kind) for kind in (pa.decimal128(38, 0), pa.decimal256(50, 0))),
            *(pa.array(list(map(str, values)), kind) for kind in (pa.string(), pa.large_string(), pa.string_view())),
            *(pa.array([str(each).encode() for each in values], kind) for kind in (pa.binary(), pa.large_binary())),
            pa.array(list(map(str, values))).dictionary_encode(),
            pa.array(values).dictionary_encode(),
        ]  # fmt: skip
        for array in fine:
            yield Input("a.parquet", parquet({column: array}))
        odd = (
            *([True, False, None], [[1]] * 3, [{"a": 1}] * 3, [b"\xff"] * 3, [[[1]]] * 3, [dt.time(1)] * 3),
            *([dt.timedelta(1)] * 3, pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64()))),
        )
        for array in odd:
            yield Input("a.parquet", parquet({column: array}), f"column '{column}'")
        yield Input("a.parquet", parquet({}, drop=column), f"no column '{column}'")
        yield Input("a.parquet", parquet({column: pa.nulls(3)}), ANY)
    for column, value in itertools.product(("user", "item"), (2.0**53, 2.0**60, float("inf"), -(2.0**53))):
        yield Input("a.parquet", parquet({column: [value, 1.0, 2.0]}), f"'{column}'.*1 ids are floats of")
        yield Input("a.parquet", parquet({column: [1.5, 1.0, 2.0]}), f"'{column}'.*found 1.5")
    for unit, scale in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        for zone in (None, "UTC", "Asia/Tokyo", "Nowhere/Land"):
            when = pa.array([row[2] * scale for row in GOOD], pa.timestamp(unit, zone))
            yield Input("a.parquet", parquet({"timestamp": when}))
            stray = pa.array([row[2] * scale for row in GOOD[:2]] + [0], pa.timestamp(unit, zone))
            yield Input("a.parquet", parquet({"timestamp": stray}), "row 3: timestamp is before 1990")


def damaged() -> Iterator[Input]:
    whole = parquet({})
    for end in range(5, len(whole) - 1, len(whole) // 25):
        yield Input("a.parquet", whole[:end], "not a whole Parquet file")
    rng = random.Random(0)  # noqa: S311
    for size in (5, 50, 500, 5000) * 5:
        yield Input("a.parquet", rng.randbytes(size), ANY)
        yield Input("a.csv", rng.randbytes(size), ANY)
        yield Input("a.parquet", b"PAR1" + rng.randbytes(size) + b"PAR1", "not a whole Parquet file")


KINDS = (encodings, separators, other_files, ids, times, shapes, types, damaged)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_input_of_a_kind(kind: Any, tmp_path: Path) -> None:
    wrong = [
        f"{case.name} {case.content[:90]!r} {case.settings}: {told}"
        for case in kind()
        if (told := fault(case, tmp_path))
    ]
    assert not wrong, "\n".join(wrong)


def test_there_are_hundreds() -> None:
    assert sum(1 for kind in KINDS for _ in kind()) > 500


def fault(case: Input, folder: Path) -> str:
    """What is wrong with what came of an input; nothing if it is as it must be."""
    separator = case.settings.get("separator", ",")
    (folder / "items.csv").write_text("item,title\n10,Ten\n11,Eleven\n".replace(",", separator))
    (folder / case.name).write_bytes(case.content)
    paths: dict[str, Any] = {"interactions": str(folder / case.name), "items": str(folder / "items.csv")}
    columns = Columns(user="user", item="item", timestamp="timestamp")
    source = Files(kind="files", columns=columns, **paths, **case.settings)
    try:
        found = load(source, Rejects()).interactions.rows()
    except UserError as error:
        return fault_of(str(error), case, source)
    return "" if case.error is None and found == GOOD else f"read as {found[:4]}"


def fault_of(said: str, case: Input, source: Files) -> str:
    if case.error is None or not re.search(case.error, said):
        return f"said {said}"
    name = said.replace(source.interactions, "").replace(source.items, "")
    if name == said or not said.isprintable() or len(said) > 1000 or LIBRARIES.search(name):
        return f"no sentence: {said!r}"
    return ""
