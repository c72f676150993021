"""A user's Parquet file, or folder of Parquet parts, read by pyarrow, because polars panics on some damaged files.

The type of each mapped column is checked in every part before anything is read, and only plain columns (text, numbers,
true or false) are handed to polars. Parts may differ in the width of their integers, and in columns without a value.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.columns import IDS, Table, Wanted, found_columns, label, ratings, truths
from iadsr.ingest.folders import files_of
from iadsr.ingest.ids import refuse_fraction, refuse_inexact
from iadsr.ingest.raw import CATEGORY_SEPARATOR
from iadsr.ingest.rejects import TEXT_LENGTH, Place
from iadsr.ingest.sniffing import PARQUET, head_of, refuse_no_parquet

BATCH = 1 << 20  # rows that are read at once
SUFFIXES = (".parquet", ".parq", ".pq")
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError, OverflowError)
# Integers that a float of so many bits tells apart.
EXACT_FLOATS = {16: 2**11, 32: 2**24, 64: 2**53}
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY = 86_400
SECOND = 10**9
# A column beside the user's, none of which has such a name: where rows may hold lists, the row of the file.
ROW = "\0row"
# Our name -> the kinds of columns that it may come from, and how messages call these.
NUMBERS = ("integers", "floats", "decimals")
KINDS = {
    schemas.USER: (("text", "integers", "floats"), "text or integers"),
    schemas.ITEM: (("text", "integers", "floats"), "text or integers"),
    schemas.TIMESTAMP: (("text", *NUMBERS, "times"), "text, numbers or times"),
    schemas.RATING: (("text", *NUMBERS), "numbers"),
    schemas.IS_NOISE: (("text", *NUMBERS, "truth"), "true or false, or 1 or 0"),
    schemas.TITLE: (("text", *NUMBERS, "lists"), "text"),
    schemas.CATEGORIES: (("text", *NUMBERS, "lists"), "text or lists of text"),
}
IN_LISTS = (schemas.ITEM, schemas.TITLE, schemas.TIMESTAMP)


class Part(NamedTuple):
    """One file: its name in messages, and the columns that the names of its folders hold (`key=value`)."""

    name: str
    folders: dict[str, str | None]

    @property
    def path(self) -> Path:
        return Path(self.name)


class Inexact:
    """Ids that floats may have merged, counted over all parts; the first of them is the example."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()
        self.first: dict[str, tuple[str, str]] = {}

    def add(self, ours: str, numbers: np.ndarray, bits: int) -> None:
        if len(numbers):
            self.count[ours] += len(numbers)
            example = f"{numbers[0]:.0f}"
            self.first.setdefault(ours, (example, f"2 ** {EXACT_FLOATS[bits].bit_length() - 1}"))

    def refuse(self, name: str, columns: Mapping[str, str]) -> None:
        for ours, count in self.count.items():
            example, beyond = self.first[ours]
            refuse_inexact(label(name, ours, columns[ours]), example, count, beyond)


def read_parquet(name: str, wanted: Wanted) -> Table:
    """The mapped columns of a file or a folder; UserError if it cannot be read, or holds other types."""
    parts, notes = parts_of(name)
    sizes, kinds = [], []
    for part in parts:
        with opened(part) as file:
            sizes.append(file.metadata.num_rows)
            kinds.append(_checked(part, file.schema_arrow, wanted))
    columns = {ours: theirs for ours, theirs in wanted.columns.items() if all(ours in each for each in kinds)}
    time = _kind_of_times(parts, kinds)
    inexact = Inexact()
    pieces = []
    for part, start in zip(parts, _starts(sizes), strict=True):
        reading = PartReading(part, columns, time, wanted.lists, inexact)
        pieces += [piece.with_columns(pl.col(ROW) + start) if wanted.lists else piece for piece in _pieces(reading)]
    inexact.refuse(name, columns)
    frame = pl.concat(pieces)
    rows = frame.drop_in_place(ROW).to_numpy() if wanted.lists else None
    return Table(name, frame, columns, lambda places: _places(parts, sizes, places), notes=notes, rows=rows)


# --- the files ---


def parts_of(name: str) -> tuple[list[Part], list[str]]:
    """The file itself, or the Parquet files of a folder in natural order, and notes; UserError if there are none."""
    if not os.path.isdir(name):
        refuse_no_parquet(name, head_of(Path(name)))
        return [Part(name, {})], []
    files = files_of(Path(name))
    parquet = [file for file in files if file.suffix.lower() in SUFFIXES or head_of(file).startswith(PARQUET)]
    if not parquet:
        found = f"found {files[0].name!r}" if files else "it is empty"
        raise UserError(
            f"{name}: a folder without Parquet files ({found}); give the path of one file, or of such parts"
        )
    for file in parquet:
        refuse_no_parquet(str(file), head_of(file))
    others = len(files) - len(parquet)
    notes = [f"{name}: {others} of its files are no Parquet, and left out"] if others else []
    return [Part(str(file), _keys(file.relative_to(name).parts[:-1])) for file in parquet], notes


def _keys(folders: Sequence[str]) -> dict[str, str | None]:
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
    return {unquote(key): None if value == NO_VALUE else unquote(value) for key, _, value in pairs}


@contextmanager
def opened(part: Part) -> Iterator[ParquetFile]:
    """The file; UserError where it turns out not to be whole."""
    try:
        with pa.OSFile(part.name) as source, ParquetFile(source, page_checksum_verification=True) as file:
            yield file
    except pa.ArrowNotImplementedError:
        raise UserError(
            f"{part.name}: written in a way that cannot be read here; write it again as plain Parquet, compressed by "
            "snappy or zstd"
        ) from None
    except PermissionError:
        raise
    except UNREADABLE:
        raise UserError(f"{part.name}: not a whole Parquet file; write or copy it again") from None


def _starts(sizes: Sequence[int]) -> list[int]:
    """In which row of the whole each part begins."""
    return [*accumulate(sizes, initial=0)][:-1]


def _places(parts: Sequence[Part], sizes: Sequence[int], rows: Sequence[int]) -> list[Place]:
    """Part, row from 1, and text of rows, which ascend: the values of all columns in the order of the file."""
    found = []
    for part, start, size in zip(parts, _starts(sizes), sizes, strict=True):
        own = [row - start for row in rows if start <= row < start + size]
        if own:
            found += [Place(part.name, row + 1, text) for row, text in zip(own, _texts_of(part, own), strict=True)]
    return found


def _texts_of(part: Part, rows: Sequence[int]) -> Iterator[str]:
    wanted, start = set(rows), 0
    with opened(part) as file:
        for batch in file.iter_batches(1 << 12):
            here = [row for row in range(start, start + batch.num_rows) if row in wanted] if wanted else []
            yield from (",".join(_cell(column, row - start) for column in batch.columns) for row in here)
            wanted.difference_update(here)
            start += batch.num_rows
            if not wanted:
                return


def _cell(column: pa.Array, row: int) -> str:
    try:
        value = column[row].as_py()
    except (ValueError, OverflowError, TypeError, pa.ArrowException):  # a moment that Python cannot hold, for one
        return "?"
    return "" if value is None else str(value)[:TEXT_LENGTH]


# --- types ---


def _checked(part: Part, schema: pa.Schema, wanted: Wanted) -> dict[str, str]:
    """Our name -> the kind of its column; UserError for one that is missing or of another type."""
    kinds = {}
    for ours, place in found_columns(part.name, _present(part, schema), wanted).items():
        kind = _kind(schema.field(place).type) if place < len(schema.names) else "text"
        if wanted.lists and ours in IN_LISTS and kind == "lists":
            kind = _kind(schema.field(place).type.value_type)
        if kind not in (*KINDS[ours][0], "null"):
            found = schema.field(place).type
            raise UserError(
                f"{label(part.name, ours, wanted.columns[ours])}: expected {KINDS[ours][1]}, found the type "
                f"{str(found)[:TEXT_LENGTH]}; write it so"
            )
        if ours == schemas.TIMESTAMP and kind == "floats":
            _refuse_narrow(part, _leaf(schema.field(place).type), wanted)
        kinds[ours] = kind
    return kinds


def _refuse_narrow(part: Part, type: pa.DataType, wanted: Wanted) -> None:
    """UserError for floats that hold no time to the second, in whichever unit."""
    if type.bit_width < 64:
        grid = "times of today only every 128 seconds" if type.bit_width == 32 else "no times of today"
        raise UserError(
            f"{label(part.name, schemas.TIMESTAMP, wanted.columns[schemas.TIMESTAMP])}: expected numbers that tell "
            f"seconds apart, found float{type.bit_width}, which holds {grid}; write integers, times or float64, from "
            "the original"
        )


def _present(part: Part, schema: pa.Schema) -> list[str]:
    """Names of columns: those of the file, then those of its folders that it lacks."""
    return [*schema.names, *(key for key in part.folders if key not in schema.names)]


def _kind(type: pa.DataType) -> str:
    """A word of `KINDS`, null, or nothing for other types."""
    types = pa.types
    while types.is_dictionary(type):
        type = type.value_type
    if _is_list(type):
        return "lists" if _kind(_leaf(type)) in ("text", *NUMBERS, "null") else ""
    if types.is_decimal(type):
        return "integers" if type.scale == 0 else "decimals"
    tests = {
        "null": (types.is_null,),
        "text": (types.is_string, types.is_large_string, types.is_string_view, *BYTES),
        "integers": (types.is_integer,),
        "floats": (types.is_floating,),
        "truth": (types.is_boolean,),
        "times": (types.is_timestamp, types.is_date),
    }
    return next((kind for kind, checks in tests.items() if any(check(type) for check in checks)), "")


def _is_list(type: pa.DataType) -> bool:
    types = pa.types
    checks = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(check(type) for check in checks)


def _leaf(type: pa.DataType) -> pa.DataType:
    while _is_list(type) or pa.types.is_dictionary(type):
        type = type.value_type
    return type


def _kind_of_times(parts: Sequence[Part], kinds: Sequence[Mapping[str, str]]) -> str:
    """The kind of the column of times in all parts; UserError if they differ."""
    found: dict[str, str] = {}
    for part, each in zip(parts, kinds, strict=True):
        kind = each.get(schemas.TIMESTAMP, "null")
        if kind != "null":
            found.setdefault(kind, part.name)
    if len(found) > 1 and set(found) <= set(NUMBERS):
        return "floats" if "floats" in found else "decimals"
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise UserError(f"{second}: times are {other}, but {one} in {first}; write them the same in all parts")
    return next(iter(found), "text")


# --- the values ---


class PartReading(NamedTuple):
    """How one part is read: its mapped columns, the kind of its times, and whether a row may hold lists."""

    part: Part
    columns: Mapping[str, str]
    time: str
    lists: bool
    inexact: Inexact


def _pieces(reading: PartReading) -> Iterator[pl.DataFrame]:
    """The mapped columns: first of no row, for their types, then of at most `BATCH` rows of a row group at a time."""
    with opened(reading.part) as file:
        schema = file.schema_arrow
        places = found_columns(reading.part.name, _present(reading.part, schema), Wanted(reading.columns))
        fields = {ours: schema.field(place) for ours, place in places.items() if place < len(schema.names)}
        wanted = sorted({field.name for field in fields.values()})
        yield _piece(reading, {ours: pa.array([], field.type) for ours, field in fields.items()}, 0, 0)
        start = 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(BATCH, row_groups=[group], columns=wanted):
                batch.validate(full=True)
                found = {ours: batch.column(batch.schema.get_field_index(field.name)) for ours, field in fields.items()}
                yield _piece(reading, found, batch.num_rows, start)
                start += batch.num_rows


def _piece(reading: PartReading, found: Mapping[str, pa.Array], count: int, start: int) -> pl.DataFrame:
    """The mapped columns of some rows, `start` of the part the first of them."""
    keys = {ours: reading.part.folders.get(theirs) for ours, theirs in reading.columns.items() if ours not in found}
    arrays = {**found, **{ours: pa.array([value] * count, pa.large_string()) for ours, value in keys.items()}}
    rows = np.arange(count)
    if reading.lists and _is_list(arrays[schemas.ITEM].type):
        arrays, rows = _unfolded(arrays)
    columns = [column for ours in reading.columns for column in _converted(reading, ours, arrays[ours])]
    return pl.DataFrame([*columns, pl.Series(ROW, rows + start)] if reading.lists else columns)


def _unfolded(arrays: Mapping[str, pa.Array]) -> tuple[dict[str, pa.Array], np.ndarray]:
    """A row for each entry of the lists of items, one without an item for an empty list, and the row of each.

    Lists of another length than the one beside them count as nothing.
    """
    sizes = {ours: pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
             for ours, array in arrays.items() if _is_list(array.type)}  # fmt: skip
    size = sizes[schemas.ITEM]
    rows = np.repeat(np.arange(len(size)), np.maximum(size, 1))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(np.maximum(size, 1)) - np.maximum(size, 1), np.maximum(size, 1))
    unfolded = {}
    for ours, array in arrays.items():
        if ours not in sizes:
            unfolded[ours] = array.take(pa.array(rows))
            continue
        own = sizes[ours]
        nothing = (own != size)[rows] | (own[rows] == 0)
        unfolded[ours] = pc.list_flatten(array).take(pa.array((np.cumsum(own) - own)[rows] + place, mask=nothing))
    return unfolded, rows


def _converted(reading: PartReading, ours: str, array: pa.Array) -> list[pl.Series]:
    """The column as `Table` describes it; times that are moments make two."""
    where = label(reading.part.name, ours, reading.columns[ours])
    if ours == schemas.CATEGORIES or _is_list(array.type):
        return [pl.Series(ours, [_joined(value) for value in array.to_pylist()], dtype=pl.String)]
    plain = _plain(array, where)
    if ours in IDS:
        return [_ids(plain, ours, where, reading.inexact).alias(ours)]
    if ours == schemas.TIMESTAMP and reading.time == "times":
        return _moments(plain)
    values = pl.Series(pl.from_arrow(plain))
    if ours == schemas.RATING:
        return [ratings(values).alias(ours)]
    if ours == schemas.IS_NOISE:
        return [truths(values).alias(ours)]
    if ours == schemas.TIMESTAMP and reading.time == "integers":
        return [_integers(values).alias(ours)]
    if ours == schemas.TIMESTAMP and reading.time == "decimals":
        text = values.cast(pl.String)
        return [text.set(text.str.contains("E-", literal=True).fill_null(False), "0").alias(ours)]  # so little is 0
    if ours == schemas.TIMESTAMP and reading.time == "floats":
        return [values.cast(pl.Float64, strict=False).alias(ours)]
    return [values.cast(pl.String).alias(ours)]


def _integers(values: pl.Series) -> pl.Series:
    """Int64, the largest or smallest for a number that it does not hold: neither is a time, but none is missing."""
    whole = values.cast(pl.Int64, strict=False)
    beyond = whole.is_null() & values.is_not_null()
    if not beyond.any():
        return whole
    bounds = np.iinfo(np.int64)
    return whole.set(beyond, bounds.max).set(beyond & values.cast(pl.String).str.starts_with("-"), bounds.min)


def _plain(array: pa.Array, where: str) -> pa.Array:
    """Dictionaries looked up, bytes and decimals as text: what polars takes without more ado."""
    while pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if any(check(array.type) for check in BYTES):
        try:
            return array.cast(pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid:
            raise UserError(f"{where}: bytes that are no UTF-8, expected text; write it so") from None
    if pa.types.is_decimal(array.type):
        return array.cast(pa.large_string())
    if pa.types.is_string_view(array.type) or pa.types.is_string(array.type):
        return array.cast(pa.large_string())
    return array


def _ids(array: pa.Array, ours: str, where: str, inexact: Inexact) -> pl.Series:
    if pa.types.is_floating(array.type):
        array = _whole(array, ours, where, inexact)
    return pl.Series(pl.from_arrow(array.cast(pa.large_string()))).cast(pl.Categorical)


def _whole(array: pa.Array, ours: str, where: str, inexact: Inexact) -> pa.Array:
    """Floats as integers, null for NaN and for those that are not exact; UserError for fractions."""
    bits = array.type.bit_width
    numbers = array.cast(pa.float64()).fill_null(np.nan).to_numpy()
    given = numbers[~np.isnan(numbers)]
    broken = given[given != np.floor(given)]
    if len(broken):
        refuse_fraction(where, f"{broken[0]:g}")
    inexact.add(ours, given[np.abs(given) >= EXACT_FLOATS[bits]], bits)
    exact = np.abs(numbers) < EXACT_FLOATS[bits]
    return pa.array(np.where(exact, numbers, 0).astype(np.int64), mask=~exact)


def _moments(array: pa.Array) -> list[pl.Series]:
    """timestamp, whole seconds, and nanosecond, what is past them, without any calendar that might fail."""
    if pa.types.is_date32(array.type):
        seconds, past = pl.Series(pl.from_arrow(array.cast(pa.int32()))).cast(pl.Int64) * DAY, None
    else:
        per = PER_SECOND[array.type.unit] if pa.types.is_timestamp(array.type) else PER_SECOND["ms"]
        numbers = pl.Series(pl.from_arrow(array.cast(pa.int64()))).cast(pl.Int64)
        seconds, past = numbers // per, numbers % per * (SECOND // per)
    none = pl.repeat(0, len(seconds), eager=True)
    return [seconds.alias(schemas.TIMESTAMP), (none if past is None else past).cast(pl.Int32).alias(schemas.NANOSECOND)]


def _joined(value: Any) -> str | None:
    """Texts of lists however nested, in order, each once, from the widest to the narrowest."""
    texts: dict[str, None] = {}
    waiting = [value]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, list):
            waiting += reversed(entry)
        elif entry is not None:
            text = entry.decode("utf-8", "replace") if isinstance(entry, bytes) else str(entry)
            texts.setdefault(text.strip())
    return CATEGORY_SEPARATOR.join(filter(None, texts)) or None
