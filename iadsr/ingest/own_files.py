"""A user's own data: a table of interactions and a table of items, each CSV or Parquet.

Times may be ISO 8601 dates or date-times (UTC unless they say otherwise), or numbers since 1970. What a column of text
holds is decided for the column as a whole: numbers, if at least as many of its values read as numbers as read as ISO
dates. Numbers are milliseconds if their median is 100,000,000,000 or more (the year 5138 in seconds, 1973 in
milliseconds), else seconds. Values that do not fit the decision are bad rows. Fractions of a second are kept beside the
whole seconds, so that rows of the same second still sort by time. Numbers that read as dates, such as 20240101, are
refused, because as seconds or milliseconds they would be days of 1970 or years beyond 2500.

Texts are taken as they stand, on one line: `&amp;` in a title stays `&amp;`, since only its owner knows what it means.

The interactions may be tens of millions: their ids are read as categories, a number a row, and what is computed from a
column is computed piece by piece (polars' streaming engine), so that no intermediate column is ever whole in memory.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl
import pyarrow
import pydantic
from pyarrow.parquet import ParquetFile

from iadsr import schemas
from iadsr.errors import UserError
from iadsr.ingest.raw import (
    CATEGORY_SEPARATOR,
    END_OF_TIME,
    Item,
    ItemRows,
    Names,
    Raw,
    collapsed,
    raw_tables,
    without_empty_optionals,
)
from iadsr.ingest.rejects import TEXT_LENGTH, Rejects
from iadsr.params import Group

MILLISECONDS_FROM = 1e11
NANOSECONDS = 1_000_000_000
REQUIRED = (schemas.USER, schemas.ITEM, schemas.TIMESTAMP, schemas.IS_NOISE)  # in every row, where the table has it
# Columns beside the user's; none of these has such a name. FILLED: does anything at all stand in a row?
FILLED = "\0filled"
# A column that only a CSV with rows of too many fields has: what is wrong with each.
SURPLUS = "\0surplus"
BATCH = 1 << 20  # rows of a Parquet file that are read at once
PYTHON_BATCH = 1 << 16  # rows that go through Python's own parser of dates at once
# Nearly all dates in the world: a day, or a day and a time in whole seconds, in UTC.
PLAIN_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}:[0-5][0-9]Z?)?$"
TRUTH = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


class Columns(Group):
    """params.yaml, `datasets.<name>.source.columns`: our name -> the name in the user's files.

    `item_id` is the item table's name for what the interactions call `item`, where the two differ.
    """

    user: str
    item: str
    timestamp: str
    rating: str | None = None
    is_noise: str | None = None
    item_id: str | None = None
    title: str = schemas.TITLE
    categories: str | None = None


class Files(Group):
    """params.yaml, `datasets.<name>.source`: two paths, relative to the project's root, and their columns."""

    kind: Literal["files"]
    interactions: str = pydantic.Field(min_length=1)
    items: str = pydantic.Field(min_length=1)
    columns: Columns


def load(source: Files, rejects: Rejects) -> Raw:
    """Interactions in the order of their file, and the rows of the item table that occur in them.

    UserError for a missing or unreadable file or column, and for more bad rows, or items without a row in the item
    table, than tolerated. A rating that is no number is left empty; of several rows for an item the first counts.
    """
    interactions = read_interactions(source, rejects)
    items = read_items(source, rejects)
    return raw_tables(interactions, items, Names(source.interactions, source.items), rejects)


def read_interactions(source: Files, rejects: Rejects) -> pl.DataFrame:
    """user, item, timestamp and, where mapped, rating and is_noise, without the bad rows."""
    names = source.columns
    wanted = {name: getattr(names, name) for name in (*schemas.RAW_INTERACTIONS, *schemas.RAW_INTERACTIONS_OPTIONAL)}
    columns = {ours: theirs for ours, theirs in wanted.items() if theirs is not None}
    table = read_table(source.interactions, columns, categories=(schemas.USER, schemas.ITEM))
    typed = _typed(table, source.interactions)
    return without_empty_optionals(_set_aside(table, typed, REQUIRED, source.interactions, rejects))


def read_items(source: Files, rejects: Rejects) -> ItemRows:
    """Item id -> its title and categories, either of them empty where the table has none."""
    names = source.columns
    wanted = {schemas.ITEM: names.item_id or names.item, schemas.TITLE: names.title}
    if names.categories is not None:
        wanted[schemas.CATEGORIES] = names.categories
    table = read_table(source.items, wanted)
    others = table.drop(schemas.ITEM, SURPLUS, strict=False)
    typed = pl.DataFrame([_ids(table, schemas.ITEM, source.items), *map(_texts, others)])
    good = _set_aside(table, typed, (schemas.ITEM,), source.items, rejects)
    items = ItemRows()
    for item, *texts in good.iter_rows():
        items.add(item, Item(*map(collapsed, texts)))
    return items


def read_table(name: str, columns: Mapping[str, str], categories: Collection[str] = ()) -> pl.DataFrame:
    """The mapped columns under our names: all text from CSV, typed from Parquet; texts of `categories` as categories.

    UserError if it cannot be read. Where rows of a CSV have too many fields, a column SURPLUS says what is wrong with
    each of these, and is null for the others.
    """
    path = Path(name)
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise UserError(f"{name}: expected a file that ends in .csv or .parquet")
    if not path.is_file():
        raise UserError(f"{name}: no such file (paths are relative to the project's root)")
    return readers[path.suffix.lower()](path, columns, categories)


def _selection(path: Path, present: Collection[str], columns: Mapping[str, str]) -> list[pl.Expr]:
    """The mapped columns under our names; UserError for one that the file lacks."""
    for ours, theirs in columns.items():
        if theirs not in present:
            raise UserError(f"{path}: no column {theirs!r} (`columns.{ours}`); it has: {', '.join(present)}")
    return [pl.col(theirs).alias(ours) for ours, theirs in columns.items()]


def _read_parquet(path: Path, columns: Mapping[str, str], categories: Collection[str]) -> pl.DataFrame:
    # by pyarrow, because polars panics (no exception that one should catch) on some damaged files
    try:
        with ParquetFile(path) as file:
            # names by way of Python: it objects to damaged ones, where polars would panic again
            selection = _selection(path, file.schema_arrow.names, columns)
            pieces = (piece.select(selection) for piece in _pieces(file, columns.values()))
            return pl.concat([_with_categories(piece, categories) for piece in pieces])
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a whole Parquet file: {_first_line(error)}") from None


def _pieces(file: ParquetFile, names: Collection[str]) -> Iterator[pl.DataFrame]:
    """The named columns: first of no row, for their types, then of at most `BATCH` rows of a row group at a time."""
    wanted = [field for field in file.schema_arrow if field.name in names]
    yield pl.DataFrame({field.name: pyarrow.array([], field.type) for field in wanted})
    for group in range(file.num_row_groups):
        for batch in file.iter_batches(BATCH, row_groups=[group], columns=[field.name for field in wanted]):
            batch.validate(full=True)
            yield pl.DataFrame(dict(zip(batch.schema.names, batch.columns, strict=True)))


def _with_categories(piece: pl.DataFrame, names: Collection[str]) -> pl.DataFrame:
    texts = [name for name in names if piece.schema[name] == pl.String]
    return piece.with_columns(pl.col(texts).cast(pl.Categorical))


def _read_csv(path: Path, columns: Mapping[str, str], categories: Collection[str]) -> pl.DataFrame:
    """The mapped columns as text; empty lines at the end are no rows."""
    _refuse_other_separators(path)
    try:
        table = _scan_csv(path, columns, categories)
    except pl.exceptions.PolarsError as error:
        table = _read_ragged_csv(path, columns, categories, error)
    filled = table[FILLED].arg_true()
    return table.drop(FILLED).head(0 if filled.is_empty() else int(filled[-1]) + 1)


def _scan_csv(
    path: Path, columns: Mapping[str, str], categories: Collection[str], ragged: bool = False
) -> pl.DataFrame:
    """The mapped columns, and in FILLED whether anything stands in a row at all; `ragged`: surplus fields are cut."""
    scan = pl.scan_csv(path, infer_schema=False, truncate_ragged_lines=ragged)
    selection = _selection(path, scan.collect_schema().names(), columns)
    filled = pl.any_horizontal(pl.all().is_not_null()).alias(FILLED)
    coded = [pl.col(name).cast(pl.Categorical) for name in categories]
    return scan.select(*selection, filled).with_columns(coded).collect(engine="streaming")


def _refuse_other_separators(path: Path) -> None:
    """UserError for a header without a comma but with what other programs separate fields by."""
    with open(path, "rb") as file:
        header = file.readline().decode("utf-8", "replace").strip()
    found = next((separator for separator in ";\t|" if separator in header), "")
    if found and "," not in header:
        raise UserError(
            f"{path}, row 1: the separator looks like {found!r}, expected commas: found {header[:TEXT_LENGTH]!r}; save "
            "it as CSV with commas, or as Parquet"
        )


def _read_ragged_csv(
    path: Path, columns: Mapping[str, str], categories: Collection[str], error: pl.exceptions.PolarsError
) -> pl.DataFrame:
    """A CSV that polars refused with `error`: read if its only fault is rows of too many fields, else a UserError."""
    try:
        table = _scan_csv(path, columns, categories, ragged=True)
        surplus = _surplus(path)
        if len(surplus) == table.height and surplus.count():
            return table.with_columns(surplus)
    except (pl.exceptions.PolarsError, csv.Error):
        pass
    raise UserError(f"{path}{_broken_row(path) or f': cannot be read: {_first_line(error)}'}")


def _surplus(path: Path) -> pl.Series:
    """For each row of a CSV how many fields it has, in words, where the header has fewer; else null."""
    counts = [len(fields) for _, fields in _records(path)]
    faults = [f"{count} fields, where the header has {counts[0]}" if count > counts[0] else None for count in counts]
    return pl.Series(SURPLUS, faults[1:], dtype=pl.String)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _broken_row(path: Path) -> str:
    """Where and why a CSV cannot be read, as far as we know why; else nothing."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not _is_utf8(line):
                return f", row {number}: not valid UTF-8"
    stray = _stray_quotation_mark(path)
    if stray:
        return (
            f", row {stray}: a quotation mark inside a field (inches?); put the whole field into quotation marks and "
            'write the one inside twice: "3"" pipe"'
        )
    whole = 0
    try:
        for number, _ in _records(path, strict=True):
            whole = number
    except csv.Error as error:
        return f", after row {whole}: {error} (a quotation mark that is never closed?)"
    return ""


def _stray_quotation_mark(path: Path) -> int:
    """The line of the first field with a quotation mark that neither encloses it nor is doubled; 0 if there is none."""
    quoted, opened = False, 0
    with open(path, encoding="utf-8", newline="") as file:
        for number, line in enumerate(file, 1):
            for place, before in enumerate(line.split('"')[:-1]):
                if quoted:
                    quoted = False
                elif before == "" or before.endswith(","):
                    quoted, opened = True, number
                else:
                    return opened if place and not before.startswith(",") else number
    return 0


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _records(path: Path, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The number of the line on which each record of a CSV begins, header included, and its fields."""
    csv.field_size_limit(1 << 30)  # the default refuses long texts, which polars has read
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=strict)
        start = 1
        for fields in reader:
            yield start, fields
            start = reader.line_num + 1


def _row_numbers(name: str, indices: Collection[int]) -> list[int]:
    """Line numbers of a CSV's rows (index 0 follows the header), or 1-based row numbers of a Parquet file."""
    if not name.lower().endswith(".csv"):
        return [index + 1 for index in indices]
    wanted = set(indices)
    numbers = [number for index, (number, _) in enumerate(_records(Path(name)), -1) if index in wanted]
    # should both readers ever disagree on what a record is, one line each is the best guess
    return numbers if len(numbers) == len(indices) else [index + 2 for index in indices]


def _typed(table: pl.DataFrame, name: str) -> pl.DataFrame:
    """All columns in the types of `schemas`; null is what could not be converted."""
    columns = [_ids(table, schemas.USER, name), _ids(table, schemas.ITEM, name)]
    moments = times(table[schemas.TIMESTAMP], name)
    columns.append(moments[schemas.TIMESTAMP])
    if (moments[schemas.NANOSECOND] > 0).any():
        columns.append(moments[schemas.NANOSECOND])
    if schemas.RATING in table.columns:
        columns.append(table[schemas.RATING].cast(pl.Float32, strict=False).fill_nan(None))
    if schemas.IS_NOISE in table.columns:
        words = table[schemas.IS_NOISE].cast(pl.String).str.strip_chars().str.to_lowercase()
        columns.append(words.replace_strict(TRUTH, default=None, return_dtype=pl.Boolean))
    return pl.DataFrame(columns)


def _set_aside(
    table: pl.DataFrame, typed: pl.DataFrame, required: Collection[str], name: str, rejects: Rejects
) -> pl.DataFrame:
    """The rows of `typed` that lack nothing `required`; the others go to the rejects as they stand in `table`."""
    faults = [typed[column].is_null() for column in required if column in typed.columns]
    if SURPLUS in table.columns:
        faults.append(table[SURPLUS].is_not_null())
    bad = pl.select(pl.any_horizontal(faults)).to_series()
    if not bad.any():
        return typed
    reasons = _reasons(table.filter(bad), typed.filter(bad))
    as_found = table.filter(bad).drop(SURPLUS, strict=False).rows()
    for number, why, values in zip(_row_numbers(name, bad.arg_true().to_list()), reasons, as_found, strict=True):
        text = ",".join("" if value is None else str(value) for value in values)
        rejects.add(name, number, why, text)
    rejects.check()
    return typed.filter(~bad)


def _reasons(table: pl.DataFrame, typed: pl.DataFrame) -> pl.Series:
    """Why each of these bad rows is bad."""
    unlike = "timestamp is no number of (milli)seconds since 1970 and no ISO date, or unlike the rest of its column"
    faults = {f"{name} is missing": typed[name].is_null() for name in (schemas.USER, schemas.ITEM) if name in typed}
    if schemas.TIMESTAMP in typed:
        faults["timestamp is missing"] = _texts(table[schemas.TIMESTAMP]) == ""
        faults[unlike] = typed[schemas.TIMESTAMP].is_null()
    if schemas.IS_NOISE in typed:
        faults["is_noise is neither true nor false"] = typed[schemas.IS_NOISE].is_null()
    surplus = [table[SURPLUS]] if SURPLUS in table else []
    whys = [pl.when(fault).then(pl.lit(why)) for why, fault in faults.items()]
    return pl.select(pl.coalesce(*surplus, *whys)).to_series()


def _ids(table: pl.DataFrame, column: str, name: str) -> pl.Series:
    """Ids as categories, null where missing; whole floats, which pandas makes of integers with gaps, are integers."""
    values = table[column]
    if values.dtype.is_float():
        values = values.fill_nan(None)
        whole = values.drop_nulls()
        if (whole == whole.floor()).all():
            values = values.cast(pl.Int64, strict=False)
    if not (values.dtype.is_integer() or values.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise UserError(f"{name}: column for `{column}`: expected text or integers as ids, found {values.dtype}")
    text = _text(values)
    clean = pl.when(text != "").then(text)
    if values.dtype == pl.Categorical:
        different = values.unique()
        if _streamed(different, clean).to_series().eq_missing(different.cast(pl.String)).all():
            return values
    return _streamed(values, clean.cast(pl.Categorical))[column]


def _texts(values: pl.Series) -> pl.Series:
    """Any column as text without outer white space, missing values empty, lists joined as categories are."""
    return _streamed(values, _text(values))[values.name]


def _text(values: pl.Series) -> pl.Expr:
    """What `_texts` gives, as an expression on the column."""
    found = pl.col(values.name)
    if isinstance(values.dtype, pl.List):
        found = found.cast(pl.List(pl.String)).list.join(CATEGORY_SEPARATOR, ignore_nulls=True)
    return found.cast(pl.String).str.strip_chars().fill_null("")


def _streamed(values: pl.Series, *expressions: pl.Expr) -> pl.DataFrame:
    """What is computed from one column, row by row, without holding anything between it and the results."""
    return values.to_frame().lazy().select(expressions).collect(engine="streaming")


def times(values: pl.Series, name: str) -> pl.DataFrame:
    """timestamp, whole seconds since 1970 by the rule of this module's docstring, and nanosecond, what is past it.

    Both are null where a value does not fit the rule. UserError if the column is neither text, numbers nor times.
    """
    if values.dtype in (pl.Date, pl.Datetime):
        return _moments(values if values.dtype == pl.Datetime else values.cast(pl.Datetime("us")))
    if values.dtype.is_numeric():
        return _from_numbers(_streamed(values, _finite(pl.col(values.name).cast(pl.Float64)))[values.name], name)
    if values.dtype not in (pl.String, pl.Null):
        raise UserError(f"{name}: column for `{values.name}`: expected text, numbers or times, found {values.dtype}")
    return _from_texts(values, name)


def _moments(moments: pl.Series) -> pl.DataFrame:
    return pl.DataFrame({schemas.TIMESTAMP: moments.dt.epoch("s"), schemas.NANOSECOND: moments.dt.nanosecond()})


def _from_texts(values: pl.Series, name: str) -> pl.DataFrame:
    text = _text(values)
    number = text.cast(pl.Float64, strict=False)
    other = (text != "") & number.is_null()
    found = _streamed(values, _finite(number).alias("number"), other.alias("other"))
    if not found["other"].any():
        return _from_numbers(found["number"], name)
    dates = _dates(values)
    return _moments(dates) if dates.count() > found["number"].count() else _from_numbers(found["number"], name)


def _finite(number: pl.Expr) -> pl.Expr:
    return pl.when(number.is_finite()).then(number)


def _dates(values: pl.Series) -> pl.Series:
    """The moment of each ISO date, else null: polars, which is quick, reads the plain forms, Python the others."""
    text = _text(values)
    whole = pl.when(text.str.contains(PLAIN_DATE)).then(text.str.head(10) + "T" + text.str.slice(11, 8))
    moment = whole.str.replace("T$", "T00:00:00").str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")
    known = pl.when(moment.dt.year() > 0).then(moment)  # Python, and we, know no year 0
    dates = _streamed(values, known.alias("date"))["date"]
    others = dates.is_null().arg_true()
    slices = (_texts(values[others[start : start + PYTHON_BATCH]]) for start in range(0, len(others), PYTHON_BATCH))
    parsed = [pl.Series([_iso_time(text) for text in texts], dtype=pl.Datetime("us")) for texts in slices]
    return dates.scatter(others, pl.concat(parsed)) if parsed else dates


def _iso_time(text: str) -> datetime | None:
    """The moment without its zone, which is UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


def _from_numbers(numbers: pl.Series, name: str) -> pl.DataFrame:
    """What `times` gives for finite numbers."""
    _refuse_dates(numbers, name)
    number = pl.col(numbers.name)
    # the median is the first number from MILLISECONDS_FROM on, or a later one
    small = (number.abs() < MILLISECONDS_FROM).sum()
    unit = 1000 if numbers.count() > 2 * _streamed(numbers, small).item() else 1
    known = pl.when(number.abs() < END_OF_TIME * unit).then(number)
    whole = (known / unit).floor()
    # the difference is exact, so different numbers of one second stay different
    past = (known - whole * unit) * (NANOSECONDS // unit)
    columns = {schemas.TIMESTAMP: whole.cast(pl.Int64), schemas.NANOSECOND: past.floor().cast(pl.Int32)}
    return _streamed(numbers, *(expression.alias(ours) for ours, expression in columns.items()))


def _refuse_dates(numbers: pl.Series, name: str) -> None:
    """UserError if most numbers read as YYYYMMDD, or as YYYYMMDDHHMMSS, of 1900 to 2100."""
    for clock in (1, 1_000_000):
        days = pl.col(numbers.name) // clock
        plausible = pl.when(days.is_between(19_000_101, 21_001_231)).then(days).cast(pl.Int64).cast(pl.String)
        dates = _streamed(numbers, plausible.str.to_date("%Y%m%d", strict=False).alias("date"))["date"]
        if dates.count() > numbers.count() / 2:
            first = dates.is_not_null().arg_true()[0]
            raise UserError(
                f"{name}: column for `{schemas.TIMESTAMP}`: {int(numbers[first])} looks like a date, but numbers count "
                f"seconds or milliseconds since 1970; write dates as {dates[first]}"
            )
